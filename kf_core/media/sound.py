"""Sound out of any file PyAV can open, in blocks: a three-hour file costs no more memory than a second of it.

Reading is always forward from the beginning in blocks of one fixed length, so two readings give the same numbers bit for bit.
Knows nothing of models or features; `conditioning/audio.py` listens through this, the video writer copies its track from it.
PyAV is imported where a file is read: who hears arrays only, as training does, needs none.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr

from ..errors import KnotForcingError
from .opening import opened

if TYPE_CHECKING:
    import av

BLOCK_SECONDS = 1.0
TAIL_SECONDS = 2.0  # how much of the end is looked at to believe a header's duration
UNINDEXED = {"mp3", "aac", "ac3", "eac3", "dts", "amr", "loas"}  # bare streams: FFmpeg guesses their duration from the bit rate


@dataclass(frozen=True)
class SoundFile:
    """The first sound track of a file. Raises KnotForcingError when there is none to be had."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if os.path.isfile(self.path) and self.path.stat().st_size == 0:
            raise KnotForcingError(
                f"The audio file {self.path} is empty (0 bytes). It may not have finished downloading; choose another file."
            )
        if next(self._decoded(), None) is None:
            raise KnotForcingError(
                f"No sound could be decoded from {self.path}: it is damaged or cut off at once. Export it again, for example as WAV."
            )

    @property
    def seconds(self) -> float:
        """How long the sound plays, measured from what is really in the file."""
        return self._length[0]

    @property
    def note(self) -> str:
        """One sentence for the user where the file is not what its header says; otherwise empty."""
        return self._length[1]

    def blocks(self, sample_rate: int, channels: int = 1, block_seconds: float = BLOCK_SECONDS) -> Iterator[np.ndarray]:
        """The sound as float32 blocks [n, channels], -1..1, each of `block_seconds` but the last.

        Several channels become one by their mean; more than two are mixed to one and played on all."""
        length = max(1, round(block_seconds * sample_rate))
        pending = np.zeros((0, channels), np.float32)
        for piece in self._resampled(sample_rate, channels):
            pending = np.concatenate((pending, piece))
            while len(pending) >= length:
                yield pending[:length]
                pending = pending[length:]
        if len(pending):
            yield pending

    def _resampled(self, sample_rate: int, channels: int) -> Iterator[np.ndarray]:
        """The resampler is fed pieces of one fixed length, so that what it answers depends on the file alone."""
        for rate, pieces in _runs_of_one_rate(self._decoded()):
            stream = soxr.ResampleStream(rate, sample_rate, channels, dtype="float32") if rate != sample_rate else None
            for piece, is_last in _with_last(_fixed((_mix(piece, channels) for piece in pieces), rate)):
                yield stream.resample_chunk(piece, last=is_last) if stream else piece

    def _decoded(self) -> Iterator[tuple[int, np.ndarray]]:
        """(sample rate, [n, channels] float32) of each frame. A packet that cannot be decoded is replaced by silence of its length."""
        import av

        with self._open() as container:
            stream = container.streams.audio[0]
            to_float, shape, lost = None, None, 0.0
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    lost += float(packet.duration * packet.time_base) if packet.duration else 0.0
                    continue
                for frame in frames:
                    if frame.samples == 0:
                        continue
                    if shape != (frame.format.name, frame.layout.name, frame.sample_rate):
                        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
                        to_float = av.AudioResampler(format="fltp", layout=frame.layout, rate=frame.sample_rate)
                    if lost:
                        yield frame.sample_rate, np.zeros((round(lost * frame.sample_rate), frame.layout.nb_channels), np.float32)
                        lost = 0.0
                    for planar in to_float.resample(frame):
                        yield frame.sample_rate, np.nan_to_num(planar.to_ndarray().T)

    @contextmanager
    def _open(self) -> Iterator[av.container.InputContainer]:
        import av

        with ExitStack() as stack:
            try:
                container = stack.enter_context(opened(self.path, "audio", metadata_errors="ignore"))
            except av.error.FFmpegError as problem:
                raise KnotForcingError(
                    f"{self.path} is not audio that can be read ({problem.strerror or problem}). "
                    f"Use WAV, MP3, M4A, FLAC, OGG or a video with sound."
                ) from problem
            if not container.streams.audio:
                raise KnotForcingError(f"{self.path} has no sound track. Choose an audio file, or a video with sound.")
            yield container

    @cached_property
    def _length(self) -> tuple[float, str]:
        """Seconds and a note. Looks at packets without decoding: the last ones where a header tells the length, else all of them."""
        import av

        with self._open() as container:
            stream = container.streams.audio[0]
            if stream.duration is not None:
                claimed = float(stream.duration * stream.time_base)
            else:
                claimed = container.duration / av.time_base if container.duration else 0.0
            start = float(stream.start_time * stream.time_base) if stream.start_time else 0.0
            if claimed and not UNINDEXED.intersection(container.format.name.split(",")):
                try:
                    container.seek(round((start + max(0.0, claimed - TAIL_SECONDS)) / stream.time_base), stream=stream)
                    if _last_end(container, stream) - start > claimed - 0.1:
                        return claimed, ""
                except av.error.FFmpegError:
                    pass  # what cannot be sought is read through below
        with self._open() as container:
            stream = container.streams.audio[0]
            found = _last_end(container, stream) - start
            is_guess = bool(UNINDEXED.intersection(container.format.name.split(","))) and not _counts_its_frames(self.path)
        if claimed and not is_guess and found < claimed - 0.1:
            return (
                found,
                f"{self.path.name} is cut off: it should last {claimed:.1f} s and ends after {found:.1f} s. What is there is used.",
            )
        return (min(found, claimed) if claimed and abs(found - claimed) < 0.1 else found), ""


