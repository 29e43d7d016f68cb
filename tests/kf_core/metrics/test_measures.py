"""Each measure on videos whose answer is known."""

import math

import pytest
import torch
from torch.nn.functional import avg_pool2d

from kf_core.metrics.drift import drift
from kf_core.metrics.flicker import flicker
from kf_core.metrics.frames import blocks
from kf_core.metrics.psnr import psnr
from kf_core.metrics.seams import seams
from kf_core.metrics.sharpness import sharpness
from kf_core.timeline import PixelSpan
from kf_core.types import FrameChunk


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def moving(frames=61, side=24, speed=0.35):
    """A smooth pattern that slides across the frame."""
    x = torch.arange(side) + speed * torch.arange(frames)[:, None]
    wave = 0.5 + 0.3 * (2 * math.pi * x / side).sin()
    return wave[:, None, :, None].expand(frames, side, side, 3).clone()


def in_chunks(video):
    """The same video the way a stream yields it: 9 frames, then 12 at a time."""
    starts = [0, *range(9, len(video), 12)]
    for index, (start, stop) in enumerate(zip(starts, [*starts[1:], len(video)], strict=True)):
        yield FrameChunk(index, PixelSpan(start, stop), video[start:stop])


# ---- blocks ----


def test_blocks_hold_every_frame_once_and_in_order():
    video = noise(75, 4, 4, 3)
    for form in (video, in_chunks(video), iter(video.split(1))):
        parts = list(blocks(form, 32))
        assert [len(part) for part in parts] == [32, 32, 11]
        assert torch.equal(torch.cat(parts), video)


@pytest.mark.parametrize("measure", [flicker, seams, drift, sharpness])
def test_what_is_measured_does_not_depend_on_how_the_video_comes(measure):
    video = (moving(100) + 0.1 * noise(100, 24, 24, 3)).clamp(0, 1)
    whole, streamed = measure(video), measure(in_chunks(video))
    for name, value in vars(whole).items():
        assert getattr(streamed, name) == (None if value is None else pytest.approx(value, rel=1e-5))


# ---- flicker ----


def test_a_still_has_flicker_100_and_no_motion():
    result = flicker(noise(1, 8, 8, 3).expand(40, 8, 8, 3))
    assert (result.score, result.motion) == (100, 0)


def test_flicker_is_vbenchs_formula():
    video = torch.zeros(40, 8, 8, 3)
    video[1::2] = 51 / 255  # every neighbour differs by 51
    result = flicker(video)
    assert result.score == pytest.approx(80) and result.step == pytest.approx(51)
    assert result.motion == pytest.approx(0)  # half a second apart, eight frames, nothing has changed


def test_steady_motion_is_seen_as_motion_more_than_as_flicker():
    result = flicker(moving())
    assert result.motion > 3 * result.step > 0


# ---- seams ----


def with_jumps(video, at, by=0.1):
    """From each of these frames on, everything is a little brighter or darker."""
    video = video.clone()
    for k, frame in enumerate(at):
        video[frame:] += by * (-1) ** k
    return video


def test_a_jump_where_chunks_begin_raises_the_seam_ratio():
    video = moving() + 0.01 * noise(61, 24, 24, 3)
    chunk_starts = range(9, 61, 12)
    assert seams(video).ratio == pytest.approx(1, abs=0.15)
    assert seams(with_jumps(video, chunk_starts)).ratio > 5


def test_jumps_at_other_latent_boundaries_do_not_count_as_seams():
    other = [frame for frame in range(1, 57, 4) if (frame - 9) % 12]
    assert seams(with_jumps(moving() + 0.01 * noise(61, 24, 24, 3), other)).ratio < 0.5


def test_a_cadence_that_every_latent_boundary_has_is_no_seam():
    everywhere = with_jumps(moving(), range(1, 60, 4), by=0.05)
    assert seams(everywhere).ratio == pytest.approx(1, abs=0.1)


def test_steady_motion_jumps_nowhere():
    ramp = torch.linspace(0, 1, 61).view(-1, 1, 1, 1).expand(61, 8, 8, 3)
    result = seams(ramp)
    assert result.seam < 1e-6 and result.other < 1e-6 and result.num_seams == 5


