"""What is trained on lies in shards: frames in a safetensors file, and what is known of them in a JSON file of the same name.

    heads-0001.safetensors   frames  uint8 [clips, frames, height, width, 3]
                             points  float32 [clips, frames, points, 2]   x y in pixels; of point k: names["points"][k]
                             ...     float32 [clips, frames, ...]         further labels (world's own)
    heads-0001.json          {"world": "heads", "licence": ..., "points": [names], ...}

Photographs are of many sizes: a shard of world `photographs` holds one tensor [height, width, 3] for each, by its name.
A shard is whole or not there at all: both files are written under other names first, the JSON last.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

EYES = ("left_eye", "right_eye")  # the person's own left and right
MOUTH = ("upper_teeth", "lower_teeth", "mouth", "upper_lip", "lower_lip")  # the mean of those that are labelled is its middle


@dataclass(frozen=True)
class Shard:
    """One shard, read where it is needed; holds no frames."""

    path: Path
    about: dict

    @property
    def world(self) -> str:
        return self.about["world"]

    def shape(self) -> tuple[int, ...]:
        """[clips, frames, height, width, 3] of its frames."""
        with safe_open(self.path, "numpy") as file:
            return tuple(file.get_slice("frames").get_shape())

    def clip(self, clip: int, start: int, frames: int, name: str = "frames") -> np.ndarray:
        """`frames` frames of one clip from `start` on, or what is known of them under another `name`."""
        with safe_open(self.path, "numpy") as file:
            return file.get_slice(name)[clip, start : start + frames]

    def all(self) -> dict[str, np.ndarray]:
        """Every tensor, by name."""
        with safe_open(self.path, "numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}


def write_shard(path: Path, tensors: dict[str, np.ndarray], about: dict) -> Shard:
    """Write a shard at `path` (ending in .safetensors); `about` must name the `world`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = dict(about, world=about["world"])
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, part := path.with_suffix(".part"))
    os.replace(part, path)
    (part := path.with_suffix(".json-part")).write_text(json.dumps(about, indent=1, ensure_ascii=False))
    os.replace(part, path.with_suffix(".json"))
    return Shard(path, about)


def find_shards(folder: Path, pattern: str = "*") -> list[Shard]:
    """The whole shards of a folder whose names fit the pattern, in the order of their names."""
    found = sorted(folder.glob(pattern + ".safetensors"))
    return [Shard(path, json.loads(path.with_suffix(".json").read_text())) for path in found if path.with_suffix(".json").exists()]


def feature_boxes(points: np.ndarray, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes round the eyes and the mouth from labelled points [f, k, 2]: [f, 2, 4] and [f, 1, 4], left top right bottom in pixels.

    Sized by the distance between the eyes, seen from the side by what is left of it."""
    eyes = np.stack([points[:, names.index(name)] for name in EYES], 1)
    mouth = np.mean([points[:, names.index(name)] for name in MOUTH if name in names], 0)
    apart = np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=-1)
    down = np.linalg.norm(mouth - eyes.mean(1), axis=-1)
    unit = np.maximum(apart, 0.8 * down)[:, None, None]

    def box(centres, half_width, half_height):
        return np.concatenate((centres - unit * [half_width, half_height], centres + unit * [half_width, half_height]), -1)

    return box(eyes, 0.34, 0.26), box(mouth[:, None], 0.55, 0.42)
