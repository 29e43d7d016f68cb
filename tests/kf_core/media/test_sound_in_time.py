"""Sound is where its time stamps put it: pauses, late starts, shaking stamps, joined files, and the track that a player plays."""

import numpy as np
import pytest
import soxr

from kf_core.conditioning.audio import AudioArray, AudioFile
from kf_core.media.sound import SoundFile
from kf_core.media.stamps import Stamped, placed
from kf_core.session.sinks.segments import sound_between

from ...cases import case
from .synth import RATE, Sound, VideoFile, joined, sweep, write

CODECS = {"webm": "libopus", "mkv": "flac", "mp4": "aac", "mov": "pcm_s16le", "nut": "pcm_s16le"}
BLACK = VideoFile([16] * 30, [k / 15 for k in range(30)])


def heard(source, channels: int = 1, rate: int = 16_000, **options) -> np.ndarray:
    return np.concatenate(list(source.blocks(rate, channels, **options)))[:, 0]


def onset(samples: np.ndarray, rate: int = 16_000) -> float:
    """When the first sound above silence comes, in seconds."""
    return float(np.argmax(np.abs(samples) > 0.05)) / rate


def pause(after: float, seconds: float):
    return lambda time: time if time < after - 1e-3 else time + seconds


@pytest.mark.parametrize("suffix", ["webm", "mkv", "mp4", "nut"])
def test_what_comes_after_a_pause_in_the_stamps_stays_at_its_time(tmp_path, suffix):
    voice = np.concatenate((sweep(0.9), np.zeros(round(0.06 * RATE), np.float32), sweep(1.0)))  # packets of 96, 20 and 21 1/3 ms
    path = write(tmp_path / f"a.{suffix}", Sound(voice, CODECS[suffix], moved=pause(0.96, 1.5)))
    sound = SoundFile(path)
    samples = heard(sound)
    assert onset(samples[16_000 * 3 // 2 :]) + 1.5 == pytest.approx(2.46, abs=0.03)
    assert np.abs(samples[16_000:38_000]).max() < 0.01
    assert sound.seconds == pytest.approx(3.46, abs=0.05) == pytest.approx(len(samples) / 16_000, abs=0.05) and sound.note == ""


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "nut"])
def test_sound_that_begins_after_the_frame_comes_after_silence(tmp_path, suffix):
    late = Sound(sweep(1.0), CODECS[suffix], moved=lambda time: time + 0.7)
    sound = SoundFile(write(tmp_path / f"a.{suffix}", BLACK, late))
    samples = heard(sound)
    assert onset(samples) == pytest.approx(0.7, abs=0.03) and sound.note == ""
    assert sound.seconds == pytest.approx(1.7, abs=0.05) == pytest.approx(len(samples) / 16_000, abs=0.05)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_sound_that_is_shorter_than_the_frame_is_not_cut_off(tmp_path, suffix):
    film = VideoFile([16] * 90, [k / 15 for k in range(90)])
    sound = SoundFile(write(tmp_path / f"a.{suffix}", film, Sound(sweep(1.0), CODECS[suffix])))
    assert sound.note == "" and sound.seconds == pytest.approx(1.0, abs=0.05)


def test_a_file_of_sound_alone_begins_with_its_sound_wherever_its_clock_stands(tmp_path):
    sound = SoundFile(write(tmp_path / "a.ts", Sound(sweep(1.0), "aac", moved=lambda time: time + 1000)))
    assert onset(heard(sound)) < 0.05 and sound.seconds == pytest.approx(1.0, abs=0.06) and sound.note == ""


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_stamps_that_shake_move_nothing(tmp_path, suffix):
    generator = np.random.default_rng(4)
    codec = "flac" if suffix == "mkv" else "libopus"
    steady = heard(SoundFile(write(tmp_path / f"steady.{suffix}", Sound(sweep(2.0), codec))))
    shaking = Sound(sweep(2.0), codec, moved=lambda time: max(0.0, time + generator.uniform(-0.009, 0.009)) if time > 0 else time)
    assert np.array_equal(heard(SoundFile(write(tmp_path / f"shaking.{suffix}", shaking))), steady)


def moved(times: list[float | None], seconds: float = 0.1, **options) -> list[float]:
    """How much silence comes before each of some pieces with these stamps."""
    pieces = (Stamped(time, seconds) for time in times)
    return [round(silence, 6) for silence, _ in placed(pieces, 0.0, **options)]


