"""What kf-tiny hears: a log-mel spectrogram, one step per frame, made from nothing but the sound around that frame.

Four hops to a frame; the frame that is shown at p / fps gets the four before and the four after it:

    hop        ... | 4p-4  4p-3  4p-2  4p-1 | 4p  4p+1  4p+2  4p+3 | ...      15.6 ms each at 16 fps
    frame                                 p

The scale is fixed (no statistics of the clip), so any window equals the same part of the whole, bit for bit.
The framing is our own, because the hop need not be a whole number of samples. So is the table of mel bands, a few lines and equal to
librosa's (Slaney's scale and norm): importing librosa for it took longer than the model takes to load.
Source: librosa, `filters.mel` and `mel_frequencies` (htk=False, norm="slaney"); Slaney, Auditory Toolbox, Technical Report 1998-010.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..timeline import PixelSpan
from ..types import SAMPLE_RATE, Listener

MELS = 32
FFT = 512
LOWEST_HZ, HIGHEST_HZ = 60.0, 7600.0
HOPS_PER_FRAME = 4
WIDTH = 2 * HOPS_PER_FRAME * MELS  # numbers per frame
REMEMBERED = 256  # frames
# Slaney's mel: linear up to 1 kHz, logarithmic beyond, where 27 mels are a factor of 6.4
HERTZ_PER_MEL, BEND_HZ, LOG_STEP = 200 / 3, 1000.0, np.log(6.4) / 27


class LogMel:
    """Log-mel steps of one listener at `fps` frames a second."""

    width = WIDTH

    def __init__(self, listener: Listener, fps: float) -> None:
        self._listener = listener
        self._fps = fps
        self._remembered: dict[int, np.ndarray] = {}

    def steps(self, span: PixelSpan) -> Tensor:
        """The steps of `span`, [s, 256] float32, hop-major, about -1.5 (silence) .. 3."""
        rows = [np.concatenate((self._after(frame - 1), self._after(frame))).reshape(-1) for frame in span]
        return torch.from_numpy(np.stack(rows) if rows else np.zeros((0, WIDTH), np.float32))

    def _after(self, frame: int) -> np.ndarray:
        """The four hops between `frame` and the next, [4, 32]. Always computed alone, so that no neighbour can change a bit of it."""
        if frame not in self._remembered:
            middles = [round((HOPS_PER_FRAME * frame + hop + 0.5) * SAMPLE_RATE / (HOPS_PER_FRAME * self._fps)) for hop in range(4)]
            first = middles[0] - FFT // 2
            sound = self._listener.samples(first, middles[-1] + FFT // 2).astype(np.float64)
            frames = np.stack([sound[middle - FFT // 2 - first :][:FFT] for middle in middles])
            power = np.abs(np.fft.rfft(frames * _hann())) ** 2
            level = (np.log10(power @ mel_bands().T + 1e-6) + 3) / 2
            while len(self._remembered) >= REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[frame] = level.clip(-2, 3).astype(np.float32)
        return self._remembered[frame]


@cache
def _hann() -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)


@cache
def mel_bands() -> np.ndarray:
    """[32, 257]. Each band is a triangle from the middle of the one before to the middle of the one after, of area 1 over hertz."""
    hertz = np.arange(FFT // 2 + 1) * SAMPLE_RATE / FFT
    edges = mel_frequencies()
    lower, middle, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((hertz - lower) / (middle - lower), (upper - hertz) / (upper - middle))
    return np.maximum(triangles, 0) * (2 / (upper - lower))


def mel_frequencies() -> np.ndarray:
    """Hertz where the bands begin, have their middles and end, evenly spaced in mels: [34]."""
    return _hertz(np.linspace(_mels(LOWEST_HZ), _mels(HIGHEST_HZ), MELS + 2))


def _mels(hertz: float) -> float:
    linear = hertz / HERTZ_PER_MEL
    return linear if hertz < BEND_HZ else BEND_HZ / HERTZ_PER_MEL + np.log(hertz / BEND_HZ) / LOG_STEP


def _hertz(mels: np.ndarray) -> np.ndarray:
    bend = BEND_HZ / HERTZ_PER_MEL
    return np.where(mels < bend, mels * HERTZ_PER_MEL, BEND_HZ * np.exp(LOG_STEP * (np.maximum(mels, bend) - bend)))
