"""A video as blocks of frames, whichever form it comes in, so that minutes need not be in memory; and what a measure is.

A measure is fed blocks and then asked for its result. Feeding several in one pass is `feed`; each measure's file also has a function
that does both for a single measure.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..types import FrameChunk

Video = Tensor | Iterable[Tensor | FrameChunk]  # [f, h, w, 3] RGB 0..1, whole or in parts of any length
BLOCK = 32  # frames


class Measure(Protocol):
    def add(self, frames: Tensor, truth: Tensor | None = None) -> None:
        """The next frames [f, h, w, 3] and, where it is known, what they should have been."""
        ...

    def result(self) -> Any: ...


def blocks(video: Video, length: int = BLOCK) -> Iterator[Tensor]:
    """The frames of `video` in blocks of `length`, the last one shorter: [f, h, w, 3] float on the CPU."""
    parts = [video] if isinstance(video, Tensor) else video
    waiting: list[Tensor] = []
    num_waiting = 0
    for part in parts:
        frames = part.frames if isinstance(part, FrameChunk) else part
        if frames.dim() != 4 or frames.shape[-1] != 3:
            raise ValueError(f"a video consists of [f, h, w, 3], got {list(frames.shape)}")
        for piece in frames.split(length):
            waiting.append(piece)
            num_waiting += len(piece)
            if num_waiting >= length:
                together = torch.cat(waiting).float().cpu()
                yield together[:length]
                waiting, num_waiting = [together[length:]], len(together) - length
    if num_waiting:
        yield torch.cat(waiting).float().cpu()


def feed(measures: Sequence[Measure], video: Video, truth: Video | None = None) -> None:
    """Show a video to all measures in one pass. Where there is a truth, what is longer than the other is cut off."""
    if truth is None:
        for frames in blocks(video):
            for measure in measures:
                measure.add(frames)
        return
    for frames, true in zip(blocks(video), blocks(truth), strict=False):
        common = min(len(frames), len(true))
        for measure in measures:
            measure.add(frames[:common], true[:common])
