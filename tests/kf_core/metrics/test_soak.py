"""A long run is kept, read again, summed up and drawn, and nothing of it is made to look better."""

from xml.etree import ElementTree

import pytest

from kf_core.metrics.chunk_timing import Lap
from kf_core.metrics.soak import LongRun, follow

from .test_line_plot import points, texts

MIB = 2**20


def laps(chunks: int, growth: int = 0, slower: float = 0.0) -> tuple[Lap, ...]:
    def held(chunk):
        return 500 * MIB + growth * chunk if chunk % 10 == 0 else None

    return tuple(Lap(chunk, 12, 0.2 + slower * chunk, 1, 600 * MIB, held(chunk)) for chunk in range(chunks))


def test_a_run_is_read_as_it_was_kept():
    run = LongRun({"model": "tiny"}, 16.0, laps(50))
    assert LongRun.from_json(run.to_json()) == run


def test_the_summary_says_what_grew():
    flat, growing = (LongRun({}, 16.0, laps(203, **more)).summary() for more in ({}, {"growth": MIB, "slower": 0.001}))
    assert "2,436 frames (2.5 minutes) in 0.7 minutes: 60.0 a second, 3.75 x real time" in flat
    assert "last tenth over first: 1.000" in flat and "memory held: 500.0 MiB at chunk 10, 500.0 at chunk 200, 500.0 at most" in flat
    assert "memory held: 510.0 MiB at chunk 10, 700.0 at chunk 200, 700.0 at most" in growing and "last tenth over first: 1.8" in growing


def test_the_frame_is_drawn_from_zero_and_names_what_was_run():
    run = LongRun({"command": "bench <&>"}, 16.0, laps(1000, growth=MIB // 100))
    root = ElementTree.fromstring(run.svg())
    words = texts(root)
    assert "12,000 frames in one run" in words and "command: bench <&>" in words
    assert all(len(line) <= 240 for name in ("median, and nine of ten", "the most") for line in points(root, name))
    (held,) = points(root, "held (freed pages given back)")
    assert held[0][1] > held[-1][1], "what grows rises"


def test_a_run_that_is_stopped_is_what_was_run_until_then():
    def stopped():
        yield from laps(5)
        raise KeyboardInterrupt

    assert follow(stopped(), {}, 16.0).frames == 60
    with pytest.raises(KeyboardInterrupt):
        follow((_ for _ in ()).throw(KeyboardInterrupt), {}, 16.0)


def test_a_short_run_has_a_summary_and_a_frame():
    run = LongRun({}, 16.0, laps(5))
    assert "60 frames" in run.summary() and ElementTree.fromstring(run.svg()) is not None
