"""Other voices leave the words: rhythm and silence stay, the spectrum does not."""

import numpy as np
import torch

from kf_core.conditioning.audio import AudioArray
from kf_core.encoders.log_mel import MELS, LogMel
from kf_core.timeline import PixelSpan
from kf_core.types import SAMPLE_RATE
from lab.kf_tiny.audio_augment import SILENCE, as_other_voices


def babble(frames: int = 24):
    """A low, a high and no sound in turn: [1, 6, 1024] log-mel steps."""
    seconds = np.arange(frames * SAMPLE_RATE // 16) / SAMPLE_RATE
    sound = 0.2 * np.sin(2 * np.pi * np.where(seconds < 0.5, 300, 2500) * seconds) * (seconds < 1)
    steps = LogMel(AudioArray(sound.astype(np.float32), SAMPLE_RATE).open(), 16).steps(PixelSpan(0, frames))
    return steps.view(1, frames // 4, -1)


def changed(count: int = 400, seed: int = 0):
    audio = babble().expand(count, -1, -1)
    return audio, as_other_voices(audio, torch.Generator().manual_seed(seed))


def test_each_sample_is_changed_its_own_way_and_some_are_left_alone():
    audio, other = changed()
    untouched = (other == audio).flatten(1).all(1)
    assert 0.08 < untouched.float().mean() < 0.25
    assert len({tuple(row.flatten().tolist()) for row in other[~untouched][:50]}) == 50
    assert torch.equal(other, changed()[1]) and not torch.equal(other, changed(seed=1)[1])


def test_a_hop_that_is_in_two_steps_is_the_same_in_both():
    _, other = changed(40)
    steps = other.view(40, 24, 8, MELS)
    assert torch.equal(steps[:, :-1, 4:], steps[:, 1:, :4])


def test_silence_is_silent_or_hisses_evenly():
    _, other = changed()
    silent = other.view(400, 24, 8, MELS)[:, 18:]
    assert torch.equal(silent, silent[:, :1, :1].expand_as(silent))
    is_silent = (silent == SILENCE).flatten(1).all(1)
    assert 0.5 < is_silent.float().mean() < 0.8


def test_a_voice_stays_louder_than_its_pauses_and_its_pitch_moves_by_at_most_a_quarter():
    audio, other = changed()
    spoken, silent = (other.view(400, 24, 8, MELS)[:, part].amax((1, 2, 3)) for part in (slice(2, 6), slice(18, 24)))
    assert (spoken > silent).float().mean() > 0.95

    def peak(steps):
        return steps.view(len(steps), 24, 8, MELS)[:, 10:14].mean((1, 2)).argmax(-1)

    assert (peak(other) - peak(audio)).abs().float().quantile(0.8) <= 4 and peak(other).unique().numel() > 3
