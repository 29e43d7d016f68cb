"""Where the sound comes from: a file, an array, silence, or a live source that is still growing.

A source is a recipe; `open` gives a listener of one's own, so two streams do not disturb each other. A listener answers with
16 kHz mono for any stretch of time, the same numbers however often it is asked, and with silence before the start and after
the end: a mouth rests when the sound is over. Knows nothing of features; see `log_mel.py` and `wav2vec2.py`.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soxr

from ..content_id import LEFT_OUT, frozen_names
from ..errors import KnotForcingError
from ..media.channels import Mixer, finite, unknown, unreal
from ..media.loudness import remark, voice_level
from ..media.resampling import resampled
from ..media.sound import SoundFile
from ..types import SAMPLE_RATE, Listener

KEPT_SECONDS = 10.0  # what a listener remembers; asked for something older, it begins again


@frozen_names("sound file", path="content")
@dataclass(frozen=True)
class AudioFile:
    """Any file PyAV reads, never all of it in memory."""

    path: Path

    def __post_init__(self) -> None:
        _ = self.sound  # a file that cannot be heard is refused here, not in the middle of a stream

    @cached_property
    def sound(self) -> SoundFile:
        return SoundFile(self.path)

    @property
    def seconds(self) -> float:
        return self.sound.seconds

    @property
    def note(self) -> str:
        """What the user wants to know of the sound: cut off, very quiet, silent, not finite; otherwise empty."""
        return self.sound.note

    def open(self) -> Listener:
        return ForwardListener(self.sound)

    def blocks(self, sample_rate: int, channels: int = 1, *, start: int = 0) -> Iterator[np.ndarray]:
        return self.sound.blocks(sample_rate, channels, start=start)


@frozen_names("sound", waveform="waveform", sample_rate="sample_rate")
@dataclass(frozen=True, eq=False)
class AudioArray:
    """Sound already in memory: [n] or [channels, n], numpy or torch (ComfyUI's AUDIO, one of its batch).

    Nobody says where its channels belong: six are taken for 5.1 in FFmpeg's order, as any player takes them."""

    waveform: np.ndarray
    sample_rate: int

    def __post_init__(self) -> None:
        waveform = np.asarray(self.waveform, np.float32)
        if waveform.ndim not in (1, 2):
            raise ValueError(f"a waveform is [n] or [channels, n], got {list(waveform.shape)}")
        if waveform.shape[-1] == 0:
            raise KnotForcingError("The sound is empty (0 samples). Connect audio that lasts at least one sample, or use silence.")
        waveform = np.atleast_2d(waveform)  # [channels, n]
        object.__setattr__(self, "waveform", finite(waveform))
        object.__setattr__(self, "_unreal", waveform.size - int(np.count_nonzero(np.isfinite(waveform))))

    @property
    def seconds(self) -> float:
        return self.waveform.shape[1] / self.sample_rate

    @cached_property
    def note(self) -> str:
        """What the user wants to know of the sound: very quiet, silent, not finite; otherwise empty."""
        mix = self._mixer(1)
        level = voice_level((mix(piece)[:, 0] for piece in self._pieces()), self.sample_rate)
        return " ".join(filter(None, (unreal(self._unreal, "the sound"), remark(level, "the sound"))))

    def open(self) -> Listener:
        return self._heard

    def blocks(self, sample_rate: int, channels: int = 1, *, start: int = 0) -> Iterator[np.ndarray]:
        begun = max(0, start // sample_rate - 3)  # seconds that need not even be looked at
        wanted = start - begun * sample_rate
        yield from resampled(self._pieces(begun), self.sample_rate, sample_rate, channels, self._mixer(channels), wanted)

    def _pieces(self, begun: int = 0) -> Iterator[np.ndarray]:
        """Second after second: [n, its own channels]."""
        for first in range(begun * self.sample_rate, self.waveform.shape[1], self.sample_rate):
            yield self.waveform[:, first : first + self.sample_rate].T

    def _mixer(self, channels: int) -> Mixer:
        own = len(self.waveform)
        return Mixer(unknown(own), own, channels)

    @cached_property
    def _heard(self) -> "Recording":
        wave = np.concatenate(list(self.blocks(SAMPLE_RATE)))[:, 0]
        recording = Recording(kept=len(wave))
        recording.append(wave)
        return recording


@frozen_names("silence", seconds=LEFT_OUT)
@dataclass(frozen=True)
class Silence:
    """Nothing to hear, for `seconds` or for ever."""

    seconds: float | None = None

    def open(self) -> Listener:
        return Recording(kept=0)

    def blocks(self, sample_rate: int, channels: int = 1, *, start: int = 0) -> Iterator[np.ndarray]:
        left = round((self.seconds or 0.0) * sample_rate) - start
        while left > 0:
            yield np.zeros((min(left, sample_rate), channels), np.float32)
            left -= sample_rate


class LiveAudio:
    """A source that grows while it is heard: `push` from one thread, listen from another, `close` when it is over.

    Invariants
    - Listeners block until what they ask for has arrived or the source is closed; after `patience_seconds` without a
      new sample they give up with a KnotForcingError.
    - Only the last `kept_seconds` are remembered; memory does not grow.
    - Once heard, a stretch is the same for every listener.
    - It has a name of its own: no two performances are one, so nothing that one made is gone on with by another.
    """

    def __init__(self, sample_rate: int = SAMPLE_RATE, *, kept_seconds: float = 60.0, patience_seconds: float = 30.0) -> None:
        self.content_id = f"live {uuid.uuid4().hex}"
        self.sample_rate = sample_rate
        self.kept_seconds = kept_seconds
        self.patience_seconds = patience_seconds
        self._resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32") if sample_rate != SAMPLE_RATE else None
        self._buffer = Recording(round(kept_seconds * SAMPLE_RATE))
        self._mixer: Mixer | None = None
        self._is_closed = False
        self._changed = threading.Condition()

    def push(self, samples: np.ndarray) -> None:
        """The next samples, [n] or [channels, n], at the source's sample rate."""
        samples = finite(np.array(samples, np.float32))
        if samples.ndim == 2:
            if self._mixer is None or self._mixer.own != len(samples):
                self._mixer = Mixer(unknown(len(samples)), len(samples), 1)
            samples = self._mixer(samples.T)[:, 0]
        self._append(samples, is_last=False)

    def close(self) -> None:
        """There is no more to come: listeners hear silence from here on."""
        if not self._is_closed:
            self._append(np.zeros(0, np.float32), is_last=True)

    @property
    def seconds(self) -> float | None:
        return self._buffer.stop / SAMPLE_RATE if self._is_closed else None

    def open(self) -> Listener:
        return self

    def samples(self, start: int, stop: int) -> np.ndarray:
        with self._changed:
            deadline = time.monotonic() + self.patience_seconds
            have = self._buffer.stop
            while self._buffer.stop < stop and not self._is_closed:
                if self._buffer.stop > have:
                    have, deadline = self._buffer.stop, time.monotonic() + self.patience_seconds
                if not self._changed.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    raise KnotForcingError(
                        f"The live sound stopped at {have / SAMPLE_RATE:.1f} s, and nothing has come for {self.patience_seconds:g} s; "
                        f"the video needs it up to {stop / SAMPLE_RATE:.1f} s. Check the microphone or the connection, or close the source."
                    )
            if max(start, 0) < min(self._buffer.start, stop):
                raise KnotForcingError(
                    f"The live sound at {start / SAMPLE_RATE:.1f} s has been forgotten; the last {self.kept_seconds:g} s are kept. "
                    f"Record the sound to a file to go back further."
                )
            return self._buffer.samples(start, stop)

    def blocks(self, sample_rate: int, channels: int = 1, *, start: int = 0) -> Iterator[np.ndarray]:
        """What the model heard (16 kHz), resampled; blocks a tenth of a second at a time until the source is closed."""
        stream = soxr.ResampleStream(SAMPLE_RATE, sample_rate, 1, dtype="float32") if sample_rate != SAMPLE_RATE else None
        begun = max(0, start // sample_rate - 1)  # the resampler hears a second before the first sample that is wanted
        heard, step, is_over, skipped = begun * SAMPLE_RATE, SAMPLE_RATE // 10, False, start - begun * sample_rate
        while not is_over:
            piece = self.samples(heard, heard + step)
            is_over = self._is_closed and heard + step >= self._buffer.stop
            piece = piece[: max(0, self._buffer.stop - heard)] if is_over else piece
            piece = stream.resample_chunk(piece, last=is_over) if stream else piece
            yield np.repeat(piece[skipped:, None], channels, 1)
            skipped = max(0, skipped - len(piece))
            heard += step

    def _append(self, samples: np.ndarray, is_last: bool) -> None:
        with self._changed:
            if self._is_closed:
                raise ValueError("a closed live source cannot be pushed to")
            self._buffer.append(self._resampler.resample_chunk(samples, last=is_last) if self._resampler else samples)
            self._is_closed = is_last
            self._changed.notify_all()


class ForwardListener:
    """Hears a file from front to back, remembering the last `KEPT_SECONDS`; asked for something older, it reads from the start.

    From the start, because only the same blocks in the same order give the same numbers to the last bit (three hours of MP3
    are read through in about 15 s)."""

    def __init__(self, sound: SoundFile) -> None:
        self._sound = sound
        self._rewind()

    def samples(self, start: int, stop: int) -> np.ndarray:
        if max(start, 0) < self._buffer.start:
            self._rewind()
        self._buffer.kept = max(self._buffer.kept, stop - start)
        while self._buffer.stop < stop:
            block = next(self._blocks, None)
            if block is None:
                break
            self._buffer.append(np.ascontiguousarray(block[:, 0]), still_needed=start)
        return self._buffer.samples(start, stop)

    def _rewind(self) -> None:
        self._blocks = self._sound.blocks(SAMPLE_RATE)
        self._buffer = Recording(round(KEPT_SECONDS * SAMPLE_RATE))


class Recording:
    """The last `kept` samples of a growing row, where in the row they are, and silence around them."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.start = 0
        self.stop = 0
        self._pieces: list[np.ndarray] = []

    def append(self, samples: np.ndarray, still_needed: int | None = None) -> None:
        """The row goes on with `samples`; what is older than `kept` is forgotten, unless it is `still_needed` or later."""
        self._pieces.append(samples)
        self.stop += len(samples)
        oldest = self.stop - self.kept if still_needed is None else min(self.stop - self.kept, still_needed)
        while self._pieces and self.start + len(self._pieces[0]) <= oldest:
            self.start += len(self._pieces.pop(0))

    def samples(self, start: int, stop: int) -> np.ndarray:
        result = np.zeros(stop - start, np.float32)
        first = self.start
        for piece in self._pieces:
            a, b = max(start, first), min(stop, first + len(piece))
            if a < b:
                result[a - start : b - start] = piece[a - first : b - first]
            first += len(piece)
        return result
