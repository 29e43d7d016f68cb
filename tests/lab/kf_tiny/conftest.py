"""Training's tests run on one thread: their networks are so small that a second one only waits. And their clock counts looks."""

from itertools import count
from types import SimpleNamespace

import pytest
import torch

from lab.kf_tiny import audio_pretrain as hearing
from lab.kf_tiny import clip_training, student

SECONDS_A_LOOK = 0.2


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A budget is minutes of a clock. On this one every look takes as long, so a run takes as many steps on every machine."""
    looks = count()
    for module in (clip_training, hearing, student):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: SECONDS_A_LOOK * next(looks)))
