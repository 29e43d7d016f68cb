"""Today's cartoons in shards: the procedural portraits that kf-tiny 0.6 learned from, babbling (lab/kf_tiny/portraits.py).

python -m lab.cartoons --out shards --seed 1 --clips 40
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from lab.kf_tiny.drawing import render
from lab.kf_tiny.portraits import sample_identities, sample_motion

from .shards import Shard, write_shard

POINTS = ["left_eye", "right_eye", "mouth"]


def draw_shard(path: Path, seed: int, clips: int, frames: int, size: int = 128) -> Shard:
    """Write `clips` clips of `frames` frames, a new face each."""
    generator = torch.Generator().manual_seed(seed)
    drawn = render(sample_identities(clips, generator), sample_motion(clips, frames, generator, strength=None), size)
    eyes = _centres(drawn.eye_boxes)  # [b, f, 2, 2]
    eyes = eyes.gather(2, eyes[..., :1].argsort(2, descending=True).expand(-1, -1, -1, 2))  # the person's left eye is to the right
    points = torch.cat((eyes, _centres(drawn.mouth_box[:, :, None])), 2)
    pixels = (rearrange(drawn.frames, "b f c h w -> b f h w c") * 255).round().clamp(0, 255).byte()
    about = {"world": "cartoons", "licence": "this repository's, Apache-2.0", "seed": seed, "points": POINTS}
    return write_shard(path, {"frames": pixels.numpy(), "points": points.numpy().astype(np.float32)}, about)


def _centres(boxes: Tensor) -> Tensor:
    """Middles of boxes [..., 4] left top right bottom: [..., 2]."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw a shard of today's cartoons.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", type=int, default=128)
    given = parser.parse_args()
    draw_shard(given.out / f"cartoons-{given.seed:04d}.safetensors", given.seed, given.clips, given.frames, given.size)
