"""How visible the seams between chunks are, against the other latent boundaries of the same video.

jump(p) = mean |v(p) - (v(p-1) + v(p+1)) / 2| with v(p) = frame p - frame p-1: what the step onto p has in common with neither of its
neighbours. Steady motion gives 0. It is taken where a latent frame begins (p = 1, 5, 9, ..), because the VAE has a cadence of four there
of its own; ratio = mean jump where a chunk begins / mean jump at the other latent boundaries. 1: a seam cannot be told from a boundary.
To take the VAE out altogether, divide by the ratio of the true clip that went through the VAE (`relative_to`).
Source: our own measure; the knot's purpose in arXiv 2512.21734 is exactly these boundaries.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..timeline import LatentSpan, latent_frames, pixels
from .frames import Video, feed


@dataclass(frozen=True, kw_only=True)
class SeamResult:
    seam: float  # mean jump where a chunk begins, 0..1
    other: float  # mean jump at the other latent boundaries
    num_seams: int

    @property
    def ratio(self) -> float | None:
        """None where nothing moves or there is no seam."""
        return self.seam / self.other if self.num_seams and self.other > 0 else None

    def relative_to(self, codec: "SeamResult") -> float | None:
        return None if self.ratio is None or codec.ratio is None else self.ratio / codec.ratio


class Seams:
    """`chunk` and `first_chunk` are latent frames; all chunks are alike but for the first."""

    def __init__(self, chunk: int = 3, first_chunk: int | None = None) -> None:
        self._chunk, self._first = chunk, chunk if first_chunk is None else first_chunk
        self._recent: Tensor | None = None  # the last three frames
        self._num_frames = 0
        self._jumps: dict[bool, list[float]] = {True: [], False: []}

    def add(self, frames: Tensor, truth: Tensor | None = None) -> None:
        frames = frames if self._recent is None else torch.cat([self._recent, frames])
        first = self._num_frames - (0 if self._recent is None else len(self._recent))  # the number of frames[0]
        self._num_frames = first + len(frames)
        for at in range(2, len(frames) - 1):
            latent = _latent_beginning_at(first + at)
            if latent is not None:
                before, step, after = frames[at - 1] - frames[at - 2], frames[at] - frames[at - 1], frames[at + 1] - frames[at]
                is_seam = latent >= self._first and (latent - self._first) % self._chunk == 0
                self._jumps[is_seam].append((step - (before + after) / 2).abs().mean().item())
        self._recent = frames[-3:]

    def result(self) -> SeamResult:
        def mean(jumps):
            return sum(jumps) / len(jumps) if jumps else 0.0

        return SeamResult(seam=mean(self._jumps[True]), other=mean(self._jumps[False]), num_seams=len(self._jumps[True]))


def seams(video: Video, chunk: int = 3, first_chunk: int | None = None) -> SeamResult:
    meter = Seams(chunk, first_chunk)
    feed([meter], video)
    return meter.result()


def _latent_beginning_at(frame: int) -> int | None:
    """The latent frame whose first frame this is."""
    latent = latent_frames(frame + 1) - 1
    return latent if pixels(LatentSpan(latent, latent + 1)).start == frame else None