def _last_end(container: av.container.InputContainer, stream: av.AudioStream) -> float:
    """When the last packet from here on ends, on the stream's own clock; 0 where there is none."""
    end = 0
    for packet in container.demux(stream):
        if packet.size:
            end = max(end, (packet.pts if packet.pts is not None else end) + (packet.duration or 0))
    return float(end * stream.time_base)


def _counts_its_frames(path: Path) -> bool:
    """Whether an MP3 opens with a Xing or Info frame, so that its duration is known and not guessed."""
    with path.open("rb") as file:
        tag = file.read(10)
        if tag[:3] == b"ID3":
            file.seek(10 + sum(byte << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True)))
        else:
            file.seek(0)
        first_frame = file.read(1500)
    return b"Xing" in first_frame or b"Info" in first_frame


def _mix(piece: np.ndarray, channels: int) -> np.ndarray:
    """[n, any] -> [n, channels]"""
    if piece.shape[1] == channels:
        return np.ascontiguousarray(piece)
    return np.repeat(piece.mean(axis=1, keepdims=True, dtype=np.float32), channels, axis=1)


def _runs_of_one_rate(frames: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Joined files may change their sample rate on the way; each run of one rate gets a resampler of its own."""
    held = next(frames, None)

    def run(rate: int) -> Iterator[np.ndarray]:
        nonlocal held
        while held is not None and held[0] == rate:
            piece, held = held[1], None
            yield piece
            held = next(frames, None)

    while held is not None:
        yield held[0], run(held[0])


def _fixed(pieces: Iterator[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """The same samples in pieces of `length`, the last one shorter."""
    held: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += len(piece)
        if count >= length:
            whole = np.concatenate(held)
            full = math.floor(count / length) * length
            for start in range(0, full, length):
                yield whole[start : start + length]
            held, count = [whole[full:]], count - full
    if count:
        yield np.concatenate(held)


def _with_last(pieces: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    held = next(pieces, None)
    for piece in pieces:
        yield held, False
        held = piece
    if held is not None:
        yield held, True
