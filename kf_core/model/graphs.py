"""CUDA graphs: a pass of the hot path becomes one launch, where the host had to launch more than a thousand kernels.

Wanted where the card waits for the host: small frames, few steps, fast cards. What is recorded, and when it is recorded anew, is
`recordings.py`'s and `hot_path.py`'s; here is how a card does it, and who may ask for it. A pass that cannot be recorded runs as
before, and a sentence says so: there is never an error in the middle of a film. Source: PyTorch, "CUDA semantics", CUDA Graphs.

The part that only a card can run (`CudaGraphs`) was written from PyTorch's documentation and source, and never ran on one.
"""

from contextlib import suppress
from functools import partial

import torch

from .hot_path import HotGenerator
from .recordings import Deed

OWN = (torch.nn.__name__, __name__.rpartition(".")[0])  # whose modules leave their weights where they are


def record_passes(generator: HotGenerator, *, has_room: bool = True) -> str:
    """Records the generator's passes as CUDA graphs from now on. A sentence says what will be, or why it is not.

    `has_room`: whether the card has room for what a pass takes beside all that else is done on it: recorded passes keep it."""
    if (reason := _missing(generator, has_room)) is not None:
        return f"No CUDA graphs are recorded: {reason}. Passes run as they are."
    generator.recorder = partial(CudaGraphs, generator.device)
    return "Passes are recorded as CUDA graphs the second time that they run, once for each stream and each fill of its window."


class CudaGraphs:
    """Records on a stream of its own, into memory that all of its graphs share, because no two are repeated at once.

    Another thread may use the card meanwhile: frames are made beside the denoising."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
        self._failed: list[torch.cuda.CUDAGraph] = []

    def rehearse(self, deed: Deed) -> None:
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            deed()
        here.wait_stream(self._stream)

    def record(self, deed: Deed) -> Deed:
        graph = torch.cuda.CUDAGraph()
        here = torch.cuda.current_stream(self._device)
        try:
            with torch.cuda.device(self._device), torch.cuda.stream(here):  # `graph` does not come back to it when it fails
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                    deed()
        except RuntimeError:
            self._failed.append(graph)  # the allocator may ask it, until it is told that nothing is recorded any more
            raise
        return graph.replay

    def close(self) -> None:
        """After a recording that failed PyTorch keeps its memory for ever, and up to 2.12.0 believes that it still goes on, so that the
        next `empty_cache` is an error. To be left to `CUDAGraph.reset` when it does this itself (PyTorch's pull request 190308)."""
        for graph in self._failed:
            released = _is_whole(graph)
            with suppress(RuntimeError):
                graph.reset()
            for undo in () if released else ("_cuda_endAllocateToPool", "_cuda_releasePool"):
                with suppress(RuntimeError, AttributeError):
                    getattr(torch._C, undo)(self._stream.device_index, self._pool)
        if self._failed:
            self._failed.clear()
            with suppress(RuntimeError):
                torch.cuda.empty_cache()


def _is_whole(graph: torch.cuda.CUDAGraph) -> bool:
    """Was all of it recorded, so that what failed came after, and its memory is its own to release?"""
    try:
        graph.pool()
    except RuntimeError:
        return False
    return True


def _missing(generator: HotGenerator, has_room: bool) -> str | None:
    """Why nothing can be recorded here, found out by recording a trifle; None where it can."""
    foreign = {type(module) for module in generator.modules.modules() if not type(module).__module__.startswith(OWN)}
    if foreign:
        return f"the layers are a host's ({min(kind.__name__ for kind in foreign)}), which may move their weights when they are called"
    if generator.device.type != "cuda":
        return f"they need an NVIDIA or AMD card, and this runs on {generator.device}"
    if not has_room:
        return "they keep the memory of a pass, and this card needs it to make frames of what was denoised"
    recorder, x = CudaGraphs(generator.device), torch.zeros(8, device=generator.device)
    try:
        recorder.rehearse(lambda: x.add_(1))
        repeat = recorder.record(lambda: x.add_(1))
        repeat()
    except RuntimeError as problem:
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
    else:
        return None if x.tolist() == [2.0] * 8 else "what was recorded gave another result"
    recorder.close()
    return f"{generator.device} cannot ({reason[:120]})"
