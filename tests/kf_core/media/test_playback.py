"""What a video shows, and when: by its time stamps, upright, as long as a player shows it."""

import numpy as np
import pytest
import torch

from kf_core.conditioning.control import ControlVideo
from kf_core.conditioning.pose import PoseVideo
from kf_core.media.playback import format_of, frames, probe, shown
from kf_core.timeline import PixelSpan

from ...cases import case
from .synth import Sound, VideoFile, sweep, write

CODECS = {"mp4": "libx264", "mov": "libx264", "mkv": "libx264", "nut": "ffv1"}


def changing(seconds: float, then: float, offset: float = 0.0) -> list[float]:
    """Stamps at 30 a second for so long, then at 10 a second."""
    fast, slow = round(30 * seconds), round(10 * then)
    return [offset + k / 30 for k in range(fast)] + [offset + seconds + k / 10 for k in range(slow)]


def brightness(times: list[float], offset: float = 0.0) -> list[float]:
    return [20 + 50 * (time - offset) for time in times]


def seconds_of(frame: torch.Tensor) -> float:
    return (float(frame.mean()) * 255 - 20) / 50


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("fps", [16.0, 25.0])
def test_a_changing_rate_shows_each_frame_at_its_time(tmp_path, suffix, fps):
    times = changing(1.0, 1.0)
    path = write(tmp_path / f"a.{suffix}", VideoFile(brightness(times), times, codec=CODECS[suffix]))
    seen = [seconds_of(frame) for frame in shown(path, fps)]
    assert len(seen) == round(2 * fps) and probe(path).seconds == pytest.approx(2.0, abs=0.01) and probe(path).frames == 40
    for moment, found in enumerate(seen):
        on_show = max(time for time in times if time <= moment / fps + 1e-3)
        assert found == pytest.approx(on_show, abs=0.04)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pose_and_control_follow_the_stamps_too(tmp_path, suffix):
    times = changing(1.0, 1.0)
    path = write(tmp_path / f"a.{suffix}", VideoFile(brightness(times), times))
    assert PoseVideo(path).seconds == ControlVideo(path).seconds == pytest.approx(2.0, abs=0.01)
    control = [seconds_of(frame) for frame in ControlVideo(path).shown(16.0, start=24)]
    assert len(control) == 8 and control[0] == pytest.approx(1.5, abs=0.04)
    pose = PoseVideo(path).open().between(PixelSpan(0, 40), 16.0, 6, 8)
    white = pose.flatten(1).amax(1)
    assert (white[:32] > 0).all() and not white[32:].any() and white[31] > white[16] > white[0]


def test_frames_that_begin_after_the_sound_keep_their_time_and_the_first_is_seen_before(tmp_path):
    times = changing(1.0, 0.0, offset=0.5)
    path = write(tmp_path / "a.mkv", VideoFile(brightness(times, 0.5), times), Sound(sweep(1.0), "flac"))
    seen = [seconds_of(frame) for frame in shown(path, 20.0)]
    assert len(seen) == 30 and seen[:10] == pytest.approx([0.0] * 10, abs=0.04) and seen[20] == pytest.approx(0.5, abs=0.04)


def test_a_clock_that_does_not_begin_at_0_moves_nothing(tmp_path):
    times = changing(0.5, 0.5, offset=7.0)
    path = write(tmp_path / "a.mkv", VideoFile(brightness(times, 7.0), times))
    assert seconds_of(next(shown(path, 16.0))) == pytest.approx(0, abs=0.04) and probe(path).seconds == pytest.approx(1.0, abs=0.01)


TURNS = {  # display matrix [[a, b], [c, d]] -> what a player shows of [h, w]
    "as it is": ((1, 0, 0, 1), lambda x: x),
    "a quarter clockwise": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "half": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    "a quarter counter-clockwise": ((0, -1, 1, 0), np.rot90),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "upside down": ((1, 0, 0, -1), np.flipud),
    "along one diagonal": ((0, 1, 1, 0), np.transpose),
    "along the other": ((0, -1, -1, 0), lambda x: np.rot90(x, 2).T),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_frames_are_turned_as_their_display_matrix_says(tmp_path, turn, suffix):
    matrix, expected = TURNS[turn]
    quarters = np.kron(np.array([[40, 90], [140, 200]]), np.ones((24, 32)))
    path = write(tmp_path / f"a.{suffix}", VideoFile([0] * 3, [0.0, 0.1, 0.2]))
    path = with_image_channels(path, quarters, matrix)
    frame = next(frames(path)).numpy().mean(-1) * 255
    assert frame.shape == expected(quarters).shape and np.abs(frame - expected(quarters)).mean() < 4
    assert (format_of(path).height, format_of(path).width) == frame.shape == (probe(path).height, probe(path).width)
    assert np.array_equal(next(shown(path, 16.0)).numpy(), next(frames(path)).numpy())


def with_image_channels(path, grey: np.ndarray, matrix: tuple[int, ...]):
    """The file again with this frame in it, and this matrix in its track's header, as telephones write it."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = grey.shape[1], grey.shape[0], "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.repeat(grey[..., None], 3, -1).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40

    def number(value):
        return (value << 16).to_bytes(4, "big", signed=True)

    a, b, c, d = matrix
    shift_x, shift_y = (
        (grey.shape[1] if a < 0 else grey.shape[0] if c < 0 else 0),
        (grey.shape[0] if d < 0 else grey.shape[1] if b < 0 else 0),
    )
    rows = ((a, b, None), (c, d, None), (shift_x, shift_y, 1))
    data[at : at + 36] = b"".join(bytes(4) if value is None else number(value) for row in rows[:2] for value in row) + (
        number(shift_x) + number(shift_y) + (1 << 30).to_bytes(4, "big")
    )
    path.write_bytes(data)
    return path


def test_the_case_of_a_changing_rate_shows_the_frame_of_2_s_at_2_s_and_lasts_4():
    path = case("vfr.mp4")
    seen = list(shown(path, 16.0))
    assert seconds_of(seen[32]) == pytest.approx(2.0, abs=0.06) and probe(path).seconds == pytest.approx(4.0, abs=0.01) and len(seen) == 64


def test_the_case_of_a_turned_video_is_240_wide_and_320_high():
    facts = probe(case("rot.mp4"))
    assert (facts.width, facts.height) == (240, 320) and next(frames(case("rot.mp4"))).shape == (320, 240, 3)
