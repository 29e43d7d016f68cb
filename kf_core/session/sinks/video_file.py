"""A stream becomes a video file that plays while it grows, and that can be taken up again whatever ended it.

    stream --> frames and sound to the file, latents of each chunk to a log, state beside it every few minutes and on stop

The state is large (863 MB at 1.3 billion weights and 832x480), what a chunk adds to it is not: so after a crash the last state is loaded
and the chunks since then are replayed from the log, a pass each, until it has caught up. Where the machine can do two things at once, a
chunk becomes frames and goes to the file while the next one is denoised (`worker.py`). Knows no host and shows nothing: it yields what
happens after it is on the disk, and the caller decides when to stop.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...conditioning.audio import Silence
from ...content_id import fingerprint
from ...errors import KnotForcingError
from ...lock import locked, log_of
from ...media.fragments import num_frames, read_fragments
from ...media.playback import metadata
from ...media.soundtrack import Soundtrack
from ...media.video import Provenance, VideoWriter
from ...timeline import latent_frames, pixel_frames, pixels
from ...types import FrameChunk, LatentChunk, Replayed, Step
from ...vae.streaming import DecoderState
from ...vae.wan import DECODER_REMEMBERS, SPATIAL_STRIDE
from ..executor import Executor, executor_for
from ..latent_log import LatentLog
from ..stream import Stream, StreamState

SAMPLE_RATE, CHANNELS = 48_000, 2
SAID = re.compile(r" Recipe (?P<recipe>[0-9a-f]+)\. Decoder (?P<decoder>[0-9a-f]+)\.")  # in a file's metadata: what it was begun with
SAVE_SECONDS = 300.0  # at least, between two savings of the state ...
SAVE_SHARE = 20  # ... and at least so many times what saving takes


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoFile:
    """One video of one stream.

    Invariants
    - What `record` has yielded is on the disk; whatever ends it, the file plays.
    - Recorded in one go or in many, in turn or beside the denoising, the file holds the same frames, each once.
    - State and log belong together: the log holds every chunk that was denoised since the state was saved. Of a whole film both are gone.
    """

    stream: Stream
    path: Path
    state_file: Path
    spool: LatentLog | None = None  # keeps the latents of the whole stream; None: a log beside the state keeps what is needed to go on
    worker: Callable[[], Executor] | None = None  # who decodes and writes, where it is not `executor_for` that decides
    replaces: bool = False  # begin anew: what is there, and its state, stays until the first fragment of this one is whole

    @property
    def log(self) -> LatentLog:
        """The chunks since the state was saved, where no spool has them."""
        return LatentLog.beside(log_of(self.state_file), self.stream.recipe())

    @property
    def frames(self) -> int:
        """How many there are in the file now."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            return num_frames(file)

    def is_whole(self) -> bool:
        """Whether all frames are there. A stream whose end nobody knows (yet) never is."""
        return self._is_end(self.frames)

    def is_other(self) -> bool:
        """Whether the file was begun by another recipe or decoder, so that going on with it would join two videos."""
        if self.frames == 0:
            return False
        said = SAID.search(metadata(self.path).get("comment", ""))
        return said is None or (said["recipe"], said["decoder"]) != (self.stream.recipe(), self._decoder_name)

    def remark(self) -> str:
        """What of the file has to be denoised once more before it goes on, and why, as a sentence; empty where nothing is lost."""
        there, settings = self.frames, self.stream.settings
        if there == 0 or self._is_end(there):
            return ""
        end, said, logs = settings.chunk_of(latent_frames(there)), StreamState.look_at(self.state_file), self._logs()

        def holds(start, stop):
            return any(log.first <= start and stop <= log.stop for log in logs)

        begin, state = 0, self.state_file.name
        if said is None:
            why = f"{state}, from which the video would go on, is {'damaged' if self.state_file.exists() else 'missing'}"
        elif said["recipe"] != self.stream.recipe():
            why = f"{state}, from which the video would go on, belongs to another one"
        elif pixel_frames(said["next_frame"]) > there and not holds(end, said["chunk"]):
            why = f"{state} was saved later than the end of the video was written"
        else:
            begin, why = (
                said["chunk"],
                f"{self.log.path.name}, which holds what was denoised since {state} was saved, is missing or ends early",
            )
        lost = [chunk for chunk in range(begin, end) if not holds(chunk, chunk + 1)]
        if not lost:
            return ""
        since = pixels(settings.output_span(lost[0])).start / self.stream.fps
        until = min(there, pixels(settings.output_span(lost[-1])).stop) / self.stream.fps
        return (
            f"{why}: the frames from {since:.1f} s to {until:.1f} s are denoised once more before new ones come. The video stays as it is, "
            f"and that takes about as long as making these {until - since:.1f} s did."
        )

    def discard(self) -> None:
        """Remove what was kept to go on with the film; a spool stays."""
        with suppress(OSError):  # what cannot be removed does no harm
            self.state_file.unlink(missing_ok=True)
        with suppress(OSError):
            self.log.remove()

    def record(self, is_from_the_start: bool = False) -> Iterator[Step | Replayed | LatentChunk | FrameChunk]:
        """Make what is missing. `is_from_the_start`: yield the frames that are in the file, too; they are decoded again, not denoised.

        Otherwise only new ones, and those of their chunk. Where no end is known, it goes on until the source ends or the caller stops."""
        stream = self.stream
        with locked(self.state_file, self.path), self._writer(resume=not self.replaces) as video, self._worker() as worker:
            there = video.num_frames
            if self._is_end(there) and not is_from_the_start:
                return
            first = 0 if is_from_the_start else there
            if self.replaces:
                state, log = StreamState.start(stream), self._logs()[0]
            else:
                state, log = take_up(stream, self.state_file, self._logs(), first, is_shown=is_from_the_start)
            soundtrack = None if self._is_end(there) else self._soundtrack(video)
            saved, cost = time.perf_counter(), 0.0

            def write(made: FrameChunk) -> None:
                fresh = made.frames[max(0, video.num_frames - made.span.start) :]
                if len(fresh):
                    is_first = video.num_frames == 0
                    video.write(fresh, soundtrack.between(*video.sound_for(len(fresh))))
                    if is_first and self.replaces:
                        with suppress(OSError):
                            self.state_file.unlink(missing_ok=True)  # of what was replaced

            def save() -> None:
                state.save(self.state_file, stream)
                if log is not self.spool:
                    log.forget(stream.settings.chunk_of(state.decoder.next_frame))

            happening = stream.steps(state, log, worker=worker, then=write)
            try:
                for item in happening:
                    is_due = time.perf_counter() - saved > max(SAVE_SECONDS, SAVE_SHARE * cost)
                    is_new = video.num_frames > there  # before that, the decoder may not remember all that it needs
                    if isinstance(item, FrameChunk) and is_due and is_new and state.is_whole and not self._is_end(video.num_frames):
                        before = time.perf_counter()
                        save()
                        saved = time.perf_counter()
                        cost = saved - before
                    if not isinstance(item, FrameChunk) or item.span.stop > first:
                        yield item
            finally:
                try:
                    happening.close()  # what is being made gets into the file
                finally:
                    if self._is_end(video.num_frames):
                        self.discard()
                    elif video.num_frames > there:
                        save()

    def finish(self) -> None:
        """Make an ordinary MP4 of a film that has all its frames, where that was not done: it was killed before, or the disk was full."""
        with locked(self.state_file, self.path):
            self.discard()
            with self.path.open("rb") as file:
                if read_fragments(file).is_finished:
                    return
            with suppress(KnotForcingError), self._writer(resume=True) as video:  # where it cannot be written any more, it plays as it is
                if video.lacks_sound:
                    video.write_sound(self._soundtrack(video).between(*video.sound_for(0)))

    def _is_end(self, frames: int) -> bool:
        end = self.stream.num_frames  # of a live source it is known when the source is closed
        return end is not None and frames >= end

    def _logs(self) -> Sequence[LatentLog]:
        return [self.log] if self.spool is None else [self.spool, self.log]

    @property
    def _decoder_name(self) -> str:
        return fingerprint(self.stream.decoder.vae)[:8]

    def _worker(self) -> Executor:
        stream = self.stream
        return executor_for(stream.model.device, decoder_device=stream.decoder.device) if self.worker is None else self.worker()

    def _soundtrack(self, video: VideoWriter) -> Soundtrack:
        """The sound from where the file needs it: what lies long before is not read, and a live source no longer has it."""
        start, _ = video.sound_for(0)
        sound = self.stream.driving.audio or Silence(self.stream.seconds)
        return Soundtrack(sound.blocks(SAMPLE_RATE, CHANNELS, start=start), start)

    def _writer(self, *, resume: bool) -> VideoWriter:
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
            resume=resume,
        )


