"""Places tokens in time, height and width by rotating queries and keys (RoPE in three axes).

Angles are computed in float64 and applied in float32 or better, so any position is exact: no table of 1024 positions.
Source: Wan 2.1, `rope_params` and `rope_apply`: the head is split 44/42/42 (at 128), pairs are interleaved.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..device import to_device

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
    frame's, its row's and its column's side by side, so few are computed and sent, in one piece, whatever the size of the frame."""
    dtype = torch.promote_types(dtype, torch.float32)
    places = (positions.cpu().double(), torch.arange(grid.height, dtype=torch.float64), torch.arange(grid.width, dtype=torch.float64))
    angles = [place[..., None] * frequency for place, frequency in zip(places, _frequencies(head_dim), strict=True)]

    def every_token(in_time: Tensor, in_height: Tensor, in_width: Tensor) -> Tensor:
        tokens = (*in_time.shape[:-1], grid.height, grid.width, -1)
        sides = (in_time[..., None, None, :].expand(tokens), in_height[:, None].expand(tokens), in_width.expand(tokens))
        rows = rearrange(torch.cat(sides, dim=-1), "... f h w d -> ... (f h w) d")
        return rows if positions.dim() == 1 else rows[:, None]

    tables = [*(axis.cos() for axis in angles), *(axis.sin() for axis in angles)]
    sent = to_device(torch.cat([table.flatten() for table in tables]), device, dtype).split([table.numel() for table in tables])
    there = [part.view(table.shape) for part, table in zip(sent, tables, strict=True)]
    return Rotation(every_token(*there[:3]), every_token(*there[3:]))


def _frequencies(head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Radians per position along time, height and width, one for each pair of channels (float64)."""
    space = 2 * (head_dim // 6)
    widths = (head_dim - 2 * space, space, space)
    return tuple(THETA ** -(torch.arange(0, n, 2, dtype=torch.float64) / n) for n in widths)
