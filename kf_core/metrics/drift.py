"""Do the colours wander off? The failing of autoregressive video that one sees only after a minute.

per_minute: the slope of a straight line through each channel's mean over time, the steepest channel, in RGB units (0..1) per minute.
last_fifth: how far the mean colour of the last fifth is from that of the first, the largest channel. Where the truth is known, `from_truth`
is the distance of the last fifth's mean colour from the truth's: that one is free of what really changed in the scene.
Source: our own measure, after the drift figures of Self-Forcing and Knot Forcing (arXiv 2512.21734).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .frames import Video, feed


@dataclass(frozen=True, kw_only=True)
class DriftResult:
    per_minute: float
    last_fifth: float
    from_truth: float | None


class Drift:
    def __init__(self, fps: float = 16) -> None:
        self._fps = fps
        self._colours: list[Tensor] = []  # [f, 3]
        self._true_colours: list[Tensor] = []

    def add(self, frames: Tensor, truth: Tensor | None = None) -> None:
        self._colours.append(frames.double().mean((1, 2)))
        if truth is not None:
            self._true_colours.append(truth.double().mean((1, 2)))

    def result(self) -> DriftResult:
        colours = torch.cat(self._colours)
        fifth = max(1, len(colours) // 5)
        seconds = torch.arange(len(colours), dtype=torch.float64) / self._fps
        seconds = seconds - seconds.mean()
        slope = (seconds[:, None] * colours).sum(0) / seconds.square().sum().clamp(min=1e-12)
        from_truth = None
        if self._true_colours:
            from_truth = (colours[-fifth:].mean(0) - torch.cat(self._true_colours)[-fifth:].mean(0)).abs().max().item()
        return DriftResult(
            per_minute=60 * slope.abs().max().item(),
            last_fifth=(colours[-fifth:].mean(0) - colours[:fifth].mean(0)).abs().max().item(),
            from_truth=from_truth,
        )


def drift(video: Video, fps: float = 16, truth: Video | None = None) -> DriftResult:
    meter = Drift(fps)
    feed([meter], video, truth)
    return meter.result()
