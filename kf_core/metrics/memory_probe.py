"""What a stream holds after each chunk, to the byte: the numbers in tensors on its device.

A card's allocator counts them. On a CPU nothing does, so they are counted as they come and go, which is slow, and exact just the same.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import islice

import torch

from ..planning.memory import Alive
from ..session.stream import Stream, StreamState
from ..types import FrameChunk


def held_after_chunks(stream: Stream, chunks: int, progress: Callable[[int], object] = lambda held: None) -> list[int]:
    """Bytes after each of so many chunks, drawn and decoded in turn: weights included on a card, left out on a CPU."""
    device, found = stream.model.device, []
    networks = (stream.model.modules, stream.model.adapters, stream.decoder.vae)
    weights = [tensor for network in networks if network is not None for tensor in (*network.parameters(), *network.buffers())]
    alive = None if device.type == "cuda" else Alive([*weights, stream.anchor.latent], device)
    with nullcontext() if alive is None else alive:
        state = StreamState.start(stream)
        whole = (item.index for item in stream.steps(state) if isinstance(item, FrameChunk) and state.is_whole)
        for _ in islice(whole, chunks):
            found.append(torch.cuda.memory_allocated(device) if alive is None else alive.bytes)
            progress(found[-1])
    return found


def last_change(held: Sequence[int]) -> int:
    """The last chunk, counted from 1, after which something else was held than after the one before; 1 where that never was."""
    return max((index + 1 for index in range(1, len(held)) if held[index] != held[index - 1]), default=1)