def test_one_wrong_stamp_moves_nothing_and_neither_do_missing_ones():
    steady = [k / 10 for k in range(30)]
    assert not any(moved(steady)) and not any(moved([None] * 30))
    assert not any(moved([*steady[:9], 7.7, *steady[10:]])) and not any(moved([*steady[:9], 0.0, *steady[10:]]))
    assert not any(moved([*steady[:9], None, *steady[10:]]))


def test_pauses_that_follow_each_other_are_each_as_long_as_they_are():
    assert moved([0.0, 0.5, 1.0, 1.5, 2.0]) == [0, 0.4, 0.4, 0.4, 0.4]


def test_what_overlaps_is_played_once_and_a_clock_that_begins_anew_is_another_recording():
    first, later = [k / 10 for k in range(20)], [1.75 + k / 10 for k in range(20)]
    assert sum(moved([*first, *later])) == pytest.approx(-0.25)
    assert not any(moved([*first, *first]))


def test_a_jump_ahead_is_a_pause_but_in_a_broadcast_it_is_a_new_clock():
    times = [k / 10 for k in range(20)] + [30 + k / 10 for k in range(20)]
    assert sum(moved(times)) == pytest.approx(28) and not any(moved(times, may_jump=True))


JOINABLE = {"mp3": "libmp3lame", "flac": "flac", "ogg": "flac", "opus": "libopus", "ts": "aac", "aac": "aac", "ac3": "ac3"}


@pytest.mark.parametrize("suffix", JOINABLE)
def test_joined_files_last_as_long_as_what_is_in_them(tmp_path, suffix):
    name, rate = f"a.{suffix}", 48_000
    one, other = (
        write(tmp_path / (part + name), Sound(sweep(seconds, rate), JOINABLE[suffix])) for part, seconds in (("1", 1.2), ("2", 0.8))
    )
    sound = SoundFile(joined(tmp_path / name, one, other))
    length = len(heard(sound)) / 16_000
    assert length == pytest.approx(2.0, abs=0.12) and sound.seconds == pytest.approx(length, abs=0.05) and sound.note == ""


def test_an_mp3_without_a_count_of_its_frames_is_not_called_cut_off(tmp_path):
    path = write(tmp_path / "a.mp3", Sound(sweep(1.0), "libmp3lame"), options={"write_xing": "0"})
    assert SoundFile(path).note == "" and SoundFile(path).seconds == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100])
def test_what_an_mp3s_encoder_adds_at_its_ends_is_not_called_cut_off(tmp_path, rate):
    whole = write(tmp_path / "a.mp3", Sound(sweep(3.0, rate), "libmp3lame", rate=rate))
    assert SoundFile(whole).note == "" and SoundFile(whole).seconds == pytest.approx(3.0, abs=0.06)
    (half := tmp_path / "half.mp3").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert "cut off: it should last 3.0 s" in SoundFile(half).note


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_the_default_track_is_played(tmp_path, suffix):
    silent, voice = np.zeros(RATE, np.float32), sweep(1.0)
    tracks = Sound(silent, CODECS[suffix], is_default=False), Sound(voice, CODECS[suffix], is_default=True)
    assert np.abs(heard(SoundFile(write(tmp_path / f"a.{suffix}", *tracks)))).max() > 0.3


@pytest.mark.parametrize("defaults", [False, True])
def test_of_tracks_that_are_equal_the_first_with_sound_is_played(tmp_path, defaults):
    silent, low, loud = (Sound(sweep(0.5, level=level), "flac", is_default=defaults) for level in (0.0, 0.1, 0.4))
    assert 0.09 < np.abs(heard(SoundFile(write(tmp_path / "a.mkv", silent, low, loud)))).max() < 0.12


# ---- what is wrong with it ----


def test_samples_that_are_no_numbers_count_as_none_and_are_said(tmp_path):
    voice = sweep(0.5)
    voice[[100, 2000]], voice[3000] = np.inf, np.nan
    for source in (AudioFile(write(tmp_path / "a.wav", Sound(voice, "pcm_f32le"))), AudioArray(voice, RATE)):
        expected = np.where(np.isfinite(voice), voice, 0)
        assert np.array_equal(heard(source, rate=RATE), expected)
        assert np.isfinite(source.open().samples(0, 8_000)).all() and "3 samples" in source.note


def with_pauses(level: float, speaks: float, pauses: float) -> np.ndarray:
    noise = np.random.default_rng(5).standard_normal(round(speaks * RATE)).astype(np.float32) * np.float32(10 ** (level / 20))
    return np.concatenate((noise, np.zeros(round(pauses * RATE), np.float32)))


