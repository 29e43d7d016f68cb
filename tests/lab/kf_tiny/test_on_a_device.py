"""What training draws and computes on a device stays there, and drawing never waits for it.

Held without a card: PyTorch's meta device has no numbers, so asking it for one is an error, and so is a product with a tensor elsewhere.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kf_core.sampling.noise import SeededNoise
from kf_core.timeline import LatentSpan
from kf_core.training.rng import noise_of_rollouts, normal
from lab.kf_tiny.clips import sample_clip
from lab.kf_tiny.drawing import render
from lab.kf_tiny.portraits import sample_identities, sample_motion
from lab.kf_tiny.self_forcing import OwnRollouts, output_loss
from lab.kf_tiny.student import StudentTraining
from lab.kf_tiny.vae import VAETraining
from lab.kf_tiny.vae_clips import cut, draw
from lab.kf_tiny.vae_losses import reconstruction_loss

from .test_audio_pretrain import library
from .test_student import card, clips

META = torch.device("meta")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_tensor_elsewhere_is_noticed():
    with pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device=META) + torch.zeros(3)


def test_portraits_are_drawn_where_they_are_needed():
    many = render(sample_identities(16, seeded()), sample_motion(16, 2, seeded(), strength=1.0), 32, META)
    assert {many.frames.device, many.mouth_box.device, many.keypoints.face.device, many.weights().device} == {META}
    batch = cut(draw(2, 5, 32, seeded(), device=META), 0.5, seeded())
    assert {batch.frames.device, batch.mouth.device, batch.eyes.device} == {META} and batch.frames.shape[-1] == 16


class Copies(TorchDispatchMode):
    """Counts tensors that come from the processor to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [t for t in args if isinstance(t, torch.Tensor)]
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.device == META and any(t.device.type == "cpu" and t.dim() for t in given):
            self.count += 1
        return out


def copies(frames: int) -> int:
    who, motion = sample_identities(frames, seeded()), sample_motion(frames, 1, seeded(), strength=1.0)
    with Copies() as counted:
        render(who, motion, 32, META)
    return counted.count


def test_many_portraits_are_sent_in_as_few_copies_as_few_are():
    copies(16)  # constants are sent once
    assert copies(128) == copies(16) < 20


def test_who_wears_nothing_rare_is_drawn_the_same_beside_those_who_do():
    who, motion = sample_identities(32, seeded()), sample_motion(32, 1, seeded(), strength=1.0)
    together = render(who, motion, 32).frames
    alone = torch.cat([render(who[row : row + 1], motion[row : row + 1], 32).frames for row in range(32)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_a_clip_is_drawn_there_too():
    clip = sample_clip(3, library(), frames=9, size=32, device=META)
    assert {clip.frames.device, clip.drivers.pose.device, clip.weights.device, clip.mouth.device} == {META}
    assert clip.drivers.audio.device.type == "cpu"  # heard by the processor


def test_the_autoencoder_learns_there():
    training = VAETraining(size=32, device="meta", dim=8)
    batch = draw(2, 5, 32, training.generator, device=META)
    mean, log_variance = training.encode(batch.frames * 2 - 1)
    loss = reconstruction_loss(training.decode(mean) / 2 + 0.5, batch)
    for further in training.further_losses(mean, log_variance, batch):
        loss = loss + further
    loss.backward()
    for optimiser in training.optimisers:
        optimiser.step()
    assert loss.device == META and all(p.grad is not None for p in training.vae.encoder.parameters())


def test_own_rollouts_learn_there():
    training = StudentTraining(card(), batch=4, device="meta")
    training.sampler.add([clips()])
    own = OwnRollouts(training)
    rows = own.draw_clips()
    for made in own._stream(rows, own._driving(rows, sees=1.0, knows=0.7), card().rollout):
        loss = output_loss(made, rows)
        loss.backward()
    training.descend(1.0)
    assert loss.device == META and training.step == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_noise_is_drawn_there_and_follows_the_generator_of_the_processor():
    drawn = [normal((4, 1000), seeded(), "cuda") for _ in range(2)]
    assert torch.equal(*drawn) and drawn[0].is_cuda and drawn[0].mean().abs() < 0.1 and 0.9 < drawn[0].std() < 1.1
    generator = seeded()
    first, second = (normal((100,), generator, "cuda") for _ in range(2))
    assert not torch.equal(first, second)
    noise = noise_of_rollouts(5, (2, 16, 4, 4), "cuda")
    assert torch.equal(noise(LatentSpan(0, 4), 1)[:, :, 3], noise(LatentSpan(3, 5), 1)[:, :, 0])
    assert not torch.equal(noise(LatentSpan(0, 1), 1), noise(LatentSpan(0, 1), 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_what_a_processor_draws():
    who, motion = sample_identities(20, seeded()), sample_motion(20, 2, seeded(), strength=1.0)
    there, here = render(who, motion, 64, "cuda").frames.cpu(), render(who, motion, 64).frames
    assert ((there - here).abs() > 1e-2).float().mean() < 1e-3  # an edge may fall on the other side of a rounding


def test_on_a_processor_noise_comes_from_the_generator_itself():
    assert torch.equal(normal((3, 4), seeded(), "cpu"), torch.randn(3, 4, generator=seeded()))
    assert normal((3, 4), seeded(), META).device == META
    spans = LatentSpan(2, 5), 1
    assert torch.equal(noise_of_rollouts(5, (2, 16, 4, 4), "cpu")(*spans), SeededNoise(5, (2, 16, 4, 4))(*spans))
