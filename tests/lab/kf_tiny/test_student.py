"""The student: batches laid out as the rollout will meet them, a loss that falls, runs that can be killed."""

from dataclasses import replace

import pytest
import torch

from kf_core.conditioning.anchor import Anchor
from kf_core.models.card import AudioSpec, ModelCard, PoseSpec, TextSpec
from kf_core.models.causal import sdpa
from kf_core.models.visibility import training_mask
from kf_core.sampling.chunk_context import ChunkContext
from kf_core.sampling.rollout import anchor_position
from kf_core.sampling.state import RolloutState
from kf_core.schedule import warped
from kf_core.settings import RolloutSettings
from kf_core.timeline import LatentSpan
from kf_core.types import ChunkConditioning, Signal
from lab.kf_tiny.batches import BEHIND, LEADS, Batch, Sampler, layouts
from lab.kf_tiny.clips import ClipFolder, ClipLatents
from lab.kf_tiny.student import StudentTraining, parameter_groups, plain_attention, train_student

GRID, FRAMES = 4, 13


def card() -> ModelCard:
    return ModelCard(
        name="student-test", dim=128, ffn_dim=128, layers=2, heads=1, in_channels=33, text=TextSpec(kind="none", width=8, tokens=1),
        audio=AudioSpec(kind="log-mel", width=256, code=8, first_layer=1, last_layer=1), pose=PoseSpec(), motion_strength=True,
        expression=("smile", "brows", "gaze_x", "gaze_y", "blink"), rollout=RolloutSettings(schedule=warped()), width=32, height=32,
    )  # fmt: skip