@pytest.mark.parametrize(("level", "is_said"), [(-62, True), (-57, True), (-53, False), (-25, False)])
def test_a_voice_that_is_too_quiet_is_said_however_long_its_pauses_are(tmp_path, level, is_said):
    voice = with_pauses(level, speaks=2, pauses=18)
    for source in (AudioFile(write(tmp_path / "a.wav", Sound(voice, "pcm_s24le"))), AudioArray(voice, RATE)):
        assert ("very quiet" in source.note) == is_said
        assert not is_said or f"{level} dBFS" in source.note and f"{-23 - level} dB louder" in source.note


def test_clicks_do_not_make_a_quiet_voice_loud():
    voice = with_pauses(-62, speaks=60, pauses=0)
    voice[:: 2 * RATE] = 0.9
    assert "very quiet" in AudioArray(voice, RATE).note


def test_silence_is_said():
    assert "silent" in AudioArray(np.zeros(RATE), RATE).note


# ---- from the middle ----

SECONDS = 30


@pytest.fixture(scope="module")
def long_sounds(tmp_path_factory):
    """The same half minute at 11,025 Hz as a file of each kind, and in memory."""
    rate, folder = 11_025, tmp_path_factory.mktemp("long")
    voice = 0.3 * np.random.default_rng(6).standard_normal((SECONDS * rate, 2)).astype(np.float32)
    made = {suffix: AudioFile(write(folder / f"a.{suffix}", Sound(voice, codec, "stereo", rate))) for suffix, codec in
            (("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"))}  # fmt: skip
    return {**made, "array": AudioArray(voice.T, rate)}


@pytest.mark.parametrize("form", ["array", "wav", "flac", "mp3"])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 2), (11_025, 2), (16_000, 1)])
def test_a_stretch_from_the_middle_is_that_of_the_whole(long_sounds, form, rate, channels):
    source = long_sounds[form]
    whole = np.concatenate(list(source.blocks(rate, channels)))
    for start in (1, 3 * rate, 20 * rate + 17, len(whole) - 5):
        late = np.concatenate(list(source.blocks(rate, channels, start=start)))
        assert late.shape == whole[start:].shape and np.abs(late - whole[start:]).max() < 1e-6
    assert not len(np.concatenate([np.zeros((0, channels)), *source.blocks(rate, channels, start=len(whole) + 5)]))


@pytest.mark.parametrize("form", ["array", "wav", "flac", "mp3"])
def test_a_segment_resamples_as_much_late_as_early(long_sounds, form, monkeypatch):
    fed, stream = [], soxr.ResampleStream

    class Counting(stream):
        def resample_chunk(self, piece, *words, **options):
            fed.append(len(piece))
            return super().resample_chunk(piece, *words, **options)

    monkeypatch.setattr(soxr, "ResampleStream", Counting)
    for start in (0, 25 * 48_000):
        fed.clear()
        assert sound_between(long_sounds[form], start, start + 48_000, 48_000, 2).any()
        assert sum(fed) <= 4 * 11_025


# ---- the cases ----


def test_the_case_of_a_pause_keeps_its_second_part_at_3_5_seconds():
    samples = heard(SoundFile(case("gap.webm")))
    assert np.abs(samples[16_000 * 21 // 10 : 16_000 * 34 // 10]).max() < 0.01
    assert 3.45 < onset(samples[32_000 + 1600 :]) + 2.1 < 3.8 and len(samples) / 16_000 == pytest.approx(6.5, abs=0.05)


def test_the_case_of_late_sound_begins_with_a_second_of_silence():
    sound = SoundFile(case("late_audio.mkv"))
    samples = heard(sound)
    assert np.abs(samples[:15_600]).max() < 0.01 and np.abs(samples[16_000:24_000]).max() > 0.05
    assert sound.note == "" and sound.seconds == pytest.approx(6.0, abs=0.05)


def test_the_case_of_joined_files_lasts_as_long_as_it_decodes():
    sound = SoundFile(case("joined.mp3"))
    assert sound.note == "" and sound.seconds == pytest.approx(5.04, abs=0.05)


def test_the_case_of_two_tracks_plays_the_default_one():
    assert np.abs(heard(SoundFile(case("obs2track.mkv")))).max() > 0.3


def test_the_case_of_a_quiet_voice_is_said():
    assert "very quiet" in SoundFile(case("quiet.flac")).note
