"""Laws of a film: on the disk when it is said, the same in one go or in many, and nothing drawn twice."""

import errno
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from kf_core.errors import KnotForcingError
from kf_core.media.finish import unfinish
from kf_core.media.fragments import read_fragments, write_fragment
from kf_core.media.playback import frames, probe
from kf_core.session.executor import BackgroundExecutor, InlineExecutor
from kf_core.session.latent_log import LatentLog
from kf_core.session.sinks.video_file import VideoFile, film_name
from kf_core.session.stream import StreamState
from kf_core.types import FrameChunk, LatentChunk, Step
from kf_core.vae.streaming import VideoDecoder, prepare
from kf_core.vae.wan import WanDecoder

from .test_stream import changed_in_record, stream  # noqa: F401  the same two seconds


@pytest.fixture(params=[InlineExecutor, BackgroundExecutor])
def film(request, stream, tmp_path) -> VideoFile:  # noqa: F811
    spool = LatentLog(tmp_path, stream.recipe())
    return VideoFile(stream=stream, path=tmp_path / "film.mp4", state_file=tmp_path / "film.state", spool=spool, worker=request.param)


def drawn(items) -> list[int]:
    """The first latent frame of each chunk that was drawn from noise."""
    return [item.span.start for item in items if isinstance(item, Step) and item.index == 0]


def record_until(film: VideoFile, kind: type, count: int) -> list:
    items = []
    with closing(film.record()) as happening:
        for item in happening:
            items.append(item)
            if sum(isinstance(i, kind) for i in items) == count:
                break
    return items


@pytest.mark.parametrize("kind, count", [(FrameChunk, 1), (Step, 3), (LatentChunk, 2), (FrameChunk, 3)])
def test_stopped_anywhere_it_plays_and_goes_on_to_the_same_film(film, tmp_path, kind, count):
    whole = VideoFile(stream=film.stream, path=tmp_path / "whole.mp4", state_file=tmp_path / "whole.state")
    assert len(list(whole.record())) == 3 * 4 + 1  # chunks of two steps, latents and frames, of which the first comes alone
    first = record_until(film, kind, count)
    made = sum(item.span.length for item in first if isinstance(item, FrameChunk))
    assert film.frames >= made and probe(film.path).frames == film.frames  # what was being made is there, too
    assert not film.is_whole() and film.state_file.exists()

    rest = list(film.record())
    assert film.is_whole() and not film.state_file.exists()
    finished = [item.span.start for item in first if isinstance(item, LatentChunk)]
    assert not set(drawn(rest)) & set(finished)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(frames(film.path), frames(whole.path), strict=True))
    assert probe(film.path).sound_seconds == pytest.approx(2.0, abs=0.05)


def test_another_film_of_the_same_stream_draws_nothing(film, tmp_path):
    list(film.record())
    other = VideoFile(stream=film.stream, path=tmp_path / "other.mp4", state_file=tmp_path / "other.state", spool=film.spool)
    assert drawn(other.record()) == []
    assert other.frames == film.frames == 32


def test_frames_that_are_in_the_file_are_handed_out_again_without_drawing(film):
    record_until(film, FrameChunk, 3)
    again = list(film.record(is_from_the_start=True))
    assert sum(item.span.length for item in again if isinstance(item, FrameChunk)) == 32
    assert drawn(again) == [6] and film.frames == 32


def test_frames_that_a_changed_spool_cannot_give_again_are_drawn_again(film):
    """The state has drawn further than the latents can be read: it cannot be gone on with."""
    record_until(film, FrameChunk, 3)
    path = film.spool.path
    path.write_bytes(changed_in_record(path.read_bytes(), 0))
    anew = replace(film, spool=LatentLog(path.parent, path.stem))
    again = list(anew.record(is_from_the_start=True))
    assert drawn(again)[0] == 0 and sum(item.span.length for item in again if isinstance(item, FrameChunk)) == 32
    assert anew.is_whole() and anew.frames == 32


def test_a_film_goes_on_where_the_spool_was_lost(film):
    record_until(film, FrameChunk, 3)
    film.spool.path.unlink()
    alone = VideoFile(stream=film.stream, path=film.path, state_file=film.state_file, spool=LatentLog(film.path.parent, "another"))
    assert drawn(alone.record()) == [6] and film.is_whole()


