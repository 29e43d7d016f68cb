"""Is it still the same person? Likeness of the face, and of the colours, to the portrait.

cosine: of the reader's embeddings of a frame and of the portrait, -1..1. On held-out faces two moments of one face give .98 (lowest of
1,120 pairs: .90) and two faces .0 (highest of 1,560: .74). palette: the mean absolute difference, 0..1, of the mean colours in five fixed
regions (backdrop left and right, hair, middle of the face, clothes) between frame and portrait; a turning head alone gives a few
hundredths. Source: our own measures; the embedding is `reader.py`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .frames import Video, feed
from .reader import PortraitReader

# left, top, right, bottom, of the frame's width and height
REGIONS = ((0.0, 0.25, 0.1, 0.6), (0.9, 0.25, 1.0, 0.6), (0.35, 0.06, 0.65, 0.18), (0.38, 0.52, 0.62, 0.62), (0.25, 0.92, 0.75, 1.0))


@dataclass(frozen=True, kw_only=True)
class IdentityResult:
    cosine: float  # mean over the video
    lowest: float  # of any frame
    last_fifth: float
    palette: float  # mean over the video, 0..1
    palette_last_fifth: float


class Identity:
    def __init__(self, reader: PortraitReader, portrait: Tensor) -> None:
        """`portrait`: [h, w, 3] RGB 0..1, of any size."""
        self._reader = reader
        self._embedding = reader.read(portrait[None]).embedding[0]
        self._palette = palette(portrait[None])[0]
        self._cosines: list[Tensor] = []
        self._differences: list[Tensor] = []

    def add(self, frames: Tensor, truth: Tensor | None = None) -> None:
        self._cosines.append(self._reader.read(frames).embedding @ self._embedding)
        self._differences.append((palette(frames) - self._palette).abs().mean((1, 2)))

    def result(self) -> IdentityResult:
        cosine, difference = torch.cat(self._cosines), torch.cat(self._differences)
        fifth = max(1, len(cosine) // 5)
        return IdentityResult(
            cosine=cosine.mean().item(),
            lowest=cosine.min().item(),
            last_fifth=cosine[-fifth:].mean().item(),
            palette=difference.mean().item(),
            palette_last_fifth=difference[-fifth:].mean().item(),
        )


def identity(video: Video, reader: PortraitReader, portrait: Tensor) -> IdentityResult:
    meter = Identity(reader, portrait)
    feed([meter], video)
    return meter.result()


def verification_auc(own: Tensor, others: Tensor) -> float:
    """The chance that a frame is closer to its own portrait than one of somebody else is to it (Mann-Whitney): 0.5 is guessing.

    `own` [n] and `others` [m] are cosines."""
    ranks = torch.cat((own, others)).double().argsort().argsort().double() + 1
    return ((ranks[: len(own)].sum() - len(own) * (len(own) + 1) / 2) / (len(own) * len(others))).item()


def palette(frames: Tensor) -> Tensor:
    """Mean colours of the five regions: [f, h, w, 3] -> [f, 5, 3]."""
    height, width = frames.shape[1:3]
    means = []
    for left, top, right, bottom in REGIONS:
        rows = slice(int(top * height), max(int(top * height) + 1, round(bottom * height)))
        columns = slice(int(left * width), max(int(left * width) + 1, round(right * width)))
        means.append(frames[:, rows, columns].mean((1, 2)))
    return torch.stack(means, 1)
