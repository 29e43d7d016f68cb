"""Draws batches ahead in processes of their own, for a device that is faster than one core cuts and randomises images.

A batch is a pure function of a seed from the training's generator. Without processes it is drawn where it is asked for, and a resumed
training sees exactly what it would have seen; with them, what was drawn ahead when it stopped is lost.
"""

import signal
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from .mix import Batch, BatchKind, Mix

_AHEAD = 3  # batches for every process
_mixes: dict[tuple, Mix] = {}  # of this process, by what they were made of; one at a time


class Feeder:
    """Gives one batch after another; `refresh` takes another recipe and finds new shards."""

    def __init__(self, folder: Path, choose: Callable[[], tuple[int, BatchKind]], processes: int = 0) -> None:
        """`choose` draws the seed and the kind of the next batch."""
        self.folder, self.choose, self.round = folder, choose, 0
        self.pool = ProcessPoolExecutor(processes, get_context("spawn"), _begin) if processes else None
        self.ahead: deque[Future] = deque()
        self.most = _AHEAD * processes

    def refresh(self, shares: dict[str, float], strength: float) -> dict[str, int]:
        """Draw by these shares from now on, of the shards that are there now; returns how many clips there are of each."""
        self.round += 1
        self.how = (self.folder, tuple(shares.items()), strength, self.round)
        return _mix(*self.how).describe()

    def next(self) -> Batch:
        if self.pool is None:
            return _draw(self.how, *self.choose())
        while len(self.ahead) < self.most:
            self.ahead.append(self.pool.submit(_draw, self.how, *self.choose()))
        return self.ahead.popleft().result()

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """The training is told to stop, and ends its processes itself; `timeout` and a terminal tell them all."""
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, signal.SIG_IGN)
    torch.set_num_threads(1)


def _draw(how: tuple, seed: int, kind: BatchKind) -> Batch:
    return _mix(*how).draw(kind, np.random.default_rng(seed))


def _mix(folder: Path, shares: tuple, strength: float, made_in_round: int) -> Mix:
    key = (folder, shares, strength, made_in_round)
    if key not in _mixes:
        _mixes.clear()
        _mixes[key] = Mix(folder, dict(shares), strength)
    return _mixes[key]
