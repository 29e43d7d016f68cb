"""Temporal flickering, never without motion: a frozen frame would win the one and lose the other.

score = 100 * (255 - d) / 255, where d is the mean absolute difference of neighbouring frames on a scale of 0..255; 100 is a still.
Source: VBench, arXiv 2311.17982, `temporal_flickering.py`. VBench leaves clips with real motion out; we show the motion beside it:
the same difference between frames half a second apart. Flicker alone makes both alike, motion makes the second larger.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .frames import Video, feed

EQUAL_MOTION = 0.05  # motion of two videos that differs by less than this share is equal


@dataclass(frozen=True, kw_only=True)
class FlickerResult:
    score: float  # 0..100
    step: float  # 0..255, mean difference of neighbours
    motion: float  # 0..255, mean difference half a second apart; 0 for a clip shorter than that


def is_equal_motion(motion: float, other: float) -> bool:
    """Whether two videos move alike, so that their flickering may be compared."""
    return abs(motion - other) <= EQUAL_MOTION * max(abs(other), 1e-9)


def compare(result: FlickerResult, other: FlickerResult) -> float | None:
    """By how much the score of `result` is higher; None: not comparable, because they do not move alike."""
    return result.score - other.score if is_equal_motion(result.motion, other.motion) else None


class Flicker:
    def __init__(self, fps: float = 16) -> None:
        self._reach = max(2, round(fps / 2))
        self._recent: Tensor | None = None  # the last frames, for differences across blocks
        self._sums = {1: 0.0, self._reach: 0.0}
        self._counts = {1: 0, self._reach: 0}

    def add(self, frames: Tensor, truth: Tensor | None = None) -> None:
        seen = 0 if self._recent is None else len(self._recent)
        frames = frames if self._recent is None else torch.cat([self._recent, frames])
        for distance in self._sums:
            first = max(distance, seen)  # differences that end in the new frames
            difference = (frames[first:] - frames[first - distance : len(frames) - distance]).abs()
            self._sums[distance] += 255 * difference.flatten(1).mean(1).sum().item()
            self._counts[distance] += len(difference)
        self._recent = frames[-self._reach :]

    def result(self) -> FlickerResult:
        step, motion = (self._sums[distance] / max(1, self._counts[distance]) for distance in (1, self._reach))
        return FlickerResult(score=100 * (255 - step) / 255, step=step, motion=motion)


def flicker(video: Video, fps: float = 16) -> FlickerResult:
    meter = Flicker(fps)
    feed([meter], video)
    return meter.result()
