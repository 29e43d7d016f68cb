"""What a film's file holds, read from its boxes alone: which fragments are whole, what is in them, whether it is finished.

    growing   = ftyp | free (a placeholder of 16 bytes) | moov | moof mdat | moof mdat | ...
    finished  = ftyp | mdat ( its head, in place of it  | moov | moof mdat | moof mdat | ... ) | moov (the full index)

A fragment is a `moof` (what and when) with its `mdat` (the bytes). Players skip a `free` box, also one that is cut off, but refuse a file
that ends inside a `moof`: so a fragment is written under the name `free` and gets its own name when it is whole. `finish.py` makes one
form of the other. Knows nothing of codecs. Source: ISO/IEC 14496-12, 8.1.2 and 8.8.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ..writing import sync
from .boxes import Box, boxes_in, boxes_of

FRAME_TRACK, SOUND_TRACK = 1, 2  # the order in which the writer adds them
PLACEHOLDER = struct.pack(">I4sQ", 16, b"free", 0)


@dataclass(frozen=True)
class Fragment:
    """One `moof` and its `mdat`. A fragment without frames is the end of the sound."""

    start: int  # bytes from the beginning of the file
    stop: int
    frames: int
    sound_packets: int
    sound_time: int  # of its first packet, in samples on the track's clock


@dataclass(frozen=True)
class Fragments:
    header_length: int  # bytes; 0: there is no whole header
    whole: tuple[Fragment, ...]
    length: int  # bytes of the file, with what is broken at its end
    is_fragmented: bool  # False: a file of another kind, which must not be cut
    placeholder: int | None = None  # where it lies; None: a file from before there was one, which cannot be finished
    is_finished: bool = False  # an ordinary MP4

    @property
    def frames(self) -> int:
        return sum(fragment.frames for fragment in self.whole)

    @property
    def stop(self) -> int:
        """Where the growing file ends: what is behind it is an index, or broken."""
        return self.whole[-1].stop if self.whole else self.header_length


@dataclass(frozen=True)
class TrackFragment:
    """What a `moof` says of one track."""

    track: int
    time: int  # of its first sample, on the track's clock
    header: memoryview  # content of `tfhd`
    runs: tuple[memoryview, ...]  # contents of `trun`

    @property
    def num_samples(self) -> int:
        return sum(struct.unpack_from(">I", run, 4)[0] for run in self.runs)


def read_fragments(file: BinaryIO) -> Fragments:
    """What is whole in `file`; never reads the bytes of frames or sound, so hours are read in a moment."""
    length = file.seek(0, 2)
    placeholder = _placeholder(file, length)
    header_length, fragments, moof = 0, [], None
    expected, safe, is_fragmented = b"ftyp", 0, True
    for found in _growing_boxes(file, placeholder, length):
        is_between = expected == b"moov" and (found.kind == b"uuid" or (found.kind == b"free" and found.stop - found.start == 16))
        if found.kind != expected and not is_between:
            break
        safe = found.stop
        if found.kind == b"ftyp":
            expected = b"moov"
        elif found.kind == b"moov":
            expected, header_length, is_fragmented = b"moof", found.stop, _names_in(file, found).count(b"mvex") == 1
        elif found.kind == b"moof":
            expected, moof = b"mdat", found
        elif found.kind == b"mdat":
            expected = b"moof"
            fragments.append(_fragment(file, moof, found.stop))
    is_fragmented &= _may_be_cut(file, safe, length, expected, has_placeholder=placeholder is not None)
    index = None if placeholder is None else _index(file, placeholder, length)
    is_finished = bool(fragments) and index is not None and fragments[-1].stop == index.start
    return Fragments(header_length, tuple(fragments), length, is_fragmented, placeholder, is_finished)


def num_frames(file: BinaryIO) -> int:
    """How many frames the film has. A finished one says so in its index; the fragments of a growing one are counted."""
    length = file.seek(0, 2)
    placeholder = _placeholder(file, length)
    index = None if placeholder is None else _index(file, placeholder, length)
    if index is None:
        return read_fragments(file).frames
    for track in boxes_in(file, index.content, index.stop):
        if track.kind == b"trak":
            header, sizes = _find(file, track, b"tkhd"), _find(file, track, b"mdia", b"minf", b"stbl", b"stsz")
            if track_of(_bytes(file, header.start, header.stop - header.start)) == FRAME_TRACK:
                return _number(file, sizes.content + 8, ">I")
    return 0


def write_fragment(file: BinaryIO, start: int, header: bytes, fragment: bytes) -> None:
    """Put a fragment (and in front of the first one the header) at byte `start` of an unbuffered file, so that it is whole or not there."""
    if fragment[4:8] != b"moof":
        raise ValueError(f"a fragment starts with a moof, got {fragment[4:8]!r}")
    write_at(file, start, header + fragment[:4] + b"free" + fragment[8:])
    write_at(file, start + len(header) + 4, b"moof")


def write_at(file: BinaryIO, start: int, data: bytes) -> None:
    """Put bytes at a place of an unbuffered file, and wait until the disk has them."""
    file.seek(start)
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    sync(file)


def track_of(trak: bytes | memoryview) -> int:
    """The number of the track that the content of a `trak` describes."""
    header = next(content for kind, content in boxes_of(trak) if kind == b"tkhd")
    return struct.unpack_from(">I", header, 20 if header[0] else 12)[0]


def track_fragments(moof: bytes | memoryview) -> Iterator[TrackFragment]:
    """What the content of a `moof` says, track by track."""
    for kind, traf in boxes_of(moof):
        if kind == b"traf":
            inner = list(boxes_of(traf))
            header = next(content for name, content in inner if name == b"tfhd")
            clock = next(content for name, content in inner if name == b"tfdt")
            time = struct.unpack_from(">Q" if clock[0] == 1 else ">I", clock, 4)[0]
            track = struct.unpack_from(">I", header, 4)[0]
            yield TrackFragment(track, time, header, tuple(content for name, content in inner if name == b"trun"))


def _fragment(file: BinaryIO, moof: Box, stop: int) -> Fragment:
    frames = sound_packets = sound_time = 0
    file.seek(moof.content)
    for part in track_fragments(file.read(moof.stop - moof.content)):
        if part.track == FRAME_TRACK:
            frames += part.num_samples
        elif part.track == SOUND_TRACK:
            sound_packets, sound_time = part.num_samples, part.time
    return Fragment(moof.start, stop, frames, sound_packets, sound_time)


def _placeholder(file: BinaryIO, length: int) -> int | None:
    """Where the 16 bytes lie that are a `free` box or the head of an `mdat`: before the first `moov`, whatever their name is."""
    place = 0
    for found in boxes_in(file, 0, length):
        if found.kind not in (b"ftyp", b"uuid"):
            break
        place = found.stop
    file.seek(place)
    head = file.read(24)
    return place if place and head[20:] == b"moov" and head[:4] in (PLACEHOLDER[:4], bytes((0, 0, 0, 1))) else None


def _index(file: BinaryIO, placeholder: int, length: int) -> Box | None:
    """The full index of a finished film."""
    parts = next(boxes_in(file, placeholder, length), None)
    if parts is None or parts.kind != b"mdat" or parts.content != placeholder + 16:
        return None
    found = next(boxes_in(file, parts.stop, length), None)
    return found if found is not None and found.kind == b"moov" and b"mvex" not in _names_in(file, found) else None


def _growing_boxes(file: BinaryIO, placeholder: int | None, stop: int) -> Iterator[Box]:
    """The boxes that the growing file has, also where they are inside the `mdat` of a finished one."""
    start = 0
    if placeholder is not None:
        start = placeholder + len(PLACEHOLDER)
        yield from boxes_in(file, 0, placeholder)
        yield Box(b"free", placeholder, placeholder + 8, start)
    yield from boxes_in(file, start, stop)


def _may_be_cut(file: BinaryIO, start: int, stop: int, expected: bytes, has_placeholder: bool) -> bool:
    """Whether what lies behind the whole boxes was left by a writer of films that was stopped."""
    name = _bytes(file, start, min(8, stop - start))[4:]
    names = [expected]
    if expected == b"moov" and stop - start < 16:
        names.append(b"free")  # the placeholder itself
    is_left = any(wanted.startswith(name) for wanted in names)
    if expected == b"moof":
        is_left |= _is_between(name, b"free", b"moof") or (has_placeholder and _is_between(name, b"free", b"moov"))
    return is_left


def _is_between(name: bytes, before: bytes, after: bytes) -> bool:
    """Whether a box has one of two names, or some letters of each: it was being renamed."""
    return all(letter in pair for letter, *pair in zip(name, before, after, strict=False))


def _names_in(file: BinaryIO, outer: Box) -> list[bytes]:
    return [inner.kind for inner in boxes_in(file, outer.content, outer.stop)]


def _find(file: BinaryIO, outer: Box, *path: bytes) -> Box:
    for kind in path:
        outer = next(inner for inner in boxes_in(file, outer.content, outer.stop) if inner.kind == kind)
    return outer


def _number(file: BinaryIO, start: int, form: str) -> int:
    return struct.unpack(form, _bytes(file, start, struct.calcsize(form)))[0]


def _bytes(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)
