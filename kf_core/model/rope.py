"""Places tokens in time, height and width by rotating queries and keys (RoPE in three axes).

Angles are computed in float64 and applied in float32 or better, so any position is exact: no table of 1024 positions.
Source: Wan 2.1, `rope_params` and `rope_apply`: the head is split 44/42/42 (at 128), pairs are interleaved.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

THETA = 10000.0


@dataclass(frozen=True)
class Grid:
    """The patches of one latent frame."""

    height: int
    width: int

    @property
    def tokens(self) -> int:
        return self.height * self.width


@dataclass(frozen=True)
class Rotation:
    """Where some tokens stand, as angles."""

    cos: Tensor  # [t, d/2] or [b, 1, t, d/2]
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Turn `x` [b, n, t, d] to where its tokens stand."""
        pairs = x.to(self.cos.dtype).unflatten(-1, (-1, 2))
        even, odd = pairs.unbind(-1)
        turned = torch.stack((even * self.cos - odd * self.sin, even * self.sin + odd * self.cos), dim=-1)
        return turned.flatten(-2).to(x.dtype)


def rotation(
    positions: Tensor, grid: Grid, head_dim: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Rotation:
    """The angles of frames at `positions` ([f], or [b, f] where samples differ), `grid.tokens` tokens each.

    Computed on the CPU, because not every device has float64 (Apple's has not). An axis at a time: a token's row of angles is its
    frame's, its row's and its column's side by side, so few numbers are computed and sent, whatever the size of the picture."""
    dtype = torch.promote_types(dtype, torch.float32)
    places = (positions.cpu().double(), torch.arange(grid.height, dtype=torch.float64), torch.arange(grid.width, dtype=torch.float64))
    angles = [place[..., None] * frequency for place, frequency in zip(places, _frequencies(head_dim), strict=True)]

    def every_token(in_time: Tensor, in_height: Tensor, in_width: Tensor) -> Tensor:
        tokens = (*in_time.shape[:-1], grid.height, grid.width, -1)
        sides = (in_time[..., None, None, :].expand(tokens), in_height[:, None].expand(tokens), in_width.expand(tokens))
        rows = rearrange(torch.cat(sides, dim=-1), "... f h w d -> ... (f h w) d")
        return rows if positions.dim() == 1 else rows[:, None]

    return Rotation(
        every_token(*(send(axis.cos(), device, dtype) for axis in angles)),
        every_token(*(send(axis.sin(), device, dtype) for axis in angles)),
    )


def send(tensor: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """The tensor there, in that type. The host does not wait for a GPU to take it, so what was asked of it before may still be running."""
    tensor, device = tensor.to(dtype), torch.device(device)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _frequencies(head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Radians per position along time, height and width, one for each pair of channels (float64)."""
    space = 2 * (head_dim // 6)
    widths = (head_dim - 2 * space, space, space)
    return tuple(THETA ** -(torch.arange(0, n, 2, dtype=torch.float64) / n) for n in widths)
