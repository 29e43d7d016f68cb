import torch

from kf_core.sampling.noise import NoiseTape, SeededNoise
from kf_core.timeline import LatentSpan


def test_noise_depends_on_seed_frame_and_step_alone():
    noise = SeededNoise(3, (1, 16, 4, 6))
    whole = noise(LatentSpan(0, 9), 1)
    assert torch.equal(whole[:, :, 4:7], noise(LatentSpan(4, 7), 1))
    assert torch.equal(whole, SeededNoise(3, (1, 16, 4, 6))(LatentSpan(0, 9), 1))
    for other in (noise(LatentSpan(0, 9), 2), noise(LatentSpan(1, 10), 1), SeededNoise(4, (1, 16, 4, 6))(LatentSpan(0, 9), 1)):
        assert (whole - other).abs().mean() > 0.5


def test_noise_is_standard_normal_and_frames_are_independent():
    draw = SeededNoise(0, (1, 16, 32, 32))(LatentSpan(1000, 1010), 0)
    assert abs(draw.mean()) < 0.01 and abs(draw.std() - 1) < 0.01
    frames = draw[0].transpose(0, 1).flatten(1)
    correlation = torch.corrcoef(frames) - torch.eye(10)
    assert correlation.abs().max() < 0.05


def test_any_seed_will_do():
    for seed in (-1, 0, 2**63, 2**64 - 1):
        assert torch.isfinite(SeededNoise(seed, (1, 1, 2, 2))(LatentSpan(0, 1), 0)).all()


def test_a_tape_gives_what_was_recorded_in_order_of_use():
    initial = torch.arange(6.0).reshape(1, 1, 6, 1, 1)
    renoise = [torch.full((1, 1, 3, 1, 1), float(i)) for i in range(4)]
    tape = NoiseTape(initial, renoise, steps=3, chunk=3)
    assert tape(LatentSpan(3, 6), 0).flatten().tolist() == [3, 4, 5]
    assert [tape(LatentSpan(start, start + 3), step)[0, 0, 0].item() for start in (0, 3) for step in (1, 2)] == [0, 1, 2, 3]
