"""Matching a distribution: the judges see what the rollout made, the push points to the teacher, the critic follows and is saved."""

import torch

from kf_core.timeline import LatentSpan
from lab.kf_tiny.batches import with_anchor
from lab.kf_tiny.clips import ClipFolder
from lab.kf_tiny.distribution import DistributionMatching, as_whole_clip
from lab.kf_tiny.self_forcing import ClipDriving, OwnRollouts
from lab.kf_tiny.student import Networks, StudentTraining, flow_of, initialise, train_student
from lab.kf_tiny.teacher import clip_frames, load_teacher, teacher_layouts, train_teacher

from .test_student import FRAMES, card, clips

LENGTH = 12


def lively(networks: Networks, seed: int) -> Networks:
    """A fresh head predicts nothing."""
    torch.manual_seed(seed)
    torch.nn.init.normal_(networks.modules_tree.head.head.weight, std=0.05)
    return networks


def training() -> StudentTraining:
    made = StudentTraining(card(), batch=4)
    made.sampler.add([clips()])
    lively(made.networks, 0)
    return made


def teacher(seed: int = 1) -> Networks:
    torch.manual_seed(seed)
    return lively(initialise(Networks(card())), seed).requires_grad_(False)


def batch_of(made: torch.Tensor, rows, sees: bool = True):
    ones = torch.ones(len(rows))
    driving = ClipDriving(rows, torch.ones(len(rows), 5), ones, ones, ones * sees)
    return as_whole_clip(made, rows, driving.window(LatentSpan(0, made.shape[2])), 20, card().rollout)


def test_in_a_whole_clip_everybody_sees_everybody_and_the_anchor_only_itself():
    for layout in teacher_layouts(card().rollout, LENGTH):
        made = training()
        made.sampler.layouts = (layout,)
        batch = made.sampler.batch(3)
        mask = batch.segment(batch.clean, torch.ones(3), 33).mask
        assert mask.shape == (1 + LENGTH, 1 + LENGTH) and mask[1:].all() and mask[0, 0] and not mask[0, 1:].any()
    assert clip_frames(card().rollout, FRAMES) == LENGTH


def test_known_frames_are_the_first_ones_of_a_stretch():
    nothing, first, few = teacher_layouts(card().rollout, LENGTH)
    made = training()
    for layout, known in ((nothing, 0), (first, 1), (few, 3)):
        batch = made.sampler.batch(2, layout)
        unknown = batch.segment(torch.zeros_like(batch.clean), torch.ones(2), 33).latents[:, 32, 1:, 0, 0]
        assert not unknown[:, :known].any() and unknown[:, known:].all()


def test_the_judges_see_a_stream_as_the_teacher_saw_the_clip():
    """A stream that equals its clip makes the very batch that the teacher was trained on."""
    made, rows = training(), clips(1)
    mine = batch_of(rows.latents[:, :, :LENGTH].float(), rows)
    segment = mine.segment(torch.zeros_like(mine.clean), torch.ones(1), 33)
    theirs = made.sampler.batch(1, teacher_layouts(card().rollout, LENGTH)[0])
    other = theirs.segment(torch.zeros_like(theirs.clean), torch.ones(1), 33)
    assert segment.latents.shape == other.latents.shape and torch.equal(segment.mask, other.mask)
    assert torch.equal(segment.positions[0, 1:], other.positions[0, 1:]) and segment.positions[0, 0] == 20
    driving = ClipDriving.everything(rows).window(LatentSpan(0, LENGTH))
    assert torch.equal(mine.driving.audio.features, with_anchor(driving.audio).features)
    assert not mine.driving.pose.strength[:, 0].any() and mine.driving.pose.strength[:, 1:].all()


def test_a_stream_without_a_pose_is_judged_without_one():
    rows = clips(2)
    mine = batch_of(rows.latents[:, :, :LENGTH].float(), rows, sees=False)
    assert not mine.driving.pose.strength.any()


