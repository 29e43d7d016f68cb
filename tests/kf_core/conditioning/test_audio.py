"""What a listener promises, whatever it listens to, and what the log-mel features promise on top."""

import threading
import wave

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kf_core.conditioning.audio import AudioArray, AudioFile, LiveAudio, Silence
from kf_core.encoders.log_mel import FFT, HIGHEST_HZ, LOWEST_HZ, MELS, WIDTH, LogMel, mel_bands, mel_frequencies
from kf_core.errors import KnotForcingError
from kf_core.timeline import PixelSpan
from kf_core.types import SAMPLE_RATE

from ...held import counted

FPS = 16.0


def speech_like(seconds: float, rate: int = SAMPLE_RATE) -> np.ndarray:
    generator = np.random.default_rng(3)
    t = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * 180 * t) * (1 + np.sin(2 * np.pi * 3 * t)) + 0.01 * generator.standard_normal(len(t))).astype(
        np.float32
    )


def write_wav(path, samples: np.ndarray, rate: int = SAMPLE_RATE):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """25 seconds: longer than what a listener remembers."""
    return AudioFile(write_wav(tmp_path_factory.mktemp("sound") / "speech.wav", speech_like(25, 22_050), 22_050))


@pytest.fixture(scope="module")
def whole(recording):
    return recording.open().samples(0, 26 * SAMPLE_RATE)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.tuples(st.integers(-8_000, 26 * 16_000 - 40_000), st.integers(0, 40_000)), min_size=1, max_size=4))
def test_any_stretch_in_any_order_equals_the_whole(recording, whole, cuts):
    listener = recording.open()
    for start, length in cuts:
        heard = listener.samples(start, start + length)
        assert np.array_equal(heard, np.concatenate((np.zeros(max(0, min(length, -start))), whole[max(0, start) : max(0, start + length)])))


def test_a_file_and_the_same_sound_in_memory_are_heard_alike(recording, whole):
    with wave.open(str(recording.path)) as file:
        samples = np.frombuffer(file.readframes(10**7), "<i2").astype(np.float32) / 32768
    heard = AudioArray(samples, 22_050).open().samples(0, len(whole))
    assert np.abs(heard - whole).max() < 1e-6


def test_two_listeners_do_not_disturb_each_other(recording, whole):
    one, other = recording.open(), recording.open()
    for second in range(20):
        late = (20 - second) * SAMPLE_RATE
        assert np.array_equal(one.samples(second * SAMPLE_RATE, (second + 1) * SAMPLE_RATE), whole[second * SAMPLE_RATE :][:SAMPLE_RATE])
        assert np.array_equal(other.samples(late, late + SAMPLE_RATE), whole[late : late + SAMPLE_RATE])


def test_beyond_the_end_there_is_silence(recording):
    assert not recording.open().samples(26 * SAMPLE_RATE, 27 * SAMPLE_RATE).any()
    assert not Silence().open().samples(0, 100).any()


def test_a_torch_waveform_with_two_channels_is_mixed():
    audio = AudioArray(torch.stack((torch.full((1600,), 0.5), torch.zeros(1600))), SAMPLE_RATE)
    assert audio.seconds == 0.1 and np.allclose(audio.open().samples(0, 1600), 0.25)
    assert np.concatenate(list(audio.blocks(SAMPLE_RATE, 2)))[0].tolist() == [0.5, 0.0]


def test_a_missing_file_and_an_empty_array_are_refused_at_once(tmp_path):
    with pytest.raises(KnotForcingError, match="does not exist"):
        AudioFile(tmp_path / "speech.wav")
    with pytest.raises(KnotForcingError, match="empty"):
        AudioArray(np.zeros(0), SAMPLE_RATE)


def test_listening_takes_memory_that_does_not_depend_on_the_length(tmp_path):
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setparams((1, 1, 8_000, 0, "NONE", ""))
        for _ in range(6 * 60):
            file.writeframes(bytes([128]) * 8_000)
    features = LogMel(AudioFile(tmp_path / "long.wav").open(), FPS)

    def listen(first, last):
        return [features.steps(PixelSpan(16 * t, 16 * t + 16)).shape for t in range(first, last, 4)]

    listen(0, 200)
    with counted() as held:
        listen(200, 220)
        before = held()
        listen(220, 280)
        assert held() - before < 5e5, "the samples of a minute are 3.8 MB"


# ---- live ----


