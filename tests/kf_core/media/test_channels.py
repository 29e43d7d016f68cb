"""Many channels become two or one by where they stand, and none is lost because another says the opposite."""

import av
import numpy as np
import pytest

from kf_core.conditioning.audio import AudioArray, LiveAudio
from kf_core.media.channels import Mixer, matrix
from kf_core.media.sound import SoundFile

from ...cases import case
from .synth import RATE, Sound, sweep, write

LAYOUTS = {"mono": 1, "stereo": 2, "2.1": 3, "3.0": 3, "quad": 4, "5.0": 5, "5.1": 6, "5.1(side)": 6, "7.1": 8}


def heard(source, channels: int = 1, rate: int = RATE) -> np.ndarray:
    return np.concatenate(list(source.blocks(rate, channels)))


def decibels(samples: np.ndarray) -> float:
    return 10 * np.log10(np.square(samples, dtype=np.float64).mean())


def of_ffmpeg(samples: np.ndarray, layout: str, to: str) -> np.ndarray:
    """What FFmpeg makes of float samples [n, channels]."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32).reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate = RATE
    return av.AudioResampler(format="flt", layout=to, rate=RATE).resample(frame)[0].to_ndarray().reshape(-1, 1 if to == "mono" else 2)


@pytest.mark.parametrize("layout", [layout for layout, count in LAYOUTS.items() if count > 2])
def test_more_than_two_channels_are_mixed_as_ffmpeg_mixes_them(tmp_path, layout):
    noise = 0.1 * np.random.default_rng(1).standard_normal((RATE // 4, LAYOUTS[layout])).astype(np.float32)
    sound = SoundFile(write(tmp_path / "a.wav", Sound(noise, "pcm_f32le", layout)))
    assert np.allclose(heard(sound, 2), of_ffmpeg(noise, layout, "stereo"), atol=1e-6)
    assert np.allclose(heard(sound, 1), of_ffmpeg(noise, layout, "mono"), atol=1e-6)


@pytest.mark.parametrize("suffix", ["flac", "mka", "wav"])
def test_a_voice_in_the_centre_of_51_is_not_made_quieter_by_channels_that_are_silent(tmp_path, suffix):
    voice = sweep(0.5)
    surround = np.zeros((len(voice), 6), np.float32)
    surround[:, 2] = voice
    codec = {"flac": "flac", "mka": "pcm_f32le", "wav": "pcm_s16le"}[suffix]
    path = write(tmp_path / f"a.{suffix}", Sound(surround, codec, "5.1"))
    for source in (SoundFile(path), AudioArray(surround.T, RATE)):
        assert decibels(heard(source)) == pytest.approx(decibels(voice), abs=0.1)
        assert decibels(heard(source, 2)) == pytest.approx(decibels(voice) - 3.01, abs=0.1)


def test_a_layout_that_nobody_names_is_the_usual_one_for_its_number():
    assert np.array_equal(matrix("6 channels", 6, 2), matrix("5.1", 6, 2))
    assert matrix("9 channels", 9, 1).min() > 0  # nine microphones: all are heard
    assert matrix("1 channels", 1, 2).tolist() == [[1, 1]] and matrix("stereo", 2, 1).tolist() == [[0.5], [0.5]]


def opposed(path, form: str):
    """A voice with right = -left as a file, and as what ComfyUI hands on."""
    voice = sweep(1.3)
    both = np.stack((voice, -voice), axis=1)
    codec = {"flac": "flac", "wav": "pcm_s16le", "m4a": "aac", "mp3": "libmp3lame", "opus": "libopus"}
    return voice, AudioArray(both.T, RATE) if form == "array" else SoundFile(write(path / f"a.{form}", Sound(both, codec[form], "stereo")))


@pytest.mark.parametrize("form", ["array", "flac", "wav", "m4a", "mp3", "opus"])
def test_out_of_phase_stereo_is_heard_like_the_voice_alone_and_filmed_as_it_is(tmp_path, form):
    voice, source = opposed(tmp_path, form)
    mono, both = heard(source)[: len(voice), 0], heard(source, 2)[: len(voice)]
    middle = slice(9_600, len(voice) - 9_600)
    assert np.corrcoef(mono[middle], voice[middle])[0, 1] > 0.99
    assert decibels(mono[middle]) == pytest.approx(decibels(voice[middle]), abs=0.6)
    assert np.abs(both[middle, 0] + both[middle, 1]).max() < 0.02 and np.corrcoef(both[middle, 0], voice[middle])[0, 1] > 0.99


def test_channels_that_cancel_in_surround_are_heard_too():
    voice = sweep(0.5)
    surround = np.zeros((6, len(voice)), np.float32)
    surround[0], surround[1], surround[3] = voice, -voice, 0.9 * np.sign(voice)  # and a loud rumble, which is no voice
    assert np.allclose(heard(AudioArray(surround, RATE))[240:, 0], voice[240:])


def test_stereo_that_does_not_cancel_is_mixed_and_one_side_alone_is_half():
    generator = np.random.default_rng(2)
    wide = generator.standard_normal((2, RATE)).astype(np.float32) * 0.1  # as different as two channels can be
    assert np.allclose(heard(AudioArray(wide, RATE))[:, 0], wide.mean(0), atol=1e-7)
    assert np.allclose(heard(AudioArray(np.stack((wide[0], 0 * wide[0])), RATE))[:, 0], wide[0] / 2, atol=1e-7)


def test_from_one_choice_to_the_other_there_is_no_click():
    tone = (0.3 * np.sin(2 * np.pi * 50 * np.arange(2 * RATE) / RATE)).astype(np.float32)
    both = np.stack((tone, np.where(np.arange(2 * RATE) < RATE, tone, -tone)))
    mono = heard(AudioArray(both, RATE))[:, 0]
    assert np.abs(np.diff(mono)).max() < 1.1 * np.abs(np.diff(tone)).max()
    assert np.allclose(mono[RATE + 240 :], tone[RATE + 240 :])


def test_a_live_source_is_mixed_the_same_way():
    voice = sweep(0.2, 16_000)
    live = LiveAudio()
    for start in range(0, len(voice), 160):
        live.push(np.stack((voice, -voice))[:, start : start + 160])
    live.push(np.full((2, 16), np.inf))
    live.close()
    assert np.allclose(live.samples(240, len(voice)), voice[240:]) and not live.samples(len(voice), len(voice) + 16).any()


def test_a_stretch_is_mixed_alike_however_long_it_is():
    noise = np.random.default_rng(3).standard_normal((1000, 6)).astype(np.float32)
    whole = Mixer("5.1", 6, 2)(noise)
    assert np.array_equal(whole, np.concatenate([Mixer("5.1", 6, 2)(noise[start : start + 7]) for start in range(0, 1000, 7)]))


def test_the_case_of_a_voice_in_the_centre_is_at_ffmpegs_level():
    path = case("centre51.flac")
    with av.open(str(path)) as container:
        own = np.concatenate([frame.to_ndarray().reshape(-1, 6) for frame in container.decode(audio=0)]).astype(np.float32) / 32768
    sound = SoundFile(path)
    for channels, layout in ((1, "mono"), (2, "stereo")):
        assert decibels(heard(sound, channels)) == pytest.approx(decibels(of_ffmpeg(own, "5.1", layout)), abs=0.1)


def test_the_case_of_out_of_phase_stereo_is_heard_like_the_voice_alone():
    sound = SoundFile(case("antiphase.flac"))
    both = heard(sound, 2)
    assert np.allclose(heard(sound)[:, 0], both[:, 0]) and np.allclose(both[:, 0], -both[:, 1]) and decibels(both) > -30