def test_the_student_is_pushed_from_the_critics_opinion_towards_the_teachers():
    made, rows = training(), clips(2)
    matching = DistributionMatching(made, teacher())
    lively(matching.critic, 5)  # so that the two disagree
    stream = torch.randn(2, 16, LENGTH, 4, 4, requires_grad=True)
    batch = batch_of(stream.detach(), rows)
    state = made.chance.get_state()
    (push,) = torch.autograd.grad(matching.loss(stream, batch), stream)

    made.chance.set_state(state)
    sigma, noise = matching._sigma(2), made.sampler.noise_like(stream)
    with torch.no_grad():
        fake, real = (flow_of(networks, batch, noise, sigma) for networks in (matching.critic, matching.teacher))
    s = sigma[:, None, None, None, None]
    towards = s * (fake - real)  # teacher's clean - critic's clean
    weighted = towards * batch.weights[:, None]
    for row in range(2):
        cosine = torch.nn.functional.cosine_similarity(-push[row].flatten(), weighted[row].flatten(), 0)
        assert cosine > 0.999


def test_nothing_pushes_when_critic_and_teacher_agree():
    made, rows = training(), clips(2)
    stream = torch.randn(2, 16, LENGTH, 4, 4, requires_grad=True)
    (push,) = torch.autograd.grad(DistributionMatching(made, teacher()).loss(stream, batch_of(stream.detach(), rows)), stream)
    assert push.abs().max() < 1e-6


def test_the_critic_learns_what_the_streams_look_like():
    made, rows = training(), clips(2)
    matching = DistributionMatching(made, teacher())
    stream = torch.zeros(2, 16, LENGTH, 4, 4)
    losses = [matching.follow(batch_of(stream, rows)) for _ in range(40)]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


def test_a_step_changes_student_and_critic_and_leaves_the_teacher():
    made = training()
    own = OwnRollouts(made, teacher())

    def head(networks):
        return networks.modules_tree.blocks[0].ffn[0].weight.clone()

    before = [head(n) for n in (made.networks, own.matching.critic, own.matching.teacher)]
    assert own.matched_step(clips(2), 1.0) >= 0
    after = [head(n) for n in (made.networks, own.matching.critic, own.matching.teacher)]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [False, False, True]


def test_with_a_teacher_every_other_stream_is_matched():
    made = training()
    own = OwnRollouts(made, teacher())
    weight = own.matching.critic.modules_tree.blocks[0].ffn[0].weight
    critic_moved = []
    for _ in range(4):
        before = weight.clone()
        own.step(1.0)
        critic_moved.append(not torch.equal(before, weight))
    assert critic_moved == [False, False, True, False]


def test_the_critic_goes_on_where_a_checkpoint_left_it(tmp_path):
    first = training()
    own = OwnRollouts(first, teacher())
    first.accompany(own.matching)
    own.matched_step(clips(2), 1.0)
    first.save(tmp_path / "rollout.pt")
    second = training()
    second.load(tmp_path / "rollout.pt")
    again = OwnRollouts(second, teacher())
    second.accompany(again.matching)
    assert all(torch.equal(a, b) for a, b in zip(own.matching.critic.parameters(), again.matching.critic.parameters(), strict=True))
    losses = [o.matched_step(clips(2), 1.0) for o in (own, again)]
    assert losses[0] == losses[1]


def test_a_teacher_begins_with_the_student_and_resumes(tmp_path):
    folder, held_out = ClipFolder(tmp_path / "clips"), ClipFolder(tmp_path / "held-out")
    folder.write(clips())
    held_out.write(clips(seed=1))
    student = train_student(tmp_path, card(), ClipFolder(folder.path), held_out, minutes=0.005, batch=2)
    begun = train_teacher(tmp_path, card(), ClipFolder(folder.path), held_out, minutes=0.0, batch=2)
    assert all(torch.equal(a, b) for a, b in zip(student.mean.parameters(), begun.networks.parameters(), strict=True))
    (tmp_path / "teacher-checkpoint.pt").unlink()
    there = dict(minutes=0.0, batch=2, grow_from=tmp_path / "finished.safetensors")  # the run's own student comes first
    begun = train_teacher(tmp_path, card(), ClipFolder(folder.path), held_out, **there)
    assert all(torch.equal(a, b) for a, b in zip(student.mean.parameters(), begun.networks.parameters(), strict=True))
    (tmp_path / "teacher-checkpoint.pt").unlink()
    taught = train_teacher(tmp_path, card(), ClipFolder(folder.path), held_out, minutes=0.005, batch=2)
    again = train_teacher(tmp_path, card(), ClipFolder(folder.path), held_out, minutes=0.005, batch=2)
    assert again.step == taught.step > 0
    frozen = load_teacher(tmp_path, card(), "cpu")
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(torch.equal(a, b) for a, b in zip(frozen.parameters(), taught.mean.parameters(), strict=True))
