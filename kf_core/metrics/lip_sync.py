"""Does the mouth follow the sound? Correlation of the opening that is read from the frames with the opening there should be.

r = Pearson's correlation, -1..1, of the read opening with the true track (or one made from the sound, `opening_from_sound`). The control
is the same with the track shifted by half a second both ways: a mouth that merely moves like speech scores alike in all three, a mouth in
sync scores high and its control near 0. A mouth that never moves scores 0. Source: KF_TINY's check; the reader is `reader.py`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .frames import Video, feed
from .reader import PortraitReader

CONTROL_SECONDS = 0.5
SPEECH_BAND = (150.0, 4000.0)  # Hz


@dataclass(frozen=True, kw_only=True)
class LipSyncResult:
    r: float
    shifted: float  # the larger |r| of the two controls, with its sign
    best_lag: float  # seconds by which the mouth is late, where r is highest within half a second


class LipSync:
    """`opening` [f]: the true opening at each frame."""

    def __init__(self, reader: PortraitReader, opening: Tensor, fps: float) -> None:
        self._reader, self._opening, self._fps = reader, opening.flatten().float(), fps
        self._read: list[Tensor] = []

    def add(self, frames: Tensor, truth: Tensor | None = None) -> None:
        self._read.append(self._reader.read(frames).mouth_open)

    def result(self) -> LipSyncResult:
        return compare_openings(torch.cat(self._read), self._opening, self._fps)


def lip_sync(video: Video, reader: PortraitReader, opening: Tensor, fps: float) -> LipSyncResult:
    meter = LipSync(reader, opening, fps)
    feed([meter], video)
    return meter.result()


def fewest_frames(fps: float) -> int:
    """How many can be compared, with two left when the control shifts them both ways."""
    return 2 * round(CONTROL_SECONDS * fps) + 2


def compare_openings(read: Tensor, true: Tensor, fps: float) -> LipSyncResult:
    """Two tracks of the mouth's opening [f], the longer one cut."""
    common = min(len(read), len(true))
    read, true = read[:common], true[:common]
    reach = round(CONTROL_SECONDS * fps)
    if common < fewest_frames(fps):
        raise ValueError(f"{common} frames are too few to compare with a shift of {reach}")
    by_lag = {
        lag: correlation(read[max(0, lag) : common + min(0, lag)], true[max(0, -lag) : common - max(0, lag)])
        for lag in range(-reach, reach + 1)
    }
    return LipSyncResult(
        r=by_lag[0], shifted=max(by_lag[-reach], by_lag[reach], key=abs), best_lag=max(by_lag, key=lambda lag: by_lag[lag]) / fps
    )


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's r of two tracks; 0 where one of them never moves."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return 0.0 if scale < 1e-9 else ((a * b).sum() / scale).item()


def opening_from_sound(samples: np.ndarray, sample_rate: int, fps: float) -> Tensor:
    """How far a mouth should be open at each frame, from the sound alone: 0..1, [f].

    Energy of the speech band ^.75, smoothed over two frames, 1 at the loud end; there is no telling an `m` from an `a`."""
    window = 2 * round(sample_rate / fps)
    count = int(np.ceil(len(samples) / sample_rate * fps - 1e-6))
    padded = np.pad(np.asarray(samples, dtype=np.float32), (window // 2, window))
    middles = np.round(np.arange(count) * sample_rate / fps).astype(int)
    frequencies = np.fft.rfftfreq(window, 1 / sample_rate)
    band = (frequencies >= SPEECH_BAND[0]) & (frequencies <= SPEECH_BAND[1])
    taper = np.hanning(window)
    energy = np.array([(np.abs(np.fft.rfft(padded[at : at + window] * taper)[band]) ** 2).sum() ** 0.5 for at in middles])
    opening = torch.from_numpy(energy).float() ** 0.75
    loud = opening.quantile(0.95) if count else torch.ones(())
    return (opening / loud.clamp(min=1e-6)).clamp(0, 1)
