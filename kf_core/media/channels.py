"""Many channels as two or one, by where their loudspeakers stand.

    1 -> 2      on both, as loud as it is
    2 -> 1      half of each: a voice on both is as loud as it was
    more        FFmpeg's matrix for the layout, in floating point: the centre of 5.1 keeps its level for a listener, and goes
                to left and right at -3 dB; a channel for low notes is left out

One channel for a model can fail where two are fine: a microphone wired the wrong way round gives right = -left, and their sum is
nothing. Where channels cancel one another in a stretch, the one that carries most stands for all of them there.
Knows nothing of files. FFmpeg is only asked where there are more than two channels.
"""

from functools import lru_cache

import numpy as np

CANCELLED = 0.5  # the mix has less than this share of the energy that its strongest channel alone brings to it
ALIKE = 0.5  # of the channels with at least this share of the strongest one's energy the first is taken, so that the choice is steady
FADE = 240  # samples from one choice to the next


def finite(samples: np.ndarray) -> np.ndarray:
    """The same samples, with 0 where one is no number or without end."""
    return samples if np.isfinite(samples).all() else np.where(np.isfinite(samples), samples, np.float32(0))


def unreal(count: int, name: str) -> str:
    """What is to be said of so many samples that are not finite; empty where there are none."""
    if not count:
        return ""
    return (
        f"{count} samples of {name} are infinite or no numbers and count as silence. Export the sound again if something should be there."
    )


class Mixer:
    """Stretches of one sound, in order, from its own channels to `channels`.

    What comes of a stretch depends on that stretch alone, but for the fade at its beginning, which depends on the one before."""

    def __init__(self, layout: str, own: int, channels: int) -> None:
        """`layout` as FFmpeg calls it; `own`: how many channels that is."""
        self._matrix = matrix(layout, own, channels)  # [own, channels]
        self.own, self._channels = own, channels
        self._is_mono = channels == 1 and own > 1
        self._chosen: int | None = None  # a channel that stands for all; None: the mix

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """[n, own] -> [n, channels], float32"""
        if samples.shape[1] == self._channels:
            return np.ascontiguousarray(samples)
        mixed = _product(samples, self._matrix)
        return self._without_cancelling(samples, mixed) if self._is_mono and len(samples) else mixed

    def _without_cancelling(self, samples: np.ndarray, mixed: np.ndarray) -> np.ndarray:
        before, self._chosen = self._chosen, _uncancelled(samples, mixed, self._matrix[:, 0])
        result = self._take(samples, mixed, self._chosen)
        if before == self._chosen:
            return result
        length = min(FADE, len(samples))
        rising = (np.arange(1, length + 1, dtype=np.float32) / length)[:, None]
        faded = rising * result[:length] + (1 - rising) * self._take(samples, mixed, before)[:length]
        return np.concatenate((faded, result[length:]))

    @staticmethod
    def _take(samples: np.ndarray, mixed: np.ndarray, chosen: int | None) -> np.ndarray:
        return mixed if chosen is None else samples[:, chosen : chosen + 1]


@lru_cache(maxsize=64)
def matrix(layout: str, own: int, channels: int) -> np.ndarray:
    """How much of each of a layout's `own` channels goes to each of `channels`: [own, channels] float32."""
    if own == channels:
        return np.eye(own, dtype=np.float32)
    if own == 1:
        return np.ones((1, channels), np.float32)
    if (own, channels) == (2, 1):
        return np.full((2, 1), 0.5, np.float32)
    return _ffmpegs(layout, own, channels)


def unknown(own: int) -> str:
    """The layout of so many channels of which nobody says where they belong: FFmpeg takes the usual one, 5.1 for six."""
    return f"{own} channels"


def _ffmpegs(layout: str, own: int, channels: int) -> np.ndarray:
    """FFmpeg's matrix, by what it makes of one channel after the other."""
    import av  # only here: who hears one or two channels, as training does, needs none

    rows = []
    try:
        for channel in range(own):
            impulse = np.zeros((16, own), np.float32)
            impulse[:, channel] = 1.0
            frame = av.AudioFrame.from_ndarray(impulse.reshape(1, -1), format="flt", layout=layout)
            frame.sample_rate = 48_000
            mixer = av.AudioResampler(format="flt", layout="mono" if channels == 1 else "stereo", rate=48_000)
            rows.append(mixer.resample(frame)[0].to_ndarray().reshape(-1, channels)[8])
    except (ValueError, av.error.FFmpegError):  # a layout that FFmpeg has no matrix for, such as nine microphones
        return np.full((own, channels), own**-0.5, np.float32)
    return np.stack(rows)


def _product(samples: np.ndarray, by: np.ndarray) -> np.ndarray:
    """samples @ by, each sample by itself: a library's product rounds differently with the length."""
    result = np.zeros((len(samples), by.shape[1]), np.float32)
    for channel, weights in enumerate(by):
        if weights.any():
            result += samples[:, channel : channel + 1] * weights
    return result


def _uncancelled(samples: np.ndarray, mixed: np.ndarray, weights: np.ndarray) -> int | None:
    """The channel to take instead of the mix, where channels cancel one another in it; otherwise None."""

    def energy(x):
        return np.einsum("nc,nc->c", x, x, dtype=np.float64)

    brought = energy(samples) * weights.astype(np.float64) ** 2
    if energy(mixed)[0] >= CANCELLED * brought.max():
        return None
    return int((brought >= ALIKE * brought.max()).argmax())
