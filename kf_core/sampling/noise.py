"""Noise as a pure function of seed, frame and step: no generator state to save, nothing depends on chunking or length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..timeline import LatentSpan


class Noise(Protocol):
    def __call__(self, span: LatentSpan, step: int) -> Tensor:
        """Standard normal noise for the frames of `span` entering denoising step `step`: [b, c, f, h, w], float32 on the CPU."""
        ...


@dataclass(frozen=True)
class SeededNoise:
    """The same numbers for the same seed, frame and step, on every machine."""

    seed: int
    shape: tuple[int, int, int, int]  # b, c, h, w

    def __call__(self, span: LatentSpan, step: int) -> Tensor:
        return torch.stack([self._frame(frame, step) for frame in span], dim=2)

    def _frame(self, frame: int, step: int) -> Tensor:
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed & (2**64 - 1), frame, step))))
        return torch.from_numpy(generator.standard_normal(self.shape, dtype=np.float32))


@dataclass(frozen=True, eq=False)
class NoiseTape:
    """Recorded noise: the initial sample of all frames, then one tensor for each re-noising in order of use."""

    initial: Tensor  # [b, c, f, h, w], for the frames from `first_frame` on
    renoise: Sequence[Tensor]  # [b, c, f, h, w] each
    steps: int  # denoising steps of a chunk
    chunk: int  # frames of a chunk
    first_frame: int = 0

    def __call__(self, span: LatentSpan, step: int) -> Tensor:
        first = span.start - self.first_frame
        if step == 0:
            return self.initial[:, :, first : first + span.length]
        return self.renoise[first // self.chunk * (self.steps - 1) + step - 1]
