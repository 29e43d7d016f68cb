"""Sound out of any file PyAV can open, in blocks: a three-hour file costs no more memory than a second of it.

    packets --decode--> frames --by their stamps--> a timeline without gaps --by their layout--> channels --soxr--> blocks

Time 0 is where a player begins: with the first frame or the first sound, whichever comes first. Reading is always forward in pieces of
one fixed length, so two readings give the same numbers bit for bit; a reading that begins late gives them to 1e-6.
Knows nothing of models or features; `conditioning/audio.py` listens through this, the video writer copies its track from it.
PyAV is imported where a file is read: who hears arrays only, as training does, needs none.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import KnotForcingError
from .channels import Mixer, finite, unreal
from .loudness import SILENT, remark, voice_level
from .opening import opened, start_of
from .resampling import resampled
from .stamps import Stamped, placed

if TYPE_CHECKING:
    import av

BLOCK_SECONDS = 1.0
TAIL_SECONDS = 2.0  # how much of the end is looked at to believe a header's duration
LOOKED_AT_SECONDS = 600.0  # of a file, to say what is wrong with its level or its samples
AUDIBLE_SECONDS = 60.0  # of a track, to see whether there is anything on it
AUDIBLE = 1e-4  # -80 dBFS
UNINDEXED = {"mp3", "aac", "ac3", "eac3", "dts", "amr", "loas"}  # bare streams: FFmpeg guesses their duration from the bit rate
JOINABLE = UNINDEXED | {"ogg", "mpegts", "mpeg", "flac"}  # files of these kinds are files when joined, too
STAMPS_MAY_JUMP = 0x0200  # AVFMT_TS_DISCONT
COUNTED_IN_HEADER = {"flac"}  # of these
COUNTED = {"wav", "w64", "aiff", "au", "caf"}  # a stamp is the place in the file, so that one can begin anywhere


@dataclass(frozen=True)
class SoundFile:
    """The sound track of a file that a player would play. Raises KnotForcingError when there is none to be had."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if os.path.isfile(self.path) and self.path.stat().st_size == 0:
            raise KnotForcingError(
                f"The audio file {self.path} is empty (0 bytes). It may not have finished downloading; choose another file."
            )
        with closing(self._decoded()) as frames:
            if next(frames, None) is None:
                raise KnotForcingError(
                    f"No sound could be decoded from {self.path}: it is damaged or cut off at once. Export it again, for example as WAV."
                )

    @property
    def seconds(self) -> float:
        """How long the sound plays, measured from what is really in the file."""
        return self._length[0]

    @cached_property
    def note(self) -> str:
        """What the user wants to know of the file, in a sentence or more; otherwise empty."""
        return " ".join(filter(None, (self._length[1], *self._heard_wrong)))

    def blocks(self, sample_rate: int, channels: int = 1, block_seconds: float = BLOCK_SECONDS, start: int = 0) -> Iterator[np.ndarray]:
        """The sound from sample `start` on as float32 blocks [n, channels], -1..1, each of `block_seconds` but the last.

        One channel is played on all; more are mixed as `channels.py` says."""
        length = max(1, round(block_seconds * sample_rate))
        pending = np.zeros((0, channels), np.float32)
        for piece in self._resampled(sample_rate, channels, start):
            pending = np.concatenate((pending, piece))
            while len(pending) >= length:
                yield pending[:length]
                pending = pending[length:]
        if len(pending):
            yield pending

    def _resampled(self, sample_rate: int, channels: int, start: int) -> Iterator[np.ndarray]:
        """From sample `start` on. The resampler is fed pieces of one fixed length, so that what it answers depends on the file alone."""
        begun = max(0, start // sample_rate - 3) if self._facts.is_counted else 0  # whole seconds that need not even be decoded
        start -= begun * sample_rate
        for kind, pieces in _runs_of_one_kind(self._timeline(begun)):
            mix = Mixer(kind.layout, kind.channels, channels)
            start = yield from resampled(_fixed(pieces, kind.rate), kind.rate, sample_rate, channels, mix, start)

    def _timeline(self, begun: int = 0) -> Iterator[tuple[_Kind, np.ndarray]]:
        """What is played, without gap, from second `begun` on: [n, its own channels] float32. A pause in the stamps is silence."""
        owed = 0.0  # of a sample, from rounding pauses
        for silence, piece in placed(self._decoded(begun), self._facts.start + begun, self._facts.may_jump):
            kind, samples = piece.content
            owed += silence * kind.rate
            whole = round(owed)
            owed -= whole
            for left in range(max(0, whole), 0, -kind.rate):
                yield kind, np.zeros((min(left, kind.rate), kind.channels), np.float32)
            if len(samples := finite(samples[max(0, -whole) :])):
                yield kind, samples

    def _decoded(self, begun: int = 0, track: int | None = None) -> Iterator[Stamped]:
        """Each frame from second `begun` on, its content being (kind, [n, channels] float32).

        A packet that cannot be decoded leaves a pause in the stamps; where there are none, it is replaced by silence of its length."""
        import av

        with self._open() as container:
            stream = container.streams[self._facts.track if track is None else track]
            if begun:
                container.seek(round((self._facts.start + begun) / stream.time_base), stream=stream)
            kind, to_float, lost = None, None, 0.0
            for packet in _packets(container, stream):
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    lost += float(packet.duration * packet.time_base) if packet.duration else 0.0
                    continue
                for frame in frames:
                    if frame.samples == 0:
                        continue
                    found = _Kind(frame.sample_rate, frame.layout.name, frame.layout.nb_channels, frame.format.name)
                    if kind != found:
                        kind, to_float = found, av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
                    time = frame.time
                    samples = np.concatenate([packed.to_ndarray().reshape(-1, kind.channels) for packed in to_float.resample(frame)])
                    if lost and time is None:
                        samples = np.concatenate((np.zeros((round(lost * kind.rate), kind.channels), np.float32), samples))
                    lost = 0.0
                    if begun and time is not None and (early := round((self._facts.start + begun - time) * kind.rate)) > 0:
                        samples, time = samples[early:], time + early / kind.rate
                    if len(samples):
                        yield Stamped(time, len(samples) / kind.rate, (kind, samples))

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

    # ---- what the file says of itself ----

    @cached_property
    def _facts(self) -> _Facts:
        from av.stream import Disposition

        with self._open() as container:
            tracks = container.streams.audio
            defaults = [track.index for track in tracks if Disposition.default in track.disposition]
            chosen = defaults or [track.index for track in tracks]
            if len(chosen) > 1:
                chosen = [next((track for track in chosen if self._is_audible(track)), chosen[0])]
            return _Facts(
                track=chosen[0],
                codec=container.streams[chosen[0]].codec_context.name,
                start=start_of(container),
                formats=frozenset(container.format.name.split(",")),
                may_jump=bool(container.format.flags & STAMPS_MAY_JUMP),
            )

    def _is_audible(self, track: int) -> bool:
        heard = 0.0
        with closing(self._decoded(track=track)) as frames:
            for frame in frames:
                heard += frame.seconds
                if np.abs(finite(frame.content[1])).max() > AUDIBLE:
                    return True
                if heard > AUDIBLE_SECONDS:
                    break
        return False

    @cached_property
    def _length(self) -> tuple[float, str]:
        """Seconds and a note. Looks at packets without decoding: the last ones where a header tells the length, else all of them."""
        import av

        start, joinable = self._facts.start, bool(JOINABLE & self._facts.formats)
        with self._open() as container:
            stream = container.streams[self._facts.track]
            whole = container.duration / av.time_base if container.duration else 0.0
            claimed = float(((stream.start_time or 0) + stream.duration) * stream.time_base) - start if stream.duration else 0.0
            if (claimed or whole) and not joinable:
                try:
                    at = claimed - TAIL_SECONDS if claimed else whole - TAIL_SECONDS
                    container.seek(round((start + max(0.0, at)) / stream.time_base), stream=stream)
                    end, last = _ends(container, stream)
                    if claimed and end - start > claimed - 0.1:
                        return claimed, ""
                    if not claimed and end and last > whole - 0.1:
                        return _nearly(end - start, whole), ""
                except av.error.FFmpegError:
                    pass  # what cannot be sought is read through below
        found, last = self._read_through()
        promised = claimed
        if joinable:  # FFmpeg takes a joined file for its first part, or guesses
            whole = 0.0
            if not COUNTED_IN_HEADER & self._facts.formats:
                promised = _counted_frames(self.path) if "mp3" in self._facts.formats else 0.0
            if not promised and "ogg" not in self._facts.formats:
                claimed = 0.0
        if promised and found < promised - 0.1 or not promised and last < whole - 0.1:
            should = promised or whole
            return (
                found,
                f"{self.path.name} is cut off: it should last {should:.1f} s and ends after {found:.1f} s. What is there is used.",
            )
        return _nearly(found, claimed), ""

    def _read_through(self) -> tuple[float, float]:
        """Where the sound ends on the timeline, and where the last of all tracks does on the file's own clock.

        Packets tell it, but where some do not say how long they are or files were joined; there all is decoded."""
        facts, last, is_told = self._facts, 0.0, True
        with self._open() as container:

            def pieces() -> Iterator[Stamped]:
                nonlocal last, is_told
                before = -math.inf
                for packet in _packets(container):
                    time = None if packet.pts is None else float(packet.pts * packet.time_base)
                    seconds = float((packet.duration or 0) * packet.time_base)
                    last = max(last, (time or 0.0) + seconds)
                    if packet.stream.index == facts.track and packet.size:
                        is_told &= seconds > 0 and time is not None and time > before
                        before = time or 0.0
                        yield Stamped(time, seconds)

            end = _end_of(pieces(), facts)
        return end if is_told else _end_of(self._decoded(), facts), last

    @cached_property
    def _heard_wrong(self) -> tuple[str, ...]:
        """What is to be said of its samples and of its level."""
        wrong, heard, rate = 0, 0.0, 0

        def mono() -> Iterator[np.ndarray]:
            nonlocal wrong, heard, rate
            before = None
            with closing(self._decoded()) as frames:
                for frame in frames:
                    kind, samples = frame.content
                    if heard > LOOKED_AT_SECONDS or rate not in (0, kind.rate):
                        return
                    if kind != before:
                        before, rate, mix = kind, kind.rate, Mixer(kind.layout, kind.channels, 1)
                    heard += frame.seconds
                    wrong += samples.size - np.count_nonzero(np.isfinite(samples))
                    yield mix(finite(samples))[:, 0]

        is_float = self._facts.codec.startswith("pcm_f")  # only there can a sample be no number
        blocks = mono()
        first = next(blocks)
        level = voice_level(itertools.chain([first], blocks), rate, is_whole_wanted=is_float)
        said = [unreal(wrong, self.path.name)]
        if level > SILENT or heard > self.seconds - 1:
            said.append(remark(level, self.path.name))
        return tuple(said)


class _Kind(NamedTuple):
    """How samples come out of a decoder."""

    rate: int
    layout: str
    channels: int
    format: str


@dataclass(frozen=True)
class _Facts:
    track: int  # the stream's index
    codec: str
    start: float  # seconds on the file's own clock, where a player begins
    formats: frozenset[str]
    may_jump: bool

    @property
    def is_counted(self) -> bool:
        return bool(COUNTED & self.formats) and self.codec.startswith("pcm_")


def _packets(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
    """Those that can be read; what is broken ends the file."""
    import av

    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError):
            return
        if packet is None:
            return
        yield packet


def _ends(container: av.container.InputContainer, stream: av.AudioStream) -> tuple[float, float]:
    """When the last packet from here on ends, of one stream and of all, on the file's own clock; 0 where there is none."""
    ends = {stream.index: 0.0}
    for packet in container.demux():
        if packet.size and packet.pts is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            ends[packet.stream.index] = max(ends.get(packet.stream.index, 0.0), end)
    return ends[stream.index], max(ends.values())


def _end_of(pieces: Iterator[Stamped], facts: _Facts) -> float:
    return sum(silence + piece.seconds for silence, piece in placed(pieces, facts.start, facts.may_jump))


def _nearly(found: float, claimed: float) -> float:
    """What a header claims, where it is less than what was found by no more than a decoder's padding."""
    return claimed if claimed and 0 < found - claimed < 0.1 else round(found, 6)


def _counted_frames(path: Path) -> float:
    """How many seconds an MP3 says it plays, where it opens with a Xing or Info frame that counts its frames; otherwise 0.

    Without what its encoder put before and after the sound, where that is said (LAME's tag): at 8 kHz it is a fifth of a second."""
    with path.open("rb") as file:
        tag = file.read(10)
        if tag[:3] == b"ID3":
            file.seek(10 + sum(byte << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True)))
        else:
            file.seek(0)
        frame = file.read(1500)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 4 or len(frame) < at + 12 or not frame[at + 7] & 1:
        return 0.0
    is_mpeg1, is_mpeg2 = frame[1] >> 3 & 3 == 3, frame[1] >> 3 & 3 == 2
    rates = (44_100, 48_000, 32_000, 0)
    rate = rates[frame[2] >> 2 & 3] // (1 if is_mpeg1 else 2 if is_mpeg2 else 4)
    samples = int.from_bytes(frame[at + 8 : at + 12], "big") * (1152 if is_mpeg1 else 576)
    tag = at + 8 + sum(length for bit, length in ((1, 4), (2, 4), (4, 100), (8, 4)) if frame[at + 7] & bit)
    if frame[tag : tag + 4] in (b"LAME", b"Lavf", b"Lavc"):
        padding = int.from_bytes(frame[tag + 21 : tag + 24], "big")
        samples -= (padding >> 12) + (padding & 0xFFF)
    return max(0, samples) / rate if rate else 0.0


def _runs_of_one_kind(frames: Iterator[tuple[_Kind, np.ndarray]]) -> Iterator[tuple[_Kind, Iterator[np.ndarray]]]:
    """Joined files may change their rate or their channels on the way; each run of one kind gets a resampler of its own."""
    for _, run in itertools.groupby(frames, key=lambda frame: frame[0][:3]):
        first = next(run)
        yield first[0], (frame[1] for frame in itertools.chain([first], run))


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
