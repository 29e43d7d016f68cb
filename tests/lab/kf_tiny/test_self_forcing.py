"""Learning from own streams: the shipped rollout, a gradient from every chunk, resumable, and better for it."""

from dataclasses import replace

import pytest
import torch

from kf_core.conditioning.anchor import Anchor
from kf_core.sampling.noise import SeededNoise
from kf_core.sampling.rollout import rollout
from kf_core.settings import Ahead
from kf_core.timeline import LatentSpan
from kf_core.types import LatentChunk
from lab.kf_tiny.audio_gain import as_trained
from lab.kf_tiny.batches import LEADS, Sampler, layouts
from lab.kf_tiny.checkpointing import in_file, write_generator
from lab.kf_tiny.clips import ClipFolder
from lab.kf_tiny.self_forcing import ClipDriving, OwnRollouts, output_loss, own_chunks, probe_rollout, train_on_own_rollouts
from lab.kf_tiny.student import MOUTH_WEIGHT, StudentTraining, train_student

from .test_student import card, clips


def training() -> StudentTraining:
    made = StudentTraining(card(), batch=4)
    made.sampler.add([clips()])
    torch.nn.init.normal_(made.networks.modules_tree.head.head.weight, std=0.02)  # a fresh head predicts nothing
    return made


def test_own_chunks_are_those_of_the_shipped_rollout():
    generator, rows = training().networks.generator(), clips(2)
    driving = ClipDriving.everything(rows)
    mine = [chunk.latents for chunk in own_chunks(generator, rows, driving, card().rollout, seed=5)]
    stream = rollout(generator, Anchor(rows.reference), driving, card().rollout, SeededNoise(5, (2, 16, 4, 4)))
    shipped = []
    while len(shipped) < 4:
        if isinstance(made := next(stream), LatentChunk):
            shipped.append(made.latents)
    assert len(mine) == 4 and all(torch.equal(a, b) for a, b in zip(mine, shipped, strict=True))


def test_a_stream_that_begins_on_the_portrait_has_the_clips_first_frame_for_one():
    """Never the reference, which is how the clip ends."""
    generator, rows = training().networks.generator(), clips(2)
    tied, driving = replace(card().rollout, first_frame="tie"), ClipDriving.everything(rows)
    mine = next(own_chunks(generator, rows, driving, tied, seed=5)).latents
    stream = rollout(generator, Anchor(rows.latents[:, :, :1]), driving, tied, SeededNoise(5, (2, 16, 4, 4)))
    assert torch.equal(mine, next(made for made in stream if isinstance(made, LatentChunk)).latents)


@pytest.mark.parametrize("first_frame, shares", [("tie", (0.3, 0.7)), ("free", (0, 0))])
def test_half_of_the_streams_of_a_model_that_begins_on_the_portrait_do(first_frame, shares):
    mine = card()
    own = OwnRollouts(StudentTraining(replace(mine, rollout=replace(mine.rollout, first_frame=first_frame)), batch=4))
    tied = [own._begun().begins_on_portrait for _ in range(60)]
    assert shares[0] <= sum(tied) / 60 <= shares[1]


def test_the_anchor_of_a_stream_that_is_judged_as_a_whole_never_moves():
    own, drawn = OwnRollouts(training()), card().rollout.output_span(3).stop + 1
    places = [own._still_place(drawn - 1) for _ in range(100)]
    assert all(Ahead(place, 20).position(drawn) == place for place in places) and max(places) == LEADS[1]


def test_a_chunk_carries_gradient_and_the_next_one_does_not_reach_back_into_it():
    made = training()
    rows = clips(1)
    chunks = own_chunks(made.networks.generator(), rows, ClipDriving.everything(rows), card().rollout, 0, exits=lambda chunk: 1)
    first, second = next(chunks), next(chunks)
    assert first.latents.requires_grad and second.latents.requires_grad
    (grad,) = torch.autograd.grad(second.latents.sum(), first.latents, retain_graph=True, allow_unused=True)
    assert grad is None
    output_loss(first, rows).backward()
    output_loss(second, rows).backward()  # each graph stands alone
    reads_words = ("text", "cross_attn", "norm3")  # there is one word only
    missing = [n for n, p in made.networks.named_parameters() if p.grad is None and not any(part in n for part in reads_words)]
    assert not missing


