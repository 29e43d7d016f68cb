"""Sound out of files: what is promised about length, blocks, damage and memory."""

import wave
from itertools import islice

import av
import numpy as np
import pytest

from kf_core.errors import KnotForcingError
from kf_core.media.sound import SoundFile

from ...held import counted

SECONDS = 3.3


def tone(seconds: float = SECONDS, rate: int = 44_100) -> np.ndarray:
    """A sweep, so that a shift in time shows."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (200 * t + 60 * t**2))).astype(np.float32)


def write(path, samples: np.ndarray, codec: str, rate: int = 44_100, layout: str = "stereo") -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate)
        both = np.ascontiguousarray(np.stack([samples] * (2 if layout == "stereo" else 1)))
        for start in range(0, both.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(both[:, start : start + 1024]), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            for converted in resampler.resample(frame):
                container.mux(stream.encode(converted))
        for last in resampler.resample(None):
            container.mux(stream.encode(last))
        container.mux(stream.encode(None))


def whole(sound: SoundFile, rate: int = 16_000, **options) -> np.ndarray:
    return np.concatenate(list(sound.blocks(rate, **options)))


FORMATS = {"a.wav": "pcm_s16le", "a.mp3": "libmp3lame", "a.m4a": "aac", "a.flac": "flac", "a.opus": "libopus", "a.mka": "pcm_f32le"}


@pytest.mark.parametrize("name", FORMATS)
def test_the_length_is_right_to_a_fraction_of_a_frame_in_every_format(tmp_path, name):
    rate = 48_000 if name == "a.opus" else 44_100
    write(tmp_path / name, tone(rate=rate), FORMATS[name], rate)
    sound = SoundFile(tmp_path / name)
    assert sound.seconds == pytest.approx(SECONDS, abs=0.03) and sound.note == ""
    assert len(whole(sound)) / 16_000 == pytest.approx(SECONDS, abs=0.05)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac"])
def test_what_is_heard_is_what_was_written_at_its_time(tmp_path, name):
    write(tmp_path / name, tone(), FORMATS[name])
    heard, expected = whole(SoundFile(tmp_path / name))[:, 0], tone(rate=16_000)
    middle = slice(8_000, 40_000)
    assert np.corrcoef(heard[middle], expected[middle])[0, 1] > 0.99


def test_two_readings_are_equal_to_the_bit_and_so_are_blocks_of_another_length(tmp_path):
    write(tmp_path / "a.mp3", tone(), "libmp3lame")
    sound = SoundFile(tmp_path / "a.mp3")
    assert np.array_equal(whole(sound), whole(sound))
    assert np.array_equal(whole(sound), whole(sound, block_seconds=0.037))


def test_channels_are_kept_for_the_video_and_mixed_for_the_model(tmp_path):
    with wave.open(str(tmp_path / "two.wav"), "wb") as file:
        file.setparams((2, 2, 48_000, 0, "NONE", ""))
        file.writeframes(np.tile(np.array([8192, 0], "<i2"), 48_000).tobytes())
    sound = SoundFile(tmp_path / "two.wav")
    both = whole(sound, 48_000, channels=2)
    assert both.shape == (48_000, 2) and np.all(both[:, 0] == 0.25) and np.all(both[:, 1] == 0)
    assert np.all(whole(sound, 48_000, channels=1) == 0.125)


def test_a_cut_off_file_is_used_as_far_as_it_goes_and_says_so(tmp_path):
    write(tmp_path / "a.mp3", tone(), "libmp3lame")
    data = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(data[: len(data) // 2])
    sound = SoundFile(tmp_path / "cut.mp3")
    assert 1.2 < sound.seconds < 2.0
    assert len(whole(sound)) / 16_000 == pytest.approx(sound.seconds, abs=0.05)
    assert "cut off" in sound.note


def test_damage_in_the_middle_does_not_move_what_comes_after_by_half_a_frame(tmp_path):
    write(tmp_path / "a.mp3", tone(), "libmp3lame")
    data = bytearray((tmp_path / "a.mp3").read_bytes())
    third = len(data) // 3
    data[third : third + 600] = bytes(600)
    (tmp_path / "damaged.mp3").write_bytes(data)
    heard, expected = whole(SoundFile(tmp_path / "damaged.mp3"))[:, 0], tone(rate=16_000)
    late = slice(32_000, 48_000)
    half_a_frame = 500
    match = {shift: np.corrcoef(heard[late], np.roll(expected, shift)[late])[0, 1] for shift in range(-2000, 2001, 2)}
    assert abs(max(match, key=match.get)) < half_a_frame and max(match.values()) > 0.99


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b""), "0 bytes"),
        (lambda path: path.write_text("this is not music"), "not audio that can be read"),
        (lambda path: path.mkdir(), "folder"),
    ],
)
def test_what_cannot_be_heard_is_refused_in_a_sentence(tmp_path, make, words):
    path = tmp_path / "speech.mp3"
    make(path)
    with pytest.raises(KnotForcingError, match=words) as refusal:
        SoundFile(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_video_without_sound_is_refused_in_a_sentence(tmp_path):
    with av.open(str(tmp_path / "silent.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=16)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(KnotForcingError, match="no sound track"):
        SoundFile(tmp_path / "silent.mp4")


def test_a_long_file_is_measured_at_once_and_read_in_flat_memory(tmp_path):
    minutes = 6
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setparams((1, 1, 8_000, 0, "NONE", ""))
        for _ in range(60 * minutes):
            file.writeframes(bytes([128]) * 8_000)
    sound = SoundFile(tmp_path / "long.wav")
    assert sound.seconds == 60 * minutes
    blocks = sound.blocks(16_000)
    count = sum(len(block) for block in islice(blocks, 200))
    with counted() as held:
        count += sum(len(block) for block in islice(blocks, 20))
        before = held()
        count += sum(len(block) for block in islice(blocks, 60))
        assert held() - before < 5e5, "the samples of a minute are 3.8 MB"
    assert count + sum(len(block) for block in blocks) == 60 * minutes * 16_000
