"""A recorder that works as a card's does, on a CPU: it writes down operations with the very tensors they were done on, and does them again.

Numbers of the host's are written down with them. What an operation made anew is filled with nonsense after each time, as if it had been
given to somebody else. Asking a tensor for its number, or drawing at random, cannot be recorded.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

Deed = Callable[[], object]
UNRECORDABLE = {torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.normal_, torch.ops.aten.randn}


class Tape:
    """Records deeds on a CPU. Counts what it was asked, and may be told to fail."""

    rehearsed = recorded = repeated = closed = 0

    def __init__(self, fails: Callable[[int], bool] = lambda recorded: False) -> None:
        self._fails = fails

    def rehearse(self, deed: Deed) -> None:
        self.rehearsed += 1
        deed()

    def record(self, deed: Deed) -> Deed:
        if self._fails(self.recorded):
            raise RuntimeError("operation not permitted when stream is capturing\nCompile with TORCH_USE_CUDA_DSA")
        with Operations() as seen:
            deed()
        self.recorded += 1

        def repeat() -> None:
            self.repeated += 1
            seen.repeat()

        seen.spoil()
        return repeat

    def close(self) -> None:
        self.closed += 1


class Again:
    """Records nothing and does the deed once more: for what a tape cannot see into (compiled blocks)."""

    def rehearse(self, deed: Deed) -> None:
        deed()

    def record(self, deed: Deed) -> Deed:
        return deed

    def close(self) -> None:
        pass


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._seen: list[tuple[Callable, tuple, dict, list[tuple[int, Tensor]]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in UNRECORDABLE:
            raise RuntimeError(f"{func} cannot be recorded")
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        owned = {t.untyped_storage().data_ptr() for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)}
        outs = [(i, t) for i, t in enumerate(tree_flatten(made)[0]) if isinstance(t, Tensor)]
        new = [(i, t) for i, t in outs if t.untyped_storage().data_ptr() not in owned]
        writes = func._schema.is_mutable
        if new or writes:  # a view has nothing to be done
            self._seen.append((func, args, kwargs, new))
        return made

    @torch.inference_mode()  # where any tensor may be written to, as a card may
    def repeat(self) -> None:
        for func, args, kwargs, new in self._seen:
            made = tree_flatten(func(*args, **kwargs))[0]
            for i, place in new:
                place.copy_(made[i])
        self.spoil()

    @torch.inference_mode()
    def spoil(self) -> None:
        for *_, new in self._seen:
            for _, place in new:
                place.fill_(float("nan") if place.is_floating_point() or place.is_complex() else 85)
