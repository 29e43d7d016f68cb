"""Control frames become latents while the stream goes: any cut equals the whole, and memory stays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kf_core.conditioning.control import ControlFrames, ControlLatents, ControlVideo
from kf_core.conditioning.driving import Driving
from kf_core.errors import KnotForcingError
from kf_core.timeline import LatentSpan
from kf_core.vae.streaming import encode_clip, prepare
from kf_core.vae.wan import ENCODER_REMEMBERS, WanVAE

from ..tiny import CARD

FPS = 16.0


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    torch.manual_seed(0)
    return prepare(WanVAE(4), torch.float32).requires_grad_(False)


def clip(count: int = 17, size: tuple[int, int] = (32, 48)) -> torch.Tensor:
    return torch.rand(count, *size, 3, generator=torch.Generator().manual_seed(1))


def latents(vae, frames: torch.Tensor, fps: float = FPS) -> ControlLatents:
    return ControlLatents(ControlFrames(frames, fps), vae, FPS, 4, 6)


def written(path: Path, frames: torch.Tensor, fps: int) -> Path:
    """A video file that keeps frames [f, h, w, 3] as they are."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
        for frame in (frames.numpy() * 255).astype(np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_the_windows_of_a_rollout_equal_the_whole_clip_encoded_at_once(vae):
    control = latents(vae, clip())
    whole = encode_clip(vae, clip().permute(3, 0, 1, 2)[None]).transpose(1, 2)  # [1, f, 16, h, w]
    for span in (LatentSpan(0, 3), LatentSpan(0, 2), LatentSpan(2, 5), LatentSpan(2, 4), LatentSpan(0, 1), LatentSpan(1, 5)):
        found = control.frames(span)
        assert found.shape == (1, span.length, 32, 4, 6)
        torch.testing.assert_close(found[:, :, 16:], whole[:, span.start : span.stop], rtol=0, atol=1e-5)


def test_grey_stands_beside_and_follows_when_the_control_ends(vae):
    grey = encode_clip(vae, torch.full((1, 3, 61, 32, 48), 0.5)).transpose(1, 2)
    found = latents(vae, clip(5)).frames(LatentSpan(0, 16))
    torch.testing.assert_close(found[:, :, :16], grey, rtol=0, atol=1e-5)
    after = torch.cat((clip(5), torch.full((56, 32, 48, 3), 0.5)))
    torch.testing.assert_close(found, latents(vae, after).frames(LatentSpan(0, 16)), rtol=0, atol=0)


def test_memory_does_not_grow_and_grey_is_soon_known_by_heart(vae):
    control = latents(vae, clip(2))
    for start in range(0, 60, 3):
        control.frames(LatentSpan(start, start + 4))
    assert len(control._kept) <= 8 and control._grey._repeats and not control._grey._state.past


def test_a_stream_that_is_taken_up_late_holds_no_more_and_gets_the_same(vae):
    control, late = latents(vae, clip(60)), latents(vae, clip(60))
    for start in range(0, 12, 3):
        whole = control.frames(LatentSpan(start, start + 4))
    encoded, most = late._encoded, 0

    def watched() -> torch.Tensor:
        nonlocal most
        most = max(most, len(late._kept))
        return encoded()

    late._encoded = watched
    assert torch.equal(late.frames(LatentSpan(9, 13)), whole)
    assert most <= 8 and late._kept.keys() == control._kept.keys()


def test_an_encoder_remembers_just_so_much():
    torch.manual_seed(0)
    vae = prepare(WanVAE(4), torch.float64)
    frames = torch.rand(1, 3, 4 * ENCODER_REMEMBERS + 1, 16, 16, dtype=torch.float64)
    before = encode_clip(vae, torch.cat((torch.rand(1, 3, 4, 16, 16, dtype=torch.float64), frames), dim=2))[:, :, -1]
    torch.testing.assert_close(encode_clip(vae, frames)[:, :, -1], before, rtol=0, atol=1e-12)
    shorter = encode_clip(vae, frames[:, :, 4:])[:, :, -1]
    assert (shorter - before).abs().max() > 1e-9


@pytest.mark.parametrize("own_fps", [FPS, 8.0, 25.0])
@pytest.mark.parametrize("of_file", [False, True])
def test_a_window_far_from_the_start_costs_what_the_encoder_remembers(vae, tmp_path, own_fps, of_file):
    frames = clip(340, (16, 24))
    if of_file:
        source = ControlVideo(written(tmp_path / "control.mkv", frames, round(own_fps)))
    else:
        source = ControlFrames(frames, own_fps)
    through, late = (ControlLatents(source, vae, FPS, 2, 3) for _ in range(2))
    for start in range(0, 45, 3):
        whole = through.frames(LatentSpan(start, start + 4))
    encoded, pushes = late._encoded, 0

    def counted() -> torch.Tensor:
        nonlocal pushes
        pushes += 1
        return encoded()

    late._encoded = counted
    assert torch.equal(late.frames(LatentSpan(42, 46)), whole)
    assert pushes == ENCODER_REMEMBERS + 4
    assert torch.equal(late.frames(LatentSpan(45, 49)), through.frames(LatentSpan(45, 49)))  # and it goes on from there
    assert torch.equal(late.frames(LatentSpan(0, 4)), ControlLatents(source, vae, FPS, 2, 3).frames(LatentSpan(0, 4)))
    pushes = 0
    assert torch.equal(late.frames(LatentSpan(42, 46)), whole) and pushes == ENCODER_REMEMBERS + 4  # after a leap, too


def test_a_control_of_another_rate_and_shape_is_fitted_in(vae):
    slow = latents(vae, clip(9, (64, 64)), fps=8.0)  # a square at half the rate: covers the frame, each frame twice
    middle = clip(9, (64, 64)).permute(0, 3, 1, 2)
    middle = torch.nn.functional.interpolate(middle, size=(48, 48), mode="bilinear", antialias=True)[:, :, 8:40]
    fitted = middle.permute(0, 2, 3, 1).clamp(0, 1)
    twice = latents(vae, fitted.repeat_interleave(2, dim=0)[:17])
    torch.testing.assert_close(slow.frames(LatentSpan(0, 5)), twice.frames(LatentSpan(0, 5)), rtol=0, atol=1e-5)


def test_a_video_file_drives_as_its_frames_would(vae, tmp_path):
    video = ControlVideo(written(tmp_path / "control.mkv", clip(9), 16))
    frames = (clip(9).numpy() * 255).astype(np.uint8)
    assert video.seconds == pytest.approx(9 / 16)
    found = ControlLatents(video, vae, FPS, 4, 6).frames(LatentSpan(0, 3))
    torch.testing.assert_close(found, latents(vae, torch.from_numpy(frames).float() / 255).frames(LatentSpan(0, 3)), rtol=0, atol=1e-5)


def test_driving_hands_it_to_the_model_or_says_why_not(vae):
    driving = Driving(control=ControlFrames(clip()), control_strength=0.7, control_in_clean_pass=True)
    card = replace(CARD, in_channels=16, audio=None, rollout=replace(CARD.rollout, knot="blend"))
    bound = driving.bind(card, latent_height=4, latent_width=6, control_encoder=vae)
    control = bound.window(LatentSpan(0, 3)).control
    assert control.features.shape == (1, 3, 32, 4, 6) and (control.strength, control.in_clean_pass) == (0.7, True)
    assert driving.seconds == pytest.approx(17 / 16) and not bound.unused
    without = driving.bind(card, latent_height=4, latent_width=6)
    assert without.window(LatentSpan(0, 3)).control is None and "no VACE module loaded" in without.unused[0]
    with pytest.raises(KnotForcingError, match="control_strength is 3"):
        Driving(control=ControlFrames(clip()), control_strength=3)


def test_what_cannot_serve_is_said_in_words(tmp_path):
    with pytest.raises(KnotForcingError, match="at least one frame"):
        ControlFrames(torch.zeros(0, 4, 4, 3))
    with pytest.raises(KnotForcingError, match="rate must be above 0"):
        ControlFrames(clip(1), 0.0)
    with pytest.raises(KnotForcingError, match="does not exist"):
        ControlVideo(Path(tmp_path / "nowhere.mp4"))
