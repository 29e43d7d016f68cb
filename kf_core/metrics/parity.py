"""How far what is drawn faster is from what the plain forward draws: the first latents of a stream, from the same noise.

Long enough that every way to fill the window was met, so a shape that is compiled, captured or rounded otherwise is seen, too.
"""

from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from ..session.stream import Stream
from ..types import LatentChunk


def as_plain(stream: Stream) -> Stream:
    """The same stream under the plain forward."""
    return replace(stream, model=stream.model.plain())


def first_latents(stream: Stream, most: int) -> Tensor:
    """Until the window is full and a chunk later, `most` chunks at most, on the CPU: [b, c, f, h, w]."""
    settings = stream.settings
    full = 1 if settings.window is None else settings.chunk_of(settings.past) + 2
    drawn = (item.latents for item in stream.steps() if isinstance(item, LatentChunk))
    return torch.cat([latents.float().cpu() for latents in islice(drawn, min(full, most))], dim=2)


def difference(found: Tensor, exact: Tensor) -> dict[str, float]:
    """Of latents [b, c, f, h, w]: the largest difference over the largest value, and root mean square over root mean square."""
    off = found - exact
    largest = float(off.abs().max() / exact.abs().max())
    return {"frames": exact.shape[2], "largest": largest, "root_mean_square": float(off.norm() / exact.norm())}
