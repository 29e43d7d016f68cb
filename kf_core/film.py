"""A stream becomes a video file that plays while it grows, and that can be taken up again whatever ended it.

    stream --> pictures and sound to the file, state beside it every few seconds, latents to the spool

Where the machine can do two things at once, a chunk becomes pictures and goes to the file while the next one is drawn (`worker.py`).
Knows no host and shows nothing: it yields what happens after it is on the disk, and the caller decides when to stop.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .chunks import FrameChunk, LatentChunk, Step
from .conditioning.audio import AudioSource, Silence
from .errors import KnotForcingError
from .fingerprint import fingerprint
from .media.fragments import num_frames, read_fragments
from .media.playback import metadata
from .media.soundtrack import Soundtrack
from .media.video import Provenance, VideoWriter
from .spool import Spool
from .stream import Stream, StreamState
from .vae.streaming import DecoderState
from .vae.wan import SPATIAL_STRIDE
from .worker import Worker, worker_for

SAMPLE_RATE, CHANNELS = 48_000, 2
DECODER = " Decoder "  # stands in a file's metadata before the name of what made its pictures
SAVE_SECONDS = 3.0  # at least, between two savings of the state ...
SAVE_SHARE = 20  # ... and at least so many times what saving takes


@dataclass(frozen=True, kw_only=True, eq=False)
class Film:
    """One video of one stream.

    Invariants
    - What `record` has yielded is on the disk; whatever ends it, the file plays.
    - Recorded in one go or in many, in turn or beside the drawing, the file holds the same pictures, each once.
    - The state that is saved belongs to the pictures in the file, however far the drawing has come.
    """

    stream: Stream
    path: Path
    state_file: Path
    spool: Spool | None = None
    worker: Callable[[], Worker] | None = None  # who decodes and writes, where it is not `worker_for` that decides

    @property
    def pictures(self) -> int:
        """How many there are in the file now."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            return num_frames(file)

    def is_whole(self) -> bool:
        return self.pictures >= self.stream.num_pictures

    def is_other(self) -> bool:
        """Whether the file was begun by another recipe or decoder, so that going on with it would join two videos."""
        if self.pictures == 0:
            return False
        said = metadata(self.path).get("comment", "")
        is_by_another = (
            DECODER in said and f"{DECODER}{self._decoder_name}." not in said
        )  # a file from before decoders were named says none
        return self.stream.recipe() not in said or is_by_another

    def record(self, is_from_the_start: bool = False) -> Iterator[Step | LatentChunk | FrameChunk]:
        """Make what is missing. `is_from_the_start`: yield the pictures that are in the file, too; they are decoded again, not drawn."""
        stream, end = self.stream, self.stream.num_pictures
        with self._writer() as video, self._worker() as worker:
            there = video.num_pictures
            state, spool = take_up(stream, self.state_file, self.spool, 0 if is_from_the_start else there)
            soundtrack = Soundtrack(_sound(stream).blocks(SAMPLE_RATE, CHANNELS)) if there < end else None
            saved, cost = time.perf_counter(), 0.0

            def write(made: FrameChunk) -> None:
                fresh = made.frames[max(0, video.num_pictures - made.span.start) :]
                if len(fresh):
                    video.write(fresh, soundtrack.between(*video.sound_for(len(fresh))))

            happening = stream.steps(state, spool, worker=worker, then=write)
            try:
                for item in happening:
                    is_due = time.perf_counter() - saved > max(SAVE_SECONDS, SAVE_SHARE * cost)
                    if isinstance(item, FrameChunk) and is_due and state.is_whole and video.num_pictures < end:
                        before = time.perf_counter()
                        state.save(self.state_file, stream)
                        saved = time.perf_counter()
                        cost = saved - before
                    yield item
            finally:
                try:
                    happening.close()  # what is being made gets into the file
                finally:
                    if video.num_pictures >= end:
                        self.state_file.unlink(missing_ok=True)
                    elif (state.is_whole or spool is not None) and video.num_pictures > there:
                        state.save(self.state_file, stream)

    def finish(self) -> None:
        """Make an ordinary MP4 of a film that has all its frames, where that was not done: it was killed before, or the disk was full."""
        with self.path.open("rb") as file:
            if read_fragments(file).is_finished:
                return
        with suppress(KnotForcingError), self._writer() as video:  # where it cannot be written any more, it plays as it is
            if video.lacks_sound:
                video.write_sound(Soundtrack(_sound(self.stream).blocks(SAMPLE_RATE, CHANNELS)).between(*video.sound_for(0)))

    @property
    def _decoder_name(self) -> str:
        return fingerprint(self.stream.decoder.vae)[:8]

    def _worker(self) -> Worker:
        stream = self.stream
        return worker_for(stream.model.device, decoder_device=stream.decoder.device) if self.worker is None else self.worker()

    def _writer(self) -> VideoWriter:
        stream = self.stream
        height, width = (SPATIAL_STRIDE * size for size in stream.anchor.latent.shape[-2:])
        return VideoWriter(
            self.path,
            width=width,
            height=height,
            fps=stream.fps,
            sample_rate=SAMPLE_RATE,
            channels=CHANNELS,
            provenance=Provenance(model=stream.model.card.name, seed=stream.seed, recipe=stream.recipe(), decoder=self._decoder_name),
            resume=True,
        )


def take_up(stream: Stream, state_file: Path, spool: Spool | None, first: int) -> tuple[StreamState, Spool | None]:
    """Where to go on so that picture `first` comes next, or as little before it as can be; and the spool, where it reaches that far."""
    found = StreamState.load(state_file, stream) or StreamState.start(stream)
    if found.next_picture > first:
        found = StreamState(found.rollout, DecoderState())  # the pictures again, but from the spool
    wanted = stream.settings.chunk_of(found.decoder.next_frame)
    is_gap = found.rollout.chunk > wanted  # drawn, but not decoded: only the spool can have that
    if is_gap and (spool is None or not spool.holds(wanted, found.rollout.chunk)):
        return StreamState.start(stream), spool
    return found, spool if spool is not None and len(spool) >= wanted else None


def film_name(stream: Stream, recipe: str) -> str:
    """A short name for the file of a stream: another one for another recipe, decoder or length."""
    return fingerprint(recipe, stream.decoder.vae, stream.num_pictures)[:8]


def _sound(stream: Stream) -> AudioSource:
    return stream.driving.audio or Silence(stream.seconds)
