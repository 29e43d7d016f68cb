"""The sound under a video, taken from a source's blocks cut by cut, always forward: hours of it cost a block of memory.

Knows nothing of frames; which samples belong to which is the video writer's `sound_for`.
"""

from collections.abc import Iterator

import numpy as np


class Soundtrack:
    """Cuts of a sound in order."""

    def __init__(self, blocks: Iterator[np.ndarray], start: int = 0) -> None:
        """`blocks`: [n, channels] each, the first of which begins at sample `start` of the sound."""
        self._blocks = blocks
        self._held = next(blocks, None)
        self._start = start  # of what is held, in samples from the beginning

    def between(self, start: int, stop: int) -> np.ndarray:
        """Samples [start, stop) as [n, channels]; fewer, or none, where the sound has ended. Each cut starts at or after the one before."""
        if start < self._start:
            raise ValueError(f"the sound has moved on to sample {self._start}, and {start} was asked for")
        self._drop(start)
        while self._held is not None and self._start + len(self._held) < stop:
            block = next(self._blocks, None)
            if block is None:
                break
            self._held = np.concatenate((self._held, block))
            self._drop(start)
        if self._held is None:
            return np.zeros((0, 1), np.float32)
        return self._held[max(0, start - self._start) : max(0, stop - self._start)]

    def _drop(self, start: int) -> None:
        gone = 0 if self._held is None else min(len(self._held), start - self._start)
        if gone > 0:
            self._held, self._start = self._held[gone:], self._start + gone
