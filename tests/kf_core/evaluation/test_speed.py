import gc
import platform
from dataclasses import replace

import pytest
import torch

from kf_core.evaluation.speed import SETTLED, ChunkTime, Speed, machine, measure
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
    speed = Speed(tuple(chunks), first_picture=10.0, fps=16, held=(900, 1400))
    assert round(speed.pictures_per_second, 6) == round(300 * 12 / (150 * 0.6 + 150 * 1.2), 6)
    assert speed.growth == 500 and speed.slowdown == pytest.approx(2)
    assert Speed(tuple(chunks[:3]), 1.0, 16).growth is None and Speed(tuple(chunks[:50]), 1.0, 16).slowdown is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked for its free pages; run it on Linux")
def test_growth_is_what_a_run_holds_and_not_what_the_allocator_keeps(stream):  # noqa: F811
    kept, between = [], []

    def hold_and_free(_):
        kept.append(torch.ones(2**24))  # 64 MiB a chunk are held ...
        if len(kept) > SETTLED:  # ... and 62 MiB are freed, in pieces that the allocator keeps
            pieces = [torch.ones(2**13) for _ in range(2000)]
            between.extend(pieces[::100])

    gc.collect()  # what earlier tests left is not to be freed in between
    speed = measure(replace(stream, seconds=5.0), 5, hold_and_free)
    assert 112 * 2**20 <= speed.growth < 144 * 2**20 and "memory held" in speed.summary()
    assert measure(stream, 2).growth is None


def test_the_machine_is_named():
    assert torch.__version__ in machine() and "threads" in machine()
