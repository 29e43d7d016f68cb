"""Laws of pieces: joined they are the stream, none draws what another drew, and each may be taken again."""

import numpy as np
import pytest
import torch

from kf_core.errors import KnotForcingError
from kf_core.session.latent_log import LatentLog
from kf_core.session.sinks.segments import Segments, segment_with
from kf_core.types import FrameChunk, Step

from .test_stream import frames, stream, whole  # noqa: F401  the same two seconds


def pieces_of(stream, folder, seconds: float) -> Segments:  # noqa: F811
    return Segments(stream=stream, seconds=seconds, folder=folder, spool=LatentLog(folder, stream.recipe()))


def taken(pieces: Segments, index: int) -> torch.Tensor:
    return frames(item for item in pieces.take(index) if isinstance(item, FrameChunk))


@pytest.mark.parametrize("seconds", [0.25, 0.5, 0.7, 1.5, 4.0])
def test_joined_pieces_are_the_stream_with_its_sound(stream, whole, tmp_path, seconds):  # noqa: F811
    pieces = pieces_of(stream, tmp_path, seconds)
    assert torch.equal(torch.cat([taken(pieces, index) for index in range(pieces.count)]), whole)
    sound = np.concatenate([pieces.sound(index, 16000, 1) for index in range(pieces.count)], axis=1)
    assert np.array_equal(sound, stream.driving.audio.waveform)


def test_no_piece_draws_what_another_drew(stream, tmp_path):  # noqa: F811
    pieces = pieces_of(stream, tmp_path, 0.7)
    drawn = [item.span.start for index in range(pieces.count) for item in pieces.take(index) if isinstance(item, Step) and item.index == 0]
    assert drawn == [0, 3, 6]


def test_a_piece_may_be_taken_again_and_in_any_order(stream, whole, tmp_path):  # noqa: F811
    pieces = pieces_of(stream, tmp_path, 0.5)
    for index in (2, 0, 0, 3, 1, 2):
        assert torch.equal(taken(pieces, index), whole[8 * index : 8 * index + 8])


@pytest.mark.parametrize("seconds", [0.25, 0.5, 0.7, 1.5, 4.0])
def test_every_frame_is_in_the_piece_that_spans_it(stream, tmp_path, seconds):  # noqa: F811
    pieces = pieces_of(stream, tmp_path, seconds)
    for index in range(pieces.count):
        assert {segment_with(frame, seconds, stream.fps) for frame in pieces.span(index)} == {index}
    assert [segment_with(frame, 0.25, 25.0) for frame in (5, 6, 11, 12, 37, 38)] == [0, 1, 1, 2, 5, 6]  # from round(6.25 * index) on


def test_beyond_the_last_piece_it_is_said_how_many_there_are(stream, tmp_path):  # noqa: F811
    with pytest.raises(KnotForcingError, match="has 4 segments of 0.5 s, numbered from 0, and number 4"):
        list(pieces_of(stream, tmp_path, 0.5).take(4))
