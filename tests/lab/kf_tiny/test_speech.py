"""Speech and what the mouth does with it: closed lips where they must be, and nothing shared with what is held out."""

import numpy as np
import pytest

from kf_core.errors import KnotForcingError
from lab.kf_tiny.sentences import HELD_OUT_SENTENCES, sentence
from lab.kf_tiny.speech import (
    ACTIVE_RMS,
    HELD_OUT_VOICES,
    SAMPLE_RATE_HZ,
    SILENCE,
    TRAINING_VOICES,
    Speech,
    Voice,
    join,
    monologue,
    normalise,
    pause,
    speak,
)
from lab.kf_tiny.visemes import mouth_track

FPS = 16


@pytest.fixture(scope="module")
def spoken() -> Speech:
    return monologue(TRAINING_VOICES[0], 20, seed=3)


def spans(speech: Speech):
    ends = [start for start, _ in speech.phonemes[1:]] + [speech.seconds]
    return [(name, start, end) for (start, name), end in zip(speech.phonemes, ends, strict=True)]


def tracks(speech: Speech):
    return mouth_track(speech, int(speech.seconds * FPS), FPS)


def test_lips_are_closed_at_the_frame_nearest_to_every_m_b_p(spoken):
    opening, _, bite = tracks(spoken)
    closures = [(start + end) / 2 for name, start, end in spans(spoken) if name[:1] in ("m", "b", "p")]
    nearest = [round(middle * FPS) for middle in closures if round(middle * FPS) < len(opening)]
    assert len(nearest) > 20
    assert opening[nearest].max() <= 0.1 and bite[nearest].max() <= 0.1


def test_the_mouth_is_fully_closed_in_silence(spoken):
    opening, wide, bite = tracks(spoken)
    times = np.arange(len(opening)) / FPS
    silent = np.zeros(len(opening), bool)
    for name, start, end in spans(spoken):
        if name == SILENCE:
            silent |= (times >= start) & (times < end)
    assert silent.sum() > 10
    assert not opening[silent].any() and not wide[silent].any() and not bite[silent].any()


def test_the_mouth_stays_closed_after_the_end():
    said = speak("Bob may go.", TRAINING_VOICES[0])
    opening, _, _ = mouth_track(said, int(said.seconds * FPS) + 40, FPS)
    assert opening.max() > 0.2 and not opening[-30:].any()


def test_teeth_meet_the_lip_at_f_and_v():
    said = speak("five vivid waves", TRAINING_VOICES[0])
    _, _, bite = tracks(said)
    middles = [round((start + end) / 2 * FPS) for name, start, end in spans(said) if name[:1] in ("f", "v")]
    assert len(middles) >= 4 and bite[middles].mean() > 0.9


def test_open_vowels_open_and_round_ones_are_round():
    ah, _, _ = tracks(speak("aah, aah, aah", TRAINING_VOICES[0]))
    ee_open, ee_wide, _ = tracks(speak("bee, bee, bee", TRAINING_VOICES[0]))
    _, oo_wide, _ = tracks(speak("boo, boo, boo", TRAINING_VOICES[0]))
    assert ah.max() > 0.7 > ee_open.max() and ee_wide.max() > 0.7 and oo_wide.min() < -0.7


def test_tracks_stay_in_their_ranges(spoken):
    opening, wide, bite = tracks(spoken)
    assert opening.min() >= 0 and opening.max() <= 1 and abs(wide).max() <= 1 and bite.min() >= 0 and bite.max() <= 1


def test_held_out_voices_and_sentences_are_disjoint_from_training():
    assert not {voice.name for voice in TRAINING_VOICES} & {voice.name for voice in HELD_OUT_VOICES}
    assert not {v.variant for v in TRAINING_VOICES} & {v.variant for v in HELD_OUT_VOICES}  # not even another accent of one timbre
    generator = np.random.default_rng(0)
    drawn = {sentence("en", generator) for _ in range(2000)}
    assert len(drawn) > 1900 and not drawn & set(HELD_OUT_SENTENCES)


def test_every_voice_speaks_at_one_loudness():
    for voice in TRAINING_VOICES + HELD_OUT_VOICES:
        said = monologue(voice, 1, seed=1, held_out=voice in HELD_OUT_VOICES)
        loud = np.abs(said.samples) > 0.02
        assert said.samples.dtype == np.float32 and 0.5 * ACTIVE_RMS < np.sqrt(np.mean(said.samples[loud] ** 2)) < 3 * ACTIVE_RMS, voice


def test_silence_is_not_made_louder():
    assert not normalise(np.zeros(SAMPLE_RATE_HZ, np.float32)).any()


def test_joined_phonemes_keep_their_place(spoken):
    said = speak("Mum", TRAINING_VOICES[0])
    joined = join([pause(0.5), said])
    assert joined.seconds == pytest.approx(0.5 + said.seconds, abs=1e-4)
    assert joined.phonemes[1:] == tuple((0.5 + seconds, name) for seconds, name in said.phonemes)


def test_a_missing_voice_is_named_in_one_sentence(spoken):
    with pytest.raises(KnotForcingError, match="no voice 'nobody'"):
        speak("Hello", Voice("nobody"))
