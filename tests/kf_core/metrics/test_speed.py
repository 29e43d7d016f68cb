from dataclasses import replace
from itertools import count
from time import perf_counter

import pytest
import torch

from kf_core.metrics import speed as speed_measure
from kf_core.metrics.speed import SETTLED, ChunkTime, Speed, machine, measure
from kf_core.timeline import pixel_frames

from ..session.test_stream import speech, stream  # noqa: F401  a fixture


def test_a_run_is_timed_chunk_by_chunk(stream):  # noqa: F811
    seen, began = [], perf_counter()
    speed = measure(stream, 2, seen.append)
    took = perf_counter() - began
    assert list(speed.chunks) == seen and [c.frames for c in seen] == [pixel_frames(3), 12]
    assert all(c.denoising > 0 and c.decoding > 0 and c.memory > 0 for c in seen)
    assert 0 < speed.first_frame <= took and sum(c.seconds for c in seen) <= took
    assert f"{speed.frames_per_second:.1f} frames a second" in speed.summary()


def test_speed_growth_and_slowdown_are_exact():
    chunks = [ChunkTime(9, 5.0, 5.0, 100)] + [ChunkTime(12, 0.4, 0.2, 1000)] * 150 + [ChunkTime(12, 0.6, 0.6, 1500)] * 150
    speed = Speed(tuple(chunks), first_frame=10.0, fps=16, held=(900, 1400))
    assert round(speed.frames_per_second, 6) == round(300 * 12 / (150 * 0.6 + 150 * 1.2), 6)
    assert speed.growth == 500 and speed.slowdown == pytest.approx(2)
    assert Speed(tuple(chunks[:3]), 1.0, 16).growth is None and Speed(tuple(chunks[:50]), 1.0, 16).slowdown is None


def test_growth_is_what_a_run_holds_and_not_what_the_allocator_keeps(stream, monkeypatch):  # noqa: F811
    """`held` gives freed pages back before it looks (test_memory.py); `resident` does not, and is no measure of growth."""
    chunks, noise = [], count(10**9, -(10**7))
    monkeypatch.setattr(speed_measure, "held", lambda: 100 * len(chunks))
    monkeypatch.setattr(speed_measure, "resident", lambda: next(noise))
    speed = measure(replace(stream, seconds=5.0), 5, chunks.append)
    assert (speed.held, speed.growth) == ((100 * SETTLED, 500), 200) and "memory held" in speed.summary()
    assert [chunk.memory for chunk in speed.chunks] == [10**9 - 10**7 * i for i in range(5)]
    assert measure(stream, 2).growth is None


def test_the_machine_is_named():
    assert torch.__version__ in machine() and "threads" in machine()