def take_up(
    stream: Stream, state_file: Path, logs: Sequence[LatentLog], first: int, *, is_shown: bool = True
) -> tuple[StreamState, LatentLog | None]:
    """Where to go on so that frame `first` comes next, or as little before it as can be; and the first of `logs` that reaches so far.

    `is_shown`: every frame that is made counts. Otherwise those before `first` do not, and of latents that are in a log only as many are
    decoded as the decoder remembers."""
    found = StreamState.load(state_file, stream) or StreamState.start(stream)
    if found.next_frame > first:
        found = StreamState(found.rollout, DecoderState())  # the frames again, but from the log
    for log in logs:
        decoder = found.decoder if is_shown else _decoder_before(first, found.decoder, log, stream)
        wanted = stream.settings.chunk_of(decoder.next_frame)
        is_gap = found.rollout.chunk > wanted  # denoised, but not decoded: only a log can have that
        if log.reaches(wanted) and (not is_gap or log.holds(wanted, found.rollout.chunk)):
            return StreamState(found.rollout, decoder), log
    if found.rollout.chunk > stream.settings.chunk_of(found.decoder.next_frame):
        found = StreamState.start(stream)
    return found, next((log for log in logs if log.reaches(stream.settings.chunk_of(found.decoder.next_frame))), None)


def film_name(stream: Stream, recipe: str) -> str:
    """A short name for the file of a stream: another one for another recipe, decoder or length."""
    return fingerprint(recipe, stream.decoder.vae, stream.num_frames)[:8]


def _decoder_before(frame: int, found: DecoderState, log: LatentLog, stream: Stream) -> DecoderState:
    """A decoder that has seen enough when `frame` comes: the one that was found, or a new one where the log spares most of the way."""
    settings = stream.settings
    shown = settings.chunk_of(max(0, latent_frames(frame)))
    begin = settings.chunk_of(max(0, settings.output_span(shown).start - DECODER_REMEMBERS))
    start = settings.output_span(begin).start
    return DecoderState(next_frame=start) if start > found.next_frame and log.holds(begin, shown) else found