def clips(count: int = 4, seed: int = 0) -> ClipLatents:
    """Clips whose frames say which they are: the first channel is the frame's number, the second the clip's."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, 16, FRAMES, GRID, GRID, generator=generator)
    latents[:, 0] = torch.arange(FRAMES)[:, None, None].float()
    latents[:, 1] = torch.arange(count)[:, None, None, None].float()
    mouth = torch.zeros(count, FRAMES, GRID, GRID)
    mouth[:, :, 2, 1:3] = 1
    return ClipLatents(
        latents=latents, reference=latents[:, :, -1:].clone(), audio=torch.randn(count, FRAMES, 1024, generator=generator),
        pose=torch.randint(0, 255, (count, FRAMES, 12, GRID, GRID), generator=generator, dtype=torch.uint8),
        expression=torch.rand(count, FRAMES, 4, 5, generator=generator) + 0.1, motion=torch.rand(count, FRAMES, 1, generator=generator),
        weights=1 + 3 * mouth, mouth=mouth,
    )  # fmt: skip


def sampler(seed: int = 0) -> Sampler:
    made = Sampler(layouts(card().rollout), torch.Generator().manual_seed(seed))
    made.add([clips()])
    return made


def test_every_frame_is_where_the_rollout_would_have_it():
    made = sampler()
    for layout in made.layouts:
        batch = made.batch(16, layout)
        numbers = torch.cat((batch.past, batch.clean), 2)[:, 0, -layout.settings.denoised :, 0, 0].round()
        assert (numbers.diff(dim=1) == 1).all()  # contiguous
        assert (numbers[:, 0] == 0).all() if layout.is_first else (numbers[:, 0] >= max(layout.past, 1)).all()
        assert torch.equal(batch.reference[:, 0, 0, 0, 0], torch.full((16,), FRAMES - 1.0))
        assert torch.equal(batch.clean[:, 1, 0, 0, 0], batch.reference[:, 1, 0, 0, 0])  # of the same clip


def test_what_an_ablation_turns_off_is_a_tenth_of_the_training():
    usual = card().rollout

    def share(holds):
        return sum(layout.share for layout in layouts(usual) if holds(layout.settings, layout))

    assert share(lambda s, _: True) == pytest.approx(1)
    for turned_off in (
        lambda s, _: s.knot is None,
        lambda s, _: s.anchor is None,
        lambda s, _: s.knot is None and s.anchor is None,
        lambda s, _: s.window == 4,
        lambda s, layout: s.past >= 8 and layout.past >= 8,
    ):
        assert share(turned_off) >= 0.1 - 1e-9
    assert share(lambda s, _: s == usual) > 0.4


def test_the_segment_shows_anchor_past_and_current_as_inference_does():
    made = sampler()
    layout = made.layouts[1]
    batch = made.batch(64, layout)
    noisy, sigma = torch.randn_like(batch.clean), torch.full((64,), 0.625)
    segment = batch.segment(noisy, 1000 * sigma, 33)
    latents, frame, unknown = segment.latents[:, :16], segment.latents[:, 16:32], segment.latents[:, 32]
    assert torch.equal(latents[:, :, 0], batch.reference[:, :, 0]) and torch.equal(frame[:, :, 0], batch.reference[:, :, 0])
    assert not unknown[:, 0].any() and unknown[:, 1:4].all() and unknown[:, 5:].all()
    assert not frame[:, :, 1:4].any() and not frame[:, :, 5:].any()
    assert torch.equal(unknown[:, 4, 0, 0] == 0, batch.knows_knot) and 0.4 < batch.knows_knot.float().mean() < 0.9
    assert torch.equal(frame[:, :, 4][batch.knows_knot], batch.knot[batch.knows_knot][:, :, 0])
    assert not frame[:, :, 4][~batch.knows_knot].any()
    assert torch.equal(latents[:, :, 4:], noisy)  # the knot stays noise at the chunk's time
    assert not segment.t[:, :4].any() and (segment.t[:, 4:] == 625).all()
    settings = layout.settings
    assert torch.equal(segment.mask, training_mask(LatentSpan(3, 6), LatentSpan(6, 10), settings))


def tied() -> ModelCard:
    return replace(card(), rollout=replace(card().rollout, first_frame="tie"))


def on_portrait(size: int) -> Batch:
    made = Sampler(layouts(tied().rollout), torch.Generator().manual_seed(0))
    made.add([clips()])
    (layout,) = (layout for layout in made.layouts if layout.on_portrait)
    return made.batch(size, layout)


def test_a_model_that_begins_on_the_portrait_is_shown_that_and_others_are_not():
    assert sum(layout.share for layout in layouts(tied().rollout)) == pytest.approx(1)
    assert sum(layout.share for layout in layouts(tied().rollout) if layout.on_portrait) >= 0.1
    assert not any(layout.on_portrait for layout in layouts(card().rollout))


def test_the_portrait_of_a_beginning_is_its_first_frame_in_half_of_the_samples_and_another_of_its_clip_in_the_others():
    batch = on_portrait(200)
    assert (batch.clean[:, 0, :, 0, 0] == torch.arange(4.0)).all() and batch.knows_knot.all()
    is_same = (batch.reference == batch.clean[:, :, :1]).flatten(1).all(1)
    assert 0.4 < is_same.float().mean() < 0.6 and (batch.reference[~is_same, 0] == FRAMES - 1).all()
    assert torch.equal(batch.reference[:, 1, 0, 0, 0], batch.clean[:, 1, 0, 0, 0])  # of the same clip
    assert torch.equal(batch.knot, batch.reference)


def test_a_beginning_on_the_portrait_is_laid_out_as_a_stream_begins():
    """One masked pass of training gives what the first step of the shipped rollout gives."""
    torch.manual_seed(0)
    training = StudentTraining(tied())
    torch.nn.init.normal_(training.networks.modules_tree.head.head.weight, std=0.02)  # a fresh head predicts nothing
    generator, settings, batch = training.networks.generator(), tied().rollout, on_portrait(3)
    batch = replace(batch, anchor_position=torch.full((3,), anchor_position(settings, LatentSpan(0, 4))))
    noise = torch.randn_like(batch.clean)
    shown = batch.segment(noise, torch.full((3,), 1000.0), 33)

    def drawn(signal: Signal) -> Signal:
        return Signal(signal.features[:, 1:], signal.strength[:, 1:])

    signals = {name: drawn(getattr(batch.driving, name)) for name in ("audio", "pose", "expression", "motion")}
    conditioning, anchor = ChunkConditioning(span=LatentSpan(0, 4), **signals), Anchor(batch.reference)
    with torch.no_grad():
        state = RolloutState.start(generator, anchor, settings)
        state.read_prompt(generator, anchor, conditioning)
        span, past = LatentSpan(0, 4), state.cache.apply_rope(anchor_position(settings, LatentSpan(0, 4)))
        context = ChunkContext(
            model=generator, anchor=anchor, settings=settings, span=span, driving=conditioning, knot=state.knot, past=past
        )
        met = context.segment(noise, 1000.0)
        assert torch.equal(shown.latents[:, :, 1:], met.latents) and torch.equal(shown.positions[0, 1:], met.positions)
        flows = [generator.forward([segment], generator.encode_text(None))[0][:, :, -4:] for segment in (shown, met)]
    assert flows[1].std() > 0.01 and torch.allclose(*flows, atol=1e-5)


def test_the_anchor_is_ahead_mostly_and_behind_in_a_quarter():
    made = sampler()
    layout = made.layouts[1]
    positions = made.batch(400, layout).anchor_position
    ahead = positions[positions > 9]
    assert ahead.min() == 9 + LEADS[0] and ahead.max() == 9 + LEADS[1]
    behind = positions[positions <= 9]
    assert behind.min() == 6 - BEHIND[1] and behind.max() == 6 - BEHIND[0]
    assert 0.15 < len(behind) / 400 < 0.35


def test_every_signal_is_dropped_by_itself_and_never_reaches_the_anchor():
    made = sampler()
    batch = made.batch(600, made.layouts[1])
    for name, share in (("audio", 0.85), ("pose", 0.5), ("motion", 0.5)):
        signal = getattr(batch.driving, name)
        assert not signal.strength[:, 0].any() and not signal.features[:, 0].any()
        given = signal.strength[:, 1:]
        assert ((given == 0) | (given == 1)).all() and (given.std(1) == 0).all()
        assert abs(given[:, 0].mean() - share) < 0.08
    together = batch.driving.audio.strength[:, 1] * batch.driving.pose.strength[:, 1]
    assert 0.3 < together.mean() < 0.55


def test_an_unknown_expression_value_is_zero_and_says_so():
    made = sampler()
    steps = made.batch(300, made.layouts[1]).driving.expression.features[:, 1:].unflatten(2, (4, 2, 5))
    values, known = steps[..., 0, :], steps[..., 1, :]
    assert ((known == 0) | (known == 1)).all() and 0.2 < known.mean() < 0.6
    assert not values[known == 0].any() and (values[known == 1] > 0).all()
    assert (known.flatten(1, 2).std(1) > 0).any()  # some values become known on the way


def test_past_and_knot_are_noised_in_part_of_the_samples_and_the_anchor_never():
    made = sampler()
    layout = made.layouts[1]
    batch = made.batch(200, layout)
    exact = (batch.past[:, 0, :, 0, 0].diff(dim=1) == 1).all(1)
    assert 0.3 < exact.float().mean() < 0.7
    assert (batch.past[:, 0].mean((1, 2, 3)) - batch.clean[:, 0, 0].mean((1, 2)) + 2).abs().max() < 5
    assert torch.equal(batch.reference[:, 0], torch.full_like(batch.reference[:, 0], FRAMES - 1))


def test_times_are_mostly_the_steps_that_will_be_taken():
    made = sampler()
    schedule = card().rollout.schedule
    sigma = made.times(2000, schedule)
    taken = torch.stack([(sigma - s).abs() < 1e-6 for s, _ in schedule]).sum(1)
    assert (taken > 220).all() and taken.sum() < 1400 and sigma.min() < 0.2 and sigma.max() <= 1


def test_the_attention_of_training_is_that_of_inference():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 12, 8, requires_grad=True) for _ in range(3))
    mask = torch.rand(2, 1, 12, 12) < 0.7
    mask |= torch.eye(12, dtype=torch.bool)
    for given in (None, mask):
        outs = [attention(q, k, v, given) for attention in (plain_attention, sdpa)]
        grads = [torch.autograd.grad(out.square().sum(), (q, k, v)) for out in outs]
        assert torch.allclose(*outs, atol=1e-6) and all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*grads, strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        assert (plain_attention(q, k, v, mask).float() - outs[1]).abs().max() < 0.03


def test_a_student_learns_one_batch():
    training = StudentTraining(card(), batch=4)
    training.sampler.add([clips()])
    batch = training.sampler.batch(4, training.sampler.layouts[1])
    losses = [training.learn(batch) for _ in range(30)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_mouth_and_eyes_count_up_to_four_times():
    training = StudentTraining(card(), batch=4)
    training.sampler.add([clips()])
    batch = training.sampler.batch(4)
    assert batch.weights.max() == 4 and batch.weights.min() == 1
    assert torch.equal(batch.weights == 4, batch.mouth == 1)


def test_every_weight_has_one_optimiser():
    training = StudentTraining(card())
    matrices, rest = parameter_groups(training.networks)
    assert sorted(map(id, matrices + rest)) == sorted(id(p) for p in training.networks.parameters())
    assert all(p.ndim == 2 for p in matrices)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole = StudentTraining(card(), batch=2)
    whole.sampler.add([clips()])
    losses = [whole.train_step() for _ in range(4)]
    first = StudentTraining(card(), batch=2)
    first.sampler.add([clips()])
    resumed_losses = [first.train_step() for _ in range(2)]
    first.save(tmp_path / "student.pt")
    second = StudentTraining(card(), batch=2, seed=9)
    second.load(tmp_path / "student.pt")
    second.sampler.add([clips()])
    resumed_losses += [second.train_step() for _ in range(2)]
    assert resumed_losses == losses
    assert all(torch.equal(a, b) for a, b in zip(whole.mean.parameters(), second.mean.parameters(), strict=True))


def test_another_model_is_not_resumed(tmp_path):
    StudentTraining(card()).save(tmp_path / "student.pt")
    with pytest.raises(ValueError, match="another model"):
        StudentTraining(replace(card(), name="other")).load(tmp_path / "student.pt")


def test_training_takes_in_clips_that_come_later(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.kf_tiny.student.SECONDS_BETWEEN_LOOKS", 0)
    folder = ClipFolder(tmp_path / "clips")
    folder.write(clips())
    held_out = ClipFolder(tmp_path / "held-out")
    held_out.write(clips(seed=1))
    first = train_student(tmp_path, card(), folder, held_out, minutes=0.02, batch=2)
    ClipFolder(tmp_path / "clips").write(clips(2, seed=2))
    second = train_student(tmp_path, card(), ClipFolder(tmp_path / "clips"), held_out, minutes=0.04, batch=2)
    assert len(first.sampler.clips) == 4 and len(second.sampler.clips) == 6 and second.step > first.step > 0
