"""Batches out of shards: which worlds in which shares, cut, mirrored and with a randomised image.

The mix is a part of the recipe; a new one finds new shards, so a training that runs is fed with new data (feeder.py). Everything random
comes from the generator that is handed in.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .image import cut_photograph, randomise
from .shards import Shard, feature_boxes, find_shards


@dataclass(frozen=True)
class BatchKind:
    """One kind of step: so many clips of so many frames, cut to `side` pixels, in `share` of the steps."""

    share: float
    frames: int
    clips: int
    side: int


@dataclass(frozen=True, eq=False)
class Batch:
    frames: Tensor  # [b, 3, f, h, w] RGB 0..1
    features: Tensor  # [b, 1, f, h, w] 1 in the boxes of eyes and mouth, where they are labelled


class Mix:
    """Draws batches from the shards of a folder; `shares` maps patterns of file names to shares of the clips."""

    def __init__(self, folder: Path, shares: dict[str, float], strength: float = 0.7) -> None:
        """Worlds without any shard are left out, their share goes to the others. `strength`: of the image's randomisation."""
        self.shares, self.strength = shares, strength
        self.shards: dict[str, list[tuple[Shard, tuple[int, ...]]]] = {}
        self.photographs: list[np.ndarray] = []
        for pattern in shares:
            for shard in find_shards(folder, pattern):
                if shard.world == "photographs":
                    self.photographs += list(shard.all().values())
                else:
                    self.shards.setdefault(pattern, []).append((shard, shard.shape()))
        if not self.shards and not self.photographs:
            raise ValueError(f"no shard in {folder} fits any of {list(shares)}")

    def describe(self) -> dict[str, int]:
        """How many clips there are for each pattern, and how many photographs."""
        return {pattern: sum(shape[0] for _, shape in found) for pattern, found in self.shards.items()} | {
            "photographs": len(self.photographs)
        }

    def draw(self, kind: BatchKind, rng: np.random.Generator) -> Batch:
        """A batch of one kind of step."""
        drawn = [self._clip(kind, rng) for _ in range(kind.clips)]
        return Batch(torch.stack([frames for frames, _ in drawn]), torch.stack([features for _, features in drawn]))

    def _clip(self, kind: BatchKind, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        usable = {pattern: self._long_enough(pattern, kind.frames) for pattern in self.shares}
        usable = {pattern: found for pattern, found in usable.items() if found}
        weights = np.array([self.shares[pattern] for pattern in usable])
        chosen = usable[list(usable)[rng.choice(len(usable), p=weights / weights.sum())]]
        if chosen is self.photographs:
            frames, features = self._pan(kind, rng), np.zeros((kind.frames, kind.side, kind.side), np.float32)
        else:
            frames, features = self._cut(kind, chosen, rng)
        frames = torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 255
        features = torch.from_numpy(features)[None]
        if rng.random() < 0.5:
            frames, features = frames.flip(-1), features.flip(-1)
        return randomise(frames, rng, self.strength), features

    def _long_enough(self, pattern: str, frames: int) -> list:
        if pattern not in self.shards:
            return self.photographs if self.photographs and pattern.startswith("photographs") else []
        return [(shard, shape) for shard, shape in self.shards[pattern] if shape[1] >= frames]

    def _pan(self, kind: BatchKind, rng: np.random.Generator) -> np.ndarray:
        """A cut of a photograph, or a window that glides over one: [f, h, w, 3]."""
        photograph = self.photographs[rng.integers(len(self.photographs))]
        if kind.frames == 1:
            return cut_photograph(photograph, kind.side, rng)[None]
        room = int(rng.integers(0, kind.side // 4 + 1))
        square = cut_photograph(photograph, kind.side + room, rng)
        start, end = rng.integers(0, room + 1, (2, 2))
        places = np.linspace(start, end, kind.frames).round().astype(int)
        return np.stack([square[y : y + kind.side, x : x + kind.side] for y, x in places])

    def _cut(self, kind: BatchKind, shards: list[tuple[Shard, tuple[int, ...]]], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A run of frames of one clip, cut at random, more often where eyes and mouth are: frames [f, h, w, 3], features [f, h, w]."""
        counts = np.array([shape[0] for _, shape in shards])
        shard, (clips, length, height, width, _) = shards[rng.choice(len(shards), p=counts / counts.sum())]
        clip, start = int(rng.integers(clips)), int(rng.integers(length - kind.frames + 1))
        frames = shard.clip(clip, start, kind.frames)
        boxes = np.concatenate(feature_boxes(shard.clip(clip, start, kind.frames, "points"), shard.about["points"]), 1)  # [f, 3, 4]
        side = min(kind.side, height, width)
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        if rng.random() < 0.6:
            centre = (boxes[..., :2] + boxes[..., 2:]).mean((0, 1)) / 2 + rng.normal(0, side / 6, 2)
            left, top = (int(np.clip(c - side / 2, 0, extent - side)) for c, extent in zip(centre, (width, height), strict=True))
        x, y = np.arange(left, left + side) + 0.5, np.arange(top, top + side) + 0.5
        across = (x > boxes[..., :1]) & (x < boxes[..., 2:3])
        down = (y > boxes[..., 1:2]) & (y < boxes[..., 3:])
        features = (down[..., :, None] & across[..., None, :]).any(1).astype(np.float32)
        return frames[:, top : top + side, left : left + side], features
