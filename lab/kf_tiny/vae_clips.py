"""What the autoencoder is shown: freshly drawn portraits that babble, and cuts of them. Nothing is kept on disk."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from kf_core.vae.wan import SPATIAL_STRIDE

from .drawing import render
from .portraits import Split, sample_identities, sample_motion

HELD_OUT_SEED = 1_000_003


@dataclass(frozen=True, eq=False)
class Clips:
    """Drawn frames and where the features are that a portrait lives by."""

    frames: Tensor  # [b, 3, f, h, w] RGB 0..1
    mouth: Tensor  # [b, 1, f, h, w] 1 inside the mouth's box
    eyes: Tensor  # [b, 1, f, h, w]


def draw(
    clips: int, frames: int, size: int, generator: torch.Generator, split: Split = "train", device: torch.device | str = "cpu"
) -> Clips:
    """Fresh portraits, babbling, with heads from still to lively; drawn on `device`, by chance that is the CPU's."""
    motion = sample_motion(clips, frames, generator, strength=None)
    drawn = render(sample_identities(clips, generator, split), motion, size, device)
    mouth = _inside(drawn.mouth_box[:, :, None], size)
    eyes = _inside(drawn.eye_boxes, size)
    return Clips(rearrange(drawn.frames, "b f c h w -> b c f h w"), mouth, eyes)


def cut(clips: Clips, share: float, generator: torch.Generator, mouths: bool = False) -> Clips:
    """The same random square of every clip, a multiple of 8 pixels wide; `mouths`: somewhere around where their mouths are."""
    size = clips.frames.shape[-1]
    side = min(size, round(size * share / SPATIAL_STRIDE) * SPATIAL_STRIDE)
    top, left = (int(torch.randint(size - side + 1, (), generator=generator)) for _ in range(2))
    if mouths:
        density = clips.mouth.mean((0, 1, 2))  # [h, w]
        centre = [(density.sum(1 - axis) @ torch.arange(size, device=density.device).float() / density.sum()).item() for axis in (0, 1)]
        shift = torch.randint(-side // 4, side // 4 + 1, (2,), generator=generator).tolist()
        top, left = (min(max(0, round(c) + s - side // 2), size - side) for c, s in zip(centre, shift, strict=True))
    window = (..., slice(top, top + side), slice(left, left + side))
    return Clips(clips.frames[window].contiguous(memory_format=torch.channels_last_3d), clips.mouth[window], clips.eyes[window])


def _inside(boxes: Tensor, size: int) -> Tensor:
    """Boxes [b, f, k, 4] of left, top, right, bottom in pixels -> 1 inside any of them: [b, 1, f, h, w]."""
    centres = torch.arange(size, device=boxes.device) + 0.5
    left, top, right, bottom = boxes[..., None].unbind(-2)
    across = (centres > left) & (centres < right)
    down = (centres > top) & (centres < bottom)
    return (down[..., :, None] & across[..., None, :]).any(2).float()[:, None]


def held_out(size: int, device: str, clips: int, frames: int, seed: int = HELD_OUT_SEED) -> Iterator[Clips]:
    """Clips of identities that training never draws, four at a time."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(0, clips, 4):
        yield draw(4, frames, size, generator, "held-out", device)