@pytest.mark.parametrize("kind, count", [(Step, 3), (Step, 4), (FrameChunk, 3)])
def test_without_a_spool_the_saved_state_belongs_to_the_frames_in_the_file(film, kind, count):
    alone = replace(film, spool=None)
    first = record_until(alone, kind, count)
    state = StreamState.load(alone.state_file, alone.stream)
    assert state.is_whole and state.next_frame == alone.frames
    finished = [item.span.start for item in first if isinstance(item, LatentChunk)]
    rest = drawn(alone.record())
    assert alone.is_whole() and not set(rest) & set(finished)


@pytest.fixture
def small() -> VideoDecoder:
    """A decoder alone, of half the width."""
    torch.manual_seed(6)
    return VideoDecoder(prepare(WanDecoder(dim=2).eval(), torch.float32))


def test_a_film_by_a_decoder_alone_goes_on_to_the_same_film_and_has_another_name(film, small, tmp_path):
    by = replace(film, stream=replace(film.stream, decoder=small))
    whole = VideoFile(stream=by.stream, path=tmp_path / "whole.mp4", state_file=tmp_path / "whole.state")
    list(whole.record())
    record_until(by, FrameChunk, 2)
    list(by.record())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(frames(by.path), frames(whole.path), strict=True))
    recipe = film.stream.recipe()
    assert by.stream.recipe() == recipe and film_name(by.stream, recipe) != film_name(film.stream, recipe)  # the same latents


def test_a_film_is_not_continued_by_another_decoder_unseen(film, small):
    record_until(film, FrameChunk, 2)
    assert not film.is_other()
    assert replace(film, stream=replace(film.stream, decoder=small)).is_other()
    assert replace(film, stream=replace(film.stream, seed=4)).is_other()


def test_a_film_that_cannot_be_written_says_so_and_keeps_what_is_there(film, monkeypatch):
    written = []

    def full(file, *rest) -> None:
        written.append(file)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "no space left")
        write_fragment(file, *rest)

    monkeypatch.setattr("kf_core.media.video.write_fragment", full)
    with pytest.raises(
        KnotForcingError,
        match="the disk is full. The 0.6 s made so far are kept in it and can be played",
    ):
        list(film.record())
    assert film.frames == 9
    list(film.record())
    assert film.is_whole()


def is_finished(film: VideoFile) -> bool:
    with film.path.open("rb") as file:
        return read_fragments(file).is_finished


@pytest.mark.parametrize("kind, count", [(FrameChunk, 1), (FrameChunk, 3)])
def test_a_stopped_film_is_an_ordinary_mp4_as_a_whole_one_is(film, kind, count):
    record_until(film, kind, count)
    assert not film.is_whole() and is_finished(film)
    list(film.record())
    assert film.is_whole() and is_finished(film) and probe(film.path).frames == film.frames == 32


@pytest.mark.parametrize("has_end", [True, False])
def test_a_film_that_was_killed_before_it_was_finished_is_finished_when_it_is_asked_for_again(film, has_end):
    list(film.record())
    before = film.path.read_bytes(), probe(film.path).sound_seconds
    with film.path.open("r+b", buffering=0) as file:
        found = read_fragments(file)
        unfinish(file, found)
        if not has_end:  # of the sound
            file.truncate([part.stop for part in found.whole if part.frames][-1])
    assert film.is_whole() and not is_finished(film)
    film.finish()
    assert is_finished(film) and (probe(film.path).sound_seconds, film.frames) == (pytest.approx(before[1]), 32)
    assert not has_end or film.path.read_bytes() == before[0]
    written = film.path.stat().st_mtime_ns
    film.finish()
    assert film.path.stat().st_mtime_ns == written


def test_a_disk_that_cannot_say_when_it_has_the_bytes_is_taken_at_its_word(film, monkeypatch):
    def no_sync(_) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("os.fsync", no_sync)
    record_until(film, FrameChunk, 2)  # frames, latents and the state
    assert film.state_file.exists() and film.frames > 0
