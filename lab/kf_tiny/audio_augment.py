"""The same words from another throat: log-mel steps changed as another voice, microphone or room would change them.

A clip's sound is fixed when it is encoded, and a student that meets the same few voices again and again learns them by heart: its mouth
was right for voices it knew and wrong for others. So what it hears is changed anew each time, in ways that leave the mouth as it was:
the spectrum stretched as by a longer or shorter vocal tract, coloured, louder or softer, over a hiss, with some bands unheard.
Every hop of a sample is changed alike, since a hop is in two neighbouring steps. Nothing changes within digital silence but the hiss.
Source: vocal tract length perturbation, Jaitly and Hinton 2013; masked bands as in SpecAugment, arXiv 1904.08779.
"""

from functools import cache

import torch
from torch import Tensor

from kf_core.encoders.log_mel import MELS, mel_frequencies

SILENCE = -1.5  # a level of `log_mel`; 0.05 of a level are a decibel
UNCHANGED_SHARE = 0.15
LONGEST, SHORTEST = 0.82, 1.22  # what frequencies are multiplied by
LOUDNESS = 0.3  # levels up or down: 6 dB
COLOUR = 0.25  # levels at a wave's crest
WAVES = 4  # cosines over the bands that a colour is made of, the first of them a tilt
HISS_SHARE, HISS = 0.4, (-1.4, 0.2)  # levels
MASKED_SHARE, WIDEST_MASK = 0.3, 5  # bands


def as_other_voices(audio: Tensor, generator: torch.Generator) -> Tensor:
    """Log-mel steps [b, ..., n * 32] as other voices would say them, each sample its own way; the generator is the CPU's."""
    b = len(audio)
    level = audio.float().reshape(b, -1, MELS)

    def uniform(low, high, *shape):
        return (low + (high - low) * torch.rand(b, *shape, generator=generator)).to(level)

    def happens(share):
        return uniform(0, 1, 1, 1) < share

    heard = level > SILENCE + 0.01
    changed = _stretched(level, torch.exp(uniform(*torch.tensor((LONGEST, SHORTEST)).log().tolist(), 1)))
    changed = changed + uniform(-LOUDNESS, LOUDNESS, 1, 1) + (uniform(-COLOUR, COLOUR, 1, WAVES) @ _waves().to(level))
    hiss = uniform(*HISS, 1, 1) + (uniform(-COLOUR, COLOUR, 1, WAVES) @ _waves().to(level))
    changed = torch.where(heard.any(-1, keepdim=True), changed, SILENCE)
    changed = torch.where(happens(HISS_SHARE), _together(changed, hiss), changed)
    band, first, width = torch.arange(MELS).to(level), uniform(0, MELS, 1, 1), uniform(1, WIDEST_MASK, 1, 1)
    masked = (band >= first) & (band < first + width) & happens(MASKED_SHARE)
    changed = torch.where(masked, SILENCE, changed).clamp(-2, 3)
    return torch.where(happens(UNCHANGED_SHARE), level, changed).view(audio.shape).to(audio.dtype)


def _stretched(level: Tensor, factor: Tensor) -> Tensor:
    """The band at f hertz hears what was at f * factor [b, 1]; beyond the last band the last one holds."""
    hertz = _hertz().to(level)
    upper = torch.searchsorted(hertz, (hertz * factor).contiguous()).clamp(1, MELS - 1)  # [b, bands]
    share = ((hertz * factor - hertz[upper - 1]) / (hertz[upper] - hertz[upper - 1])).clamp(0, 1)

    def at(band):
        return level.gather(2, band[:, None].expand(level.shape))

    return torch.lerp(at(upper - 1), at(upper), share[:, None].expand(level.shape))


def _together(a: Tensor, b: Tensor) -> Tensor:
    """Two sounds that do not know of each other: their powers add. A level is (log10 power + 3) / 2."""
    return ((10 ** (2 * a - 3) + 10 ** (2 * b - 3)).log10() + 3) / 2


@cache
def _hertz() -> Tensor:
    """Where the bands have their middles: [32]."""
    return torch.from_numpy(mel_frequencies()[1:-1].copy())


@cache
def _waves() -> Tensor:
    """Half, one, ... cosines over the bands, each weaker than the one before: [waves, 32]."""
    wave = torch.arange(1, WAVES + 1)[:, None]
    return torch.cos(torch.pi * wave * (torch.arange(MELS) + 0.5) / MELS) / wave.sqrt()
