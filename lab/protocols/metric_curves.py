"""Measures against time: how the face, its colours and its detail stand in each part of a long video.

A video is cut into equal parts; each has the mean of what `identity`, `sharpness` and `drift` measure over its frames. Frames are not
kept, a few numbers for each are. Source: the drift figures of Self-Forcing and Knot Forcing (arXiv 2512.21734).
"""

import torch
from torch import Tensor

from kf_core.metrics.identity import palette
from kf_core.metrics.reader import OneReading, PortraitReader
from kf_core.metrics.sharpness import gradient

PARTS = 20
COURSES = {
    "identity cosine": "to the portrait",
    "palette error": "RGB 0..1, against the portrait",
    "sharpness against truth": "1 is as sharp",
    "colour from truth": "mean colour, RGB 0..1",
    "motion": "mean difference of neighbours, 0..255",
}


class Course:
    """`portrait`: [h, w, 3] RGB 0..1; `num_frames`: how long the video will be."""

    def __init__(self, reader: PortraitReader | OneReading, portrait: Tensor, num_frames: int, parts: int = PARTS) -> None:
        self._reader, self._num_frames, self._parts = reader, num_frames, parts
        self._embedding = reader.read(portrait[None]).embedding[0]
        self._palette = palette(portrait[None])[0]
        self._last: Tensor | None = None
        self._numbers: list[Tensor] = []  # [f, 10]

    def add(self, frames: Tensor, truth: Tensor | None = None) -> None:
        if truth is None:
            raise ValueError("the course of a video needs the truth")
        before = frames[:1] if self._last is None else self._last
        numbers = (
            self._reader.read(frames).embedding @ self._embedding,
            (palette(frames) - self._palette).abs().mean((1, 2)),
            gradient(frames),
            gradient(truth),
            *frames.mean((1, 2)).unbind(1),
            *truth.mean((1, 2)).unbind(1),
            255 * (frames - torch.cat((before, frames[:-1]))).abs().mean((1, 2, 3)),
        )
        self._numbers.append(torch.stack([number.double() for number in numbers], 1))
        self._last = frames[-1:].clone()

    def result(self) -> dict[str, list[float]]:
        """A list of one number per part for each of COURSES; a part without frames is left out."""
        numbers = torch.cat(self._numbers)
        part = (torch.arange(len(numbers)) * self._parts / max(self._num_frames, len(numbers))).long()
        means = [numbers[part == index].mean(0) for index in range(self._parts) if (part == index).any()]
        return {
            "identity cosine": [mean[0].item() for mean in means],
            "palette error": [mean[1].item() for mean in means],
            "sharpness against truth": [(mean[2] / mean[3].clamp(min=1e-9)).item() for mean in means],
            "colour from truth": [(mean[4:7] - mean[7:10]).abs().max().item() for mean in means],
            "motion": [mean[10].item() for mean in means],
        }
