"""A film of any length holds the same: its stream, its sound, its writer and the latents on the disk."""

from contextlib import closing
from dataclasses import replace

import pytest

from kf_core.session.executor import BackgroundExecutor, InlineExecutor
from kf_core.session.latent_log import LatentLog
from kf_core.session.sinks.video_file import VideoFile
from kf_core.types import FrameChunk

from ..held import counted
from .session.test_stream import speech, stream  # noqa: F401  a fixture

SETTLED, CHUNKS = 5, 12
FRAME_BYTES = 4 * 3 * 32 * 48  # float32


@pytest.mark.parametrize("worker", [InlineExecutor, BackgroundExecutor])
def test_a_film_holds_as_much_after_twelve_chunks_as_after_five(stream, tmp_path, worker):  # noqa: F811
    endless = replace(stream, driving=replace(stream.driving, audio=speech(0.75 * (CHUNKS + 3))))
    film = VideoFile(
        stream=endless, path=tmp_path / "film.mp4", state_file=tmp_path / "film.state", spool=LatentLog(tmp_path, "a"), worker=worker
    )
    frames = (item for item in film.record() if isinstance(item, FrameChunk))
    next(chunk for chunk in frames if chunk.index == SETTLED - 2)
    with counted() as held, closing(frames):
        next(chunk for chunk in frames if chunk.index == SETTLED)
        before = held()
        assert next(chunk for chunk in frames if chunk.index == CHUNKS) is not None
        assert held() - before < FRAME_BYTES