def test_a_first_chunk_of_another_length_moves_the_seams():
    video = moving() + 0.01 * noise(61, 24, 24, 3)
    jumps = with_jumps(video, range(13, 61, 12))  # chunks begin at latent 4, 7, 10, ..
    assert seams(jumps, chunk=3, first_chunk=4).ratio > 5 > seams(jumps, chunk=3).ratio


def test_what_the_codec_does_itself_is_divided_out():
    bad = seams(with_jumps(moving() + 0.01 * noise(61, 24, 24, 3), range(9, 61, 12)))
    assert bad.relative_to(bad) == pytest.approx(1)


# ---- drift ----


def test_the_drift_of_a_ramp_is_its_slope():
    seconds = torch.arange(160) / 16
    video = torch.full((160, 4, 4, 3), 0.4)
    video[..., 1] += (0.01 * seconds)[:, None, None]  # 0.6 a minute, green only
    result = drift(video, fps=16)
    assert result.per_minute == pytest.approx(0.6, rel=1e-4)
    assert result.last_fifth == pytest.approx(0.01 * 8, rel=1e-4)  # middles of the fifths are 8 s apart
    assert result.from_truth is None


def test_a_change_that_the_truth_has_too_is_no_drift_from_it():
    video = torch.linspace(0, 1, 80).view(-1, 1, 1, 1).expand(80, 4, 4, 3)
    assert drift(video, truth=video).from_truth == 0
    assert drift(video, truth=video - 0.02).from_truth == pytest.approx(0.02, rel=1e-4)


# ---- sharpness ----


def test_blur_lowers_sharpness_and_noise_raises_it():
    truth = noise(6, 32, 32, 3)
    blurred = avg_pool2d(truth.movedim(-1, 1), 3, 1, 1).movedim(1, -1)
    same, soft, noisy = (sharpness(video, truth) for video in (truth, blurred, truth + 0.3 * noise(6, 32, 32, 3, seed=1)))
    assert same.ratio == pytest.approx(1) and same.curvature_ratio == pytest.approx(1)
    assert soft.curvature_ratio < soft.ratio < 0.8
    assert noisy.curvature_ratio > noisy.ratio > 1.01


def test_the_gradient_of_a_slope_is_the_slope():
    slope = (0.02 * torch.arange(32)).view(1, 1, 32, 1).expand(2, 16, 32, 3)
    result = sharpness(slope)
    assert result.gradient == pytest.approx(0.02, rel=1e-4) and result.curvature == pytest.approx(0, abs=1e-10)


# ---- psnr ----


def test_an_error_of_a_tenth_is_20_dB():
    truth = torch.full((21, 8, 8, 3), 0.5)
    result = psnr(truth + 0.1, truth)
    assert result.whole == pytest.approx(20, abs=1e-4) and result.mouth is None
    assert result.worst_below_median == pytest.approx(0, abs=1e-4)
    assert psnr(truth, truth).whole == math.inf


def test_the_mouth_is_measured_inside_its_boxes_only():
    truth, boxes = torch.full((10, 8, 8, 3), 0.5), torch.tensor([[2.0, 4.0, 6.0, 8.0]]).expand(10, 4)
    video = truth.clone()
    video[:, 4:8, 2:6] += 0.01
    video[:, :4] += 0.3
    assert psnr(video, truth, boxes).mouth == pytest.approx(40, abs=1e-3)


def test_one_latent_frame_gone_wrong_shows_below_the_median():
    truth = torch.full((41, 8, 8, 3), 0.5)
    video = truth + 0.01
    video[21:25] = truth[21:25] + 0.1
    assert psnr(video, truth).worst_below_median == pytest.approx(20, abs=1e-3)


def test_decay_shows_in_the_last_fifth():
    truth = torch.full((50, 8, 8, 3), 0.5)
    video = truth + 0.01
    video[40:] = truth[40:] + 0.1
    result = psnr(video, truth)
    assert result.first_fifth == pytest.approx(40, abs=1e-3) and result.last_fifth == pytest.approx(20, abs=1e-3)
