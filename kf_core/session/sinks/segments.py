"""A stream piece by piece, N seconds each: for what works on frames in memory, however long the stream is.

A piece denoises and decodes only what the pieces before it did not: its end is saved as the next one's beginning, and latents come from the
spool. Pieces meet without gap, and joined they are the stream. Knows no host.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...conditioning.audio import Silence
from ...errors import KnotForcingError
from ...media.soundtrack import Soundtrack
from ...timeline import PixelSpan
from ...types import AudioSource, FrameChunk, LatentChunk, Replayed, Step
from ..executor import Executor, executor_for
from ..latent_log import LatentLog
from ..stream import Stream, StreamState
from .video_file import take_up


@dataclass(frozen=True, kw_only=True, eq=False)
class Segments:
    stream: Stream
    seconds: float  # of one piece
    folder: Path  # for states
    spool: LatentLog
    worker: Callable[[], Executor] | None = None  # who decodes, where it is not `executor_for` that decides

    @property
    def count(self) -> int | None:
        """How many there are; None: no end is known, or not yet (a live source)."""
        end = self.stream.num_frames
        return None if end is None else math.ceil(end / (self.seconds * self.stream.fps) - 1e-6)

    def span(self, index: int) -> PixelSpan:
        """The frames of piece `index`; where no end is known, as if it came later. Raises KnotForcingError beyond the last one."""
        if index < 0 or (self.count is not None and index >= self.count):
            raise KnotForcingError(
                f"The stream has {self.count} segments of {self.seconds:g} s, numbered from 0, and number {index} was asked for. "
                f"If all are done, set `index` to 0 to begin again."
            )
        first, last = (_beginning(i, self.seconds, self.stream.fps) for i in (index, index + 1))
        end = self.stream.num_frames
        return PixelSpan(first, last if end is None else min(end, last))

    def take(self, index: int) -> Iterator[Step | Replayed | LatentChunk | FrameChunk]:
        """All that happens until piece `index` is there, or the stream has ended; FrameChunks hold its frames and no others."""
        span = self.span(index)
        state, spool = self._state(index, span)
        before = state.decoder
        with self._worker() as worker:
            for item in self.stream.steps(state, spool, worker=worker, until=span.stop):
                if isinstance(item, LatentChunk):
                    before = replace(state.decoder)  # decoding puts another past in its place, and leaves this one as it is
                    yield item
                elif isinstance(item, FrameChunk):
                    is_last = item.span.stop >= span.stop
                    if is_last:
                        # the next piece begins inside a chunk, which it has to decode again
                        end = StreamState(state.rollout, state.decoder if state.next_frame <= span.stop else before)
                        end.save(self._state_file(index + 1), self.stream)
                    cut = _cut(item, span)
                    if cut.span.length:
                        yield cut
                    if is_last:
                        return
                else:
                    yield item

    def sound(self, index: int, sample_rate: int, channels: int) -> np.ndarray:
        """The sound of piece `index`, exactly as long as its frames: [channels, n]."""
        span = self.span(index)
        start, stop = (round(frame * sample_rate / self.stream.fps) for frame in (span.start, span.stop))
        return sound_between(self.stream.driving.audio, start, stop, sample_rate, channels)

    def _worker(self) -> Executor:
        device, decoder_device = self.stream.model.device, self.stream.decoder.device
        return executor_for(device, decoder_device=decoder_device) if self.worker is None else self.worker()

    def _state(self, index: int, span: PixelSpan) -> tuple[StreamState, LatentLog | None]:
        for beginning in (index, index + 1):  # this piece's own, or the next one's: from there the spool helps
            if self._state_file(beginning).exists():
                return take_up(self.stream, self._state_file(beginning), [self.spool], span.start)
        return take_up(self.stream, self._state_file(index), [self.spool], span.start)

    def _state_file(self, index: int) -> Path:
        """Two files take turns, so that a piece may be taken again."""
        return self.folder / f"{self.spool.path.stem}-{self.seconds:g}s-{index % 2}.state"


def segment_with(frame: int, seconds: float, fps: float) -> int:
    """The number of the piece that a frame is in, where each is so many seconds long."""
    near = round(frame / (seconds * fps))
    return near - (_beginning(near, seconds, fps) > frame)


def sound_between(audio: AudioSource | None, start: int, stop: int, sample_rate: int, channels: int) -> np.ndarray:
    """Samples [start, stop) of a sound, with silence where there is none: [channels, n]. What comes long before them is not read."""
    heard = Soundtrack((audio or Silence(0.0)).blocks(sample_rate, channels, start=start), start).between(start, stop)
    sound = np.zeros((channels, stop - start), np.float32)
    sound[:, : len(heard)] = heard.T
    return sound


def _beginning(index: int, seconds: float, fps: float) -> int:
    """The first frame of piece `index`."""
    return round(index * seconds * fps)


def _cut(chunk: FrameChunk, span: PixelSpan) -> FrameChunk:
    """What of `chunk` is in `span`; an empty chunk where nothing is."""
    first, last = max(chunk.span.start, span.start), min(chunk.span.stop, span.stop)
    last = max(first, last)
    return FrameChunk(chunk.index, PixelSpan(first, last), chunk.frames[first - chunk.span.start : last - chunk.span.start])
