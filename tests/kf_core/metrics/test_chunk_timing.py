"""Laps: frames, times and memory of each chunk, whoever makes the frames and when."""

from kf_core.metrics.chunk_timing import Lap, frames_per_second, laps
from kf_core.session.executor import BackgroundExecutor, InlineExecutor
from kf_core.types import FrameChunk, LatentChunk

from ..session.test_stream import stream  # noqa: F401  a fixture


def test_every_frame_is_in_one_lap(stream):  # noqa: F811
    for worker in (InlineExecutor(), BackgroundExecutor()):
        with worker:
            run = list(laps(stream.steps(worker=worker), held_every=2))
        assert [(lap.chunk, lap.frames) for lap in run] == [(0, 1), (0, 8), (1, 12), (2, 11)]
        assert all(lap.seconds > 0 and lap.resident > 0 and lap.waiting <= 1 for lap in run)
        assert [lap.held is not None for lap in run] == [True, False, False, True]
        assert frames_per_second(run) == 23 / (run[2].seconds + run[3].seconds)


def test_what_piles_up_is_counted(stream):  # noqa: F811
    items = list(stream.steps())
    drawn, made = ([item for item in items if isinstance(item, kind)] for kind in (LatentChunk, FrameChunk))
    assert [lap.waiting for lap in laps([*drawn, *made])] == [3, 2, 2, 1]


def test_the_speed_is_that_of_settled_chunks_and_of_a_single_chunk_its_own():
    first, second = Lap(0, 9, 3.0, 0, 0), Lap(1, 12, 2.0, 0, 0)
    assert frames_per_second([first, second]) == 6 and frames_per_second([first]) == 3