def test_the_gradient_under_autocast_reaches_weights_that_were_used_without_gradients_first():
    made, rows = training(), clips(1)
    before = made.networks.modules_tree.blocks[0].ffn[0].weight.clone()
    OwnRollouts(made).rollout_step(rows, 1.0)
    assert not torch.equal(made.networks.modules_tree.blocks[0].ffn[0].weight, before)


def test_the_emitted_loss_is_zero_on_the_truth_and_counts_the_mouth_as_training_does():
    rows = clips(1)
    span = LatentSpan(3, 6)
    true = rows.latents[:, :, 3:6]
    assert output_loss(LatentChunk(1, span, true), rows) == 0
    off_mouth, on_mouth = torch.zeros_like(true), torch.zeros_like(true)
    on_mouth[..., 2, 1:3], off_mouth[..., 0, 1:3] = 1, 1
    losses = [output_loss(LatentChunk(1, span, true + wrong), rows) for wrong in (off_mouth, on_mouth)]
    assert losses[1] == pytest.approx((4 + MOUTH_WEIGHT) * losses[0].item(), rel=1e-4)


def test_a_clip_drives_a_rollout_as_it_drives_a_batch():
    rows = clips()
    window = ClipDriving.everything(rows).window(LatentSpan(5, 9))
    sampler = Sampler(layouts(card().rollout), torch.Generator().manual_seed(0))
    sampler.add([rows])
    batch = sampler.batch(1, replace(sampler.layouts[1], past=3))
    start = int(batch.clean[0, 0, 0, 0, 0].round())
    which = int(batch.clean[0, 1, 0, 0, 0].round())
    same = ClipDriving.everything(rows).window(LatentSpan(start, start + 4))
    assert torch.equal(same.audio.features[which], batch.driving.audio.features[0, 4:])
    values = same.expression.features[which].unflatten(1, (4, 2, 5))[:, :, 0]
    told = batch.driving.expression.features[0, 4:].unflatten(1, (4, 2, 5))
    assert torch.equal(told[:, :, 0], values * told[:, :, 1])
    assert window.pose.features.shape == (4, 4, 12, 4, 4) and window.pose.features.max() <= 1


def test_beyond_the_clip_the_last_frame_holds():
    rows = clips(1)
    window = ClipDriving.everything(rows).window(LatentSpan(12, 15))
    assert torch.equal(window.audio.features[0], rows.audio[0, 12:13].expand(3, -1))


def test_steps_on_own_streams_bring_them_nearer_to_the_truth():
    made, rows = training(), clips(2)
    own = OwnRollouts(made)
    before = probe_rollout(made.networks.generator(), rows)["rollout"]
    for _ in range(25):
        own.rollout_step(rows, 0.5)
    assert probe_rollout(made.networks.generator(), rows)["rollout"] > before + 0.3


def test_rollouts_start_from_the_students_running_mean_and_resume_from_their_own_checkpoint(tmp_path):
    folder, held_out = ClipFolder(tmp_path / "clips"), ClipFolder(tmp_path / "held-out")
    folder.write(clips())
    held_out.write(clips(seed=1))
    student = train_student(tmp_path, card(), folder, held_out, minutes=0.01, batch=2)
    rolled = train_on_own_rollouts(tmp_path, card(), ClipFolder(folder.path), ClipFolder(held_out.path), minutes=0.01, batch=2)
    again = train_on_own_rollouts(tmp_path, card(), ClipFolder(folder.path), ClipFolder(held_out.path), minutes=0.01, batch=2)
    assert again.step == rolled.step > student.step
    assert all(torch.equal(a, b) for a, b in zip(rolled.mean.parameters(), again.mean.parameters(), strict=True))


def test_rollouts_of_a_run_without_a_student_begin_with_a_finished_model(tmp_path):
    folder, held_out = ClipFolder(tmp_path / "clips"), ClipFolder(tmp_path / "held-out")
    folder.write(clips())
    held_out.write(clips(seed=1))
    finished = tmp_path / "finished.safetensors"
    write_generator(finished, in_file(training().networks.tensors()), card(), {})
    begun = train_on_own_rollouts(tmp_path / "run", card(), folder, held_out, minutes=0.0, batch=2, grow_from=finished)
    known = as_trained(finished)
    assert begun.step == 0 and all(torch.equal(weight, known[name].float()) for name, weight in begun.networks.tensors().items())
