"""What is done beside the denoising: one task at a time, on a thread of its own, while the caller denoises on.

    caller   denoise 0 | denoise 1          | denoise 2          | ...
    worker          | decode, write 0 | decode, write 1 | ...

Never more than one task is under way, so nothing piles up and memory stays what it is. Knows nothing of what the tasks are.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, Protocol

import torch


class Executor(Protocol):
    """Does tasks, and keeps what came of the last one until it is taken."""

    @property
    def is_busy(self) -> bool:
        """Whether a task was started whose result nobody has taken."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether `take` would answer at once."""
        ...

    def start(self, task: Callable[[], Any]) -> None:
        """Raises ValueError while the result of another task waits to be taken."""
        ...

    def take(self) -> Any:
        """What the task returned, when it is done. Raises what the task raised."""
        ...

    def __enter__(self) -> "Executor": ...

    def __exit__(self, *_) -> None: ...


class InlineExecutor:
    """The caller does its tasks itself, at once."""

    def __init__(self) -> None:
        self._results: list = []

    @property
    def is_busy(self) -> bool:
        return bool(self._results)

    is_done = is_busy

    def start(self, task: Callable[[], Any]) -> None:
        _refuse_second(self)
        self._results.append(task())

    def take(self) -> Any:
        return self._results.pop()

    def __enter__(self) -> "InlineExecutor":
        return self

    def __exit__(self, *_) -> None:
        pass


class BackgroundExecutor:
    """Another thread does them, on a graphics card in a stream of its own; `device` is where what they need was computed.

    Invariants
    - A task sees all that the caller's stream had been given when it was started; what it returns may be used at once.
    - Leaving the `with` block waits for the task under way; its result, or its error, is dropped.
    """

    def __init__(self, device: torch.device | str = "cpu", threads: int | None = None) -> None:
        """`threads`: how many a task may compute with on the CPU; None: as many as the caller."""
        device = torch.device(device)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="knot-forcing-beside")
        self._deed: Future | None = None
        callers = torch.get_num_threads()
        self._pool.submit(_compute_with, threads or callers).result()
        torch.set_num_threads(callers)  # PyTorch gives threads that begin later what was set last, wherever it was set

    @property
    def is_busy(self) -> bool:
        return self._deed is not None

    @property
    def is_done(self) -> bool:
        return self._deed is not None and self._deed.done()

    def start(self, task: Callable[[], Any]) -> None:
        _refuse_second(self)
        is_inference = torch.is_inference_mode_enabled()
        so_far = None if self._stream is None else torch.cuda.current_stream(self._stream.device).record_event()

        def done() -> Any:
            with torch.inference_mode(is_inference), nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
                if self._stream is not None:
                    self._stream.wait_event(so_far)
                result = task()
                if self._stream is not None:
                    self._stream.synchronize()
                return result

        self._deed = self._pool.submit(done)

    def take(self) -> Any:
        if self._deed is None:
            raise ValueError("no task was started")
        task = self._deed
        task.exception()  # waits; who interrupts the waiting finds the task still there
        self._deed = None
        return task.result()

    def __enter__(self) -> "BackgroundExecutor":
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(wait=True)
        self._deed = None


def executor_for(device: torch.device | str, *, decoder_device: torch.device | str | None = None, has_room: bool = True) -> Executor:
    """Beside where two things can be computed at once: on CUDA cards, on two devices, or on cores that the caller leaves idle.

    `has_room`: whether the memory is enough for both at once."""
    if not has_room:
        return InlineExecutor()
    device, other = torch.device(device), torch.device(device if decoder_device is None else decoder_device)
    spare = _cores() - torch.get_num_threads()
    if device.type == "cuda" or other.type != device.type:
        return BackgroundExecutor(device)
    if device.type == "cpu" and spare > 0:
        return BackgroundExecutor(device, threads=min(spare, torch.get_num_threads()))
    return InlineExecutor()


def _compute_with(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.get_num_threads()  # a thread takes its number when it is first needed, and this one must take it now


def _refuse_second(worker: Executor) -> None:
    if worker.is_busy:
        raise ValueError("a task is under way, and what comes of it was not taken")


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
