"""Is there detail? Gradients and curvature of the brightness, and their share of what the truth has.

gradient = mean length of the brightness gradient (central differences), 0..about .7 per pixel; curvature = mean square of the
five-point Laplacian. `ratio` and `curvature_ratio` divide by the truth's: below 1 is softer, above 1 is noise or ringing. Curvature
falls faster with blur and grows faster with noise, so one cannot hide behind the other. Source: the Tenengrad and Laplacian focus measures.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .frames import Video, feed

_LUMA = (0.2126, 0.7152, 0.0722)  # BT.709


@dataclass(frozen=True, kw_only=True)
class SharpnessResult:
    gradient: float
    curvature: float
    ratio: float | None  # to the truth; None where there is none
    curvature_ratio: float | None


class Sharpness:
    def __init__(self) -> None:
        self._sums = torch.zeros(2, 2, dtype=torch.float64)  # [video | truth, gradient | curvature]
        self._counts = [0, 0]

    def add(self, frames: Tensor, truth: Tensor | None = None) -> None:
        for row, seen in enumerate((frames, truth)):
            if seen is not None:
                self._sums[row] += _detail(seen)
                self._counts[row] += len(seen)

    def result(self) -> SharpnessResult:
        (gradient, curvature), true = self._sums[0] / max(1, self._counts[0]), self._sums[1] / max(1, self._counts[1])
        known = self._counts[1] > 0
        return SharpnessResult(
            gradient=gradient.item(),
            curvature=curvature.item(),
            ratio=(gradient / true[0]).item() if known and true[0] > 0 else None,
            curvature_ratio=(curvature / true[1]).item() if known and true[1] > 0 else None,
        )


def sharpness(video: Video, truth: Video | None = None) -> SharpnessResult:
    meter = Sharpness()
    feed([meter], video, truth)
    return meter.result()


def gradient(frames: Tensor) -> Tensor:
    """The mean length of each frame's brightness gradient: [f, h, w, 3] -> [f]."""
    light = _light(frames)
    across, down = (light[:, 1:-1, 2:] - light[:, 1:-1, :-2]) / 2, (light[:, 2:, 1:-1] - light[:, :-2, 1:-1]) / 2
    return (across.square() + down.square()).sqrt().mean((1, 2))


def _light(frames: Tensor) -> Tensor:
    return frames @ frames.new_tensor(_LUMA)  # [f, h, w]


def _detail(frames: Tensor) -> Tensor:
    """Sum over frames of the mean gradient and the mean squared Laplacian: [2]."""
    light = _light(frames)
    middle = light[:, 1:-1, 1:-1]
    laplacian = light[:, 1:-1, 2:] + light[:, 1:-1, :-2] + light[:, 2:, 1:-1] + light[:, :-2, 1:-1] - 4 * middle
    return torch.stack([gradient(frames).sum(), laplacian.square().mean((1, 2)).sum()]).double()
