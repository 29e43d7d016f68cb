"""Laws of what is done beside the drawing: the same as in turn, one task at a time, nothing lost when it ends early."""

import threading
from contextlib import closing

import pytest
import torch

from kf_core.session.executor import BackgroundExecutor, InlineExecutor, executor_for
from kf_core.session.latent_log import LatentLog
from kf_core.session.stream import StreamState
from kf_core.timeline import pixel_frames
from kf_core.types import FrameChunk, LatentChunk, Step

from .test_stream import frames, stream, whole  # noqa: F401  the same two seconds


def made(items) -> list[FrameChunk]:
    return [item for item in items if isinstance(item, FrameChunk)]


def test_frames_made_beside_the_drawing_are_those_made_in_turn(stream, whole, tmp_path):  # noqa: F811
    with BackgroundExecutor() as worker:
        beside = list(stream.steps(worker=worker))
        spooled = list(stream.steps(spool=LatentLog(tmp_path, "a"), worker=worker))
        again = list(stream.steps(spool=LatentLog(tmp_path, "a"), worker=worker))
    for items in (beside, spooled, again):
        assert torch.equal(frames(made(items)), whole)
    assert [chunk.span for chunk in made(beside)] == [chunk.span for chunk in stream]
    latents = [item.latents for item in beside if isinstance(item, LatentChunk)]
    in_turn = [item.latents for item in stream.steps() if isinstance(item, LatentChunk)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(latents, in_turn, strict=True))


def test_the_next_chunk_is_drawn_while_the_last_one_becomes_frames(stream):  # noqa: F811
    was_drawing = threading.Event()

    def wait_for_the_second_chunk(chunk: FrameChunk) -> None:
        assert chunk.span.start != 1 or was_drawing.wait(timeout=60)

    with BackgroundExecutor() as worker:
        for item in stream.steps(worker=worker, then=wait_for_the_second_chunk):
            if isinstance(item, Step) and item.span.start == 3:
                was_drawing.set()


def test_the_first_frame_is_waited_for_and_the_rest_of_its_chunk_is_not(stream):  # noqa: F811
    go_on = threading.Event()
    with BackgroundExecutor() as worker:
        happening = stream.steps(worker=worker, then=lambda chunk: chunk.span.start == 0 or go_on.wait(timeout=60))
        kinds = [type(next(happening)) for _ in range(5)]
        go_on.set()
        happening.close()
    assert kinds == [Step, Step, LatentChunk, FrameChunk, Step]


def test_no_chunk_is_finished_before_the_frames_of_the_one_before_it_are_handed_out(stream):  # noqa: F811
    handed_out = 0
    with BackgroundExecutor() as worker:
        for item in stream.steps(worker=worker):
            if isinstance(item, FrameChunk):
                handed_out = item.span.stop
            if isinstance(item, LatentChunk):
                assert handed_out == pixel_frames(item.span.start)
    assert handed_out == 32


@pytest.mark.parametrize("stop", [9, 21])
def test_a_state_saved_with_the_frames_in_hand_is_whole_though_the_next_chunk_is_being_drawn(stream, whole, tmp_path, stop):  # noqa: F811
    state, first = StreamState.start(stream), []
    with BackgroundExecutor() as worker, closing(stream.steps(state, worker=worker)) as happening:
        for item in happening:
            if isinstance(item, FrameChunk):
                first.append(item)
                if item.span.stop == stop:
                    assert state.is_whole
                    state.save(tmp_path / "state", stream)
                    break
    again = StreamState.load(tmp_path / "state", stream)
    assert torch.equal(torch.cat((frames(first), frames(stream.frames(again)))), whole)


def test_a_stream_that_is_closed_finishes_the_frames_that_are_being_made(stream, tmp_path):  # noqa: F811
    state, kept = StreamState.start(stream), []
    with BackgroundExecutor() as worker, closing(stream.steps(state, worker=worker, then=kept.append)) as happening:
        for item in happening:
            if isinstance(item, LatentChunk) and item.index == 1:
                break
    assert state.is_whole is False and kept[-1].span.stop == 9  # drawn, and its frames were not begun
    state, kept = StreamState.start(stream), []
    with BackgroundExecutor() as worker, closing(stream.steps(state, worker=worker, then=kept.append)) as happening:
        for item in happening:
            if isinstance(item, Step) and item.span.start == 3:
                break
    assert state.is_whole and state.next_frame == kept[-1].span.stop == 9
    assert not any(thread.name.startswith("knot-forcing-beside") for thread in threading.enumerate())


def test_what_goes_wrong_with_the_frames_is_raised_where_the_stream_is_read(stream):  # noqa: F811
    def refuse_the_second_chunk(chunk: FrameChunk) -> None:
        if chunk.index == 1:
            raise OSError("no space left")

    state, seen = StreamState.start(stream), []
    with BackgroundExecutor() as worker, pytest.raises(OSError, match="no space left"):
        for item in stream.steps(state, worker=worker, then=refuse_the_second_chunk):
            seen.append(item)
    assert made(seen)[-1].span.stop == state.next_frame == 9


def test_no_chunk_is_drawn_beyond_the_frame_that_was_asked_for(stream):  # noqa: F811
    for worker in (InlineExecutor(), BackgroundExecutor()):
        with worker:
            items = list(stream.steps(worker=worker, until=15))
        assert made(items)[-1].span.stop == 21 and max(item.span.start for item in items if isinstance(item, Step)) == 3


def test_one_deed_at_a_time(stream):  # noqa: F811
    for worker in (InlineExecutor(), BackgroundExecutor()):
        with worker:
            assert not worker.is_busy and not worker.is_done
            worker.start(lambda: 1)
            with pytest.raises(ValueError, match="a task is under way"):
                worker.start(lambda: 2)
            assert worker.take() == 1 and not worker.is_busy


def test_a_deed_computes_as_its_caller_does():
    with BackgroundExecutor() as worker:
        for is_inference in (False, True):
            with torch.inference_mode(is_inference):
                worker.start(torch.is_inference_mode_enabled)
            assert worker.take() is is_inference


def test_the_worker_has_threads_of_its_own_and_the_callers_stay():
    before = torch.get_num_threads()
    found = []
    with BackgroundExecutor(threads=before + 1) as worker:
        worker.start(torch.get_num_threads)
        assert worker.take() == before + 1
    begun_later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    begun_later.start()
    begun_later.join()
    assert torch.get_num_threads() == before and found == [before]


def test_on_a_cpu_without_a_core_to_spare_frames_are_made_in_turn(monkeypatch):
    monkeypatch.setattr("kf_core.session.executor._cores", torch.get_num_threads)
    assert isinstance(executor_for("cpu"), InlineExecutor) and isinstance(executor_for("mps"), InlineExecutor)
    monkeypatch.setattr("kf_core.session.executor._cores", lambda: torch.get_num_threads() + 1)
    with executor_for("cpu") as worker:
        assert isinstance(worker, BackgroundExecutor)
    with executor_for("mps", decoder_device="cpu") as worker:
        assert isinstance(worker, BackgroundExecutor)


def test_without_room_for_both_frames_are_made_in_turn(monkeypatch):
    monkeypatch.setattr("kf_core.session.executor._cores", lambda: torch.get_num_threads() + 1)
    assert isinstance(executor_for("cpu", has_room=False), InlineExecutor)
    assert isinstance(executor_for("mps", decoder_device="cpu", has_room=False), InlineExecutor)
