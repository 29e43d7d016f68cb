"""How near to the truth, where there is one: peak signal-to-noise ratio.

PSNR = -10 log10(mean squared error), RGB 0..1, in dB; 20 is a resemblance, 30 good, 40 hardly told apart. The number for a stretch of video
comes from its mean error, so one bad frame counts. `worst_below_median`: how far the worst latent frame (four frames) lies under
the clip's median one; a single frame gone wrong shows there. The mouth's is taken inside its boxes. Equal frames give infinity.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..timeline import PIXELS_PER_LATENT
from .frames import Video, feed


@dataclass(frozen=True, kw_only=True)
class PsnrResult:
    whole: float
    mouth: float | None  # None where no boxes were given
    first_fifth: float
    last_fifth: float
    worst_below_median: float  # dB, over latent frames


class Psnr:
    """`mouth_boxes` [f, 4]: left, top, right, bottom in pixels, for every frame that will come."""

    def __init__(self, mouth_boxes: Tensor | None = None) -> None:
        self._boxes = mouth_boxes
        self._errors: list[Tensor] = []  # [f]
        self._mouth_errors: list[Tensor] = []
        self._num_frames = 0

    def add(self, frames: Tensor, truth: Tensor | None = None) -> None:
        if truth is None:
            raise ValueError("PSNR needs the truth")
        error = (frames.double() - truth.double()).square().mean(-1)  # [f, h, w]
        self._errors.append(error.mean((1, 2)))
        if self._boxes is not None:
            for offset, frame in enumerate(error):
                left, top, right, bottom = (round(edge) for edge in self._boxes[self._num_frames + offset].tolist())
                self._mouth_errors.append(frame[top : max(bottom, top + 1), left : max(right, left + 1)].mean())
        self._num_frames += len(frames)

    def result(self) -> PsnrResult:
        errors = torch.cat(self._errors)
        fifth = max(1, len(errors) // 5)
        by_latent = torch.stack([group.mean() for group in (errors[:1], *errors[1:].split(PIXELS_PER_LATENT)) if len(group)])
        median, worst = by_latent.median().item(), by_latent.max().item()
        return PsnrResult(
            whole=decibels(errors.mean().item()),
            mouth=decibels(torch.stack(self._mouth_errors).mean().item()) if self._mouth_errors else None,
            first_fifth=decibels(errors[:fifth].mean().item()),
            last_fifth=decibels(errors[-fifth:].mean().item()),
            worst_below_median=0.0 if worst == median else decibels(median) - decibels(worst),
        )


def psnr(video: Video, truth: Video, mouth_boxes: Tensor | None = None) -> PsnrResult:
    meter = Psnr(mouth_boxes)
    feed([meter], video, truth)
    return meter.result()


def decibels(mean_squared_error: float) -> float:
    return math.inf if mean_squared_error == 0 else -10 * math.log10(mean_squared_error)
