import pytest
import torch

from kf_core.evaluation.speed import ChunkTime, Speed, machine, measure
from kf_core.timeline import pixel_frames

from ..test_stream import speech, stream  # noqa: F401  a fixture


def test_a_run_is_timed_chunk_by_chunk(stream):  # noqa: F811
    seen = []
    speed = measure(stream, 2, seen.append)
    assert list(speed.chunks) == seen and [c.pictures for c in seen] == [pixel_frames(3), 12]
    assert all(c.drawing > 0 and c.decoding > 0 and c.memory > 0 for c in seen)
    assert 0 < speed.first_picture < sum(c.seconds for c in seen) + 5
    assert f"{speed.pictures_per_second:.1f} pictures a second" in speed.summary()


def test_speed_growth_and_slowdown_are_exact():
    chunks = [ChunkTime(9, 5.0, 5.0, 100)] + [ChunkTime(12, 0.4, 0.2, 1000)] * 150 + [ChunkTime(12, 0.6, 0.6, 1500)] * 150
    speed = Speed(tuple(chunks), first_picture=10.0, fps=16)
    assert round(speed.pictures_per_second, 6) == round(300 * 12 / (150 * 0.6 + 150 * 1.2), 6)
    assert speed.growth == 500 and speed.slowdown == pytest.approx(2)
    assert Speed(tuple(chunks[:3]), 1.0, 16).growth is None and Speed(tuple(chunks[:50]), 1.0, 16).slowdown is None


def test_the_machine_is_named():
    assert torch.__version__ in machine() and "threads" in machine()
