"""What is held, counted to the byte: numbers in tensors, and in whatever Python and numpy have allocated.

Not what the process takes of the machine's memory: that moves with the allocator, the instruction set and the neighbours.
"""

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def tensor_bytes() -> int:
    """In all tensors that are alive in this process; numbers that several of them share count once."""
    gc.collect()
    alive = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    tensors = [tensor for tensor in alive if tensor.device.type == "cpu" and tensor.layout == torch.strided]  # others have no storage
    return sum({storage._cdata: storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}.values())


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Inside, what is given says how many bytes are held: in tensors, and in what was allocated by Python and numpy since the beginning."""
    tracemalloc.start()
    try:
        yield lambda: tensor_bytes() + tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