def test_a_live_source_blocks_until_the_sound_has_come():
    live, sound = LiveAudio(), speech_like(2)
    live.push(sound[:SAMPLE_RATE])
    heard = []
    thread = threading.Thread(target=lambda: heard.append(live.open().samples(SAMPLE_RATE - 100, SAMPLE_RATE + 100)))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive() and not heard
    for start in range(SAMPLE_RATE, 2 * SAMPLE_RATE, 50):
        live.push(sound[start : start + 50])
    thread.join(60)
    assert np.array_equal(heard[0], sound[SAMPLE_RATE - 100 : SAMPLE_RATE + 100])


def test_a_closed_live_source_goes_on_in_silence_and_knows_its_length():
    live = LiveAudio(44_100)
    for start in range(0, 44_100, 441):
        live.push(speech_like(1, 44_100)[start : start + 441])
    assert live.seconds is None
    live.close()
    assert live.seconds == pytest.approx(1, abs=1e-3)
    assert not live.open().samples(2 * SAMPLE_RATE, 3 * SAMPLE_RATE).any()
    assert (
        np.abs(live.open().samples(0, SAMPLE_RATE) - AudioArray(speech_like(1, 44_100), 44_100).open().samples(0, SAMPLE_RATE)).max() < 1e-4
    )
    assert len(np.concatenate(list(live.blocks(48_000, 2)))) == pytest.approx(48_000, abs=10)


def test_a_live_source_that_falls_silent_says_so_in_words():
    live = LiveAudio(patience_seconds=0.05)
    live.push(np.zeros(8_000))
    with pytest.raises(KnotForcingError, match=r"stopped at 0\.5 s"):
        live.open().samples(0, 16_000)


def test_a_live_source_forgets_so_that_it_may_run_for_ever():
    live = LiveAudio(kept_seconds=2)
    for _ in range(100):
        live.push(np.zeros(SAMPLE_RATE // 2))
    with pytest.raises(KnotForcingError, match="forgotten"):
        live.open().samples(0, 100)
    assert len(live.open().samples(48 * SAMPLE_RATE, 50 * SAMPLE_RATE)) == 2 * SAMPLE_RATE


# ---- log-mel ----


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 30)), min_size=1, max_size=4), fps=st.sampled_from([16.0, 25.0, 24.0]))
def test_any_window_of_features_equals_the_whole_to_the_bit(recording, cuts, fps):
    everything = LogMel(recording.open(), fps).steps(PixelSpan(0, 430))
    features = LogMel(recording.open(), fps)
    for start, length in cuts:
        assert torch.equal(features.steps(PixelSpan(start, start + length)), everything[start : start + length])


def test_the_mel_bands_are_librosas():
    import librosa

    words = dict(n_mels=MELS, fmin=LOWEST_HZ, fmax=HIGHEST_HZ)
    bands = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=FFT, dtype=np.float64, **words)
    middles = librosa.mel_frequencies(**{**words, "n_mels": MELS + 2})
    np.testing.assert_allclose(mel_bands(), bands, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(mel_frequencies(), middles, rtol=1e-12)


def test_features_equal_librosas_mel_spectrogram(whole):
    import librosa

    padded = np.pad(whole, (256 - 125, 0))
    mel = librosa.feature.melspectrogram(
        y=padded, sr=16_000, n_fft=512, hop_length=250, center=False, n_mels=32, fmin=60, fmax=7600
    )  # hop k is the middle of samples 250 k .. 250 k + 250
    expected = torch.from_numpy(((np.log10(mel + 1e-6) + 3) / 2).T[: 4 * 40].reshape(40, 128))
    found = LogMel(AudioArray(whole, SAMPLE_RATE).open(), FPS).steps(PixelSpan(0, 41))
    assert torch.allclose(found[:40, 128:], expected, atol=1e-5), "the later half of step p: the hops after frame p"
    assert torch.equal(found[1:, :128], found[:-1, 128:]), "the earlier half of step p is the later half of step p - 1"


def test_silence_gives_one_constant_and_loudness_stays_in_range():
    assert LogMel(Silence().open(), FPS).steps(PixelSpan(0, 4)).unique().tolist() == [-1.5]
    loud = LogMel(AudioArray(np.sign(speech_like(1)), SAMPLE_RATE).open(), FPS).steps(PixelSpan(0, 16))
    assert loud.shape == (16, WIDTH) and loud.min() >= -2 and loud.max() <= 3


def test_a_click_is_heard_at_its_frame_and_nowhere_else():
    wave_ = np.zeros(2 * SAMPLE_RATE)
    wave_[SAMPLE_RATE] = 1.0  # at frame 16
    steps = LogMel(AudioArray(wave_, SAMPLE_RATE).open(), FPS).steps(PixelSpan(0, 32))
    heard = (steps > -1.4).any(1).nonzero().flatten().tolist()
    assert 16 in heard and heard == [15, 16, 17]
