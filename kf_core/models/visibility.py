"""Who may see whom: stated once. The training mask is made from it, and the cache is tested against it.

Every frame sees the anchor; the anchor sees only itself. A denoised frame sees all frames of its own chunk, the pinned frames
and the last committed ones that fit into the window. Source: Knot Forcing, arXiv 2512.21734, framework figure.
"""

import torch
from torch import Tensor

from ..settings import RolloutSettings
from ..timeline import LatentSpan


def visible(query_frame: int, key_frame: int, settings: RolloutSettings, *, committing: bool = False) -> bool:
    """May the pass that denoises `query_frame` in order to output it read `key_frame`?

    Frames of the same chunk always see each other, and the knot beyond them, which is denoised along; `committing`, they are alone."""
    own = settings.output_span(settings.chunk_of(query_frame))
    if own.start <= key_frame < own.stop + (0 if committing else settings.knot_length):
        return True
    return key_frame in committed_in_view(own.start, settings)


def committed_in_view(start: int, settings: RolloutSettings) -> set[int]:
    """The committed frames that a chunk starting at frame `start` reads: the pinned ones and the last that fit the window."""
    pinned = range(min(settings.pinned, start))
    window = range(max(settings.pinned, start - settings.past), start)
    return {*pinned, *window}


def training_mask(past: LatentSpan, current: LatentSpan, settings: RolloutSettings) -> Tensor:
    """Frames [anchor | past | current] as rows and columns: True where the row's frame sees the column's: [f, f] bool.

    `current` is what one chunk denoises, its knot included; `past` are committed frames before it, each seen as in its own chunk.
    Without an anchor in the settings nothing sees the first column but itself."""
    if past.stop != current.start:
        raise ValueError(f"the past {past} does not end where the current chunk {current} begins")
    frames = [*past, *current]
    mask = torch.zeros(1 + len(frames), 1 + len(frames), dtype=torch.bool)
    mask[:, 0] = settings.anchor is not None
    mask[0, 0] = True
    for row, query in enumerate(frames, start=1):
        for column, key in enumerate(frames, start=1):
            if query < current.start:  # committed: it was denoised before anything of `current` existed
                mask[row, column] = key < current.start and visible(query, key, settings, committing=True)
            else:
                mask[row, column] = key >= current.start or visible(current.start, key, settings)
    return mask
