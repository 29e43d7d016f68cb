"""What a fragmented MP4 holds, read from its boxes alone: which fragments are whole, and what is in them.

A fragmented MP4 is a header (`ftyp`, `moov`) and then fragments, each a `moof` (what and when) with its `mdat` (the bytes).
Players skip a `free` box, also one that is cut off, but refuse a file that ends inside a `moof`: so a fragment is written under the
name `free` and gets its own name when it is whole. Knows nothing of codecs. Source: ISO/IEC 14496-12, 8.1.2 and 8.8.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

PICTURE_TRACK, SOUND_TRACK = 1, 2  # the order in which the writer adds them


@dataclass(frozen=True)
class Box:
    kind: bytes
    start: int  # bytes from the beginning of the file
    content: int
    stop: int


@dataclass(frozen=True)
class Fragment:
    """One `moof` and its `mdat`. A fragment without pictures is the end of the sound."""

    start: int  # bytes from the beginning of the file
    stop: int
    pictures: int
    sound_packets: int
    sound_time: int  # of its first packet, in samples on the track's clock


@dataclass(frozen=True)
class Fragments:
    header_length: int  # bytes; 0: there is no whole header
    whole: tuple[Fragment, ...]
    length: int  # bytes of the file, with what is broken at its end
    is_fragmented: bool  # False: a file of another kind, which must not be cut

    @property
    def pictures(self) -> int:
        return sum(fragment.pictures for fragment in self.whole)


def read_fragments(file: BinaryIO) -> Fragments:
    """What is whole in `file`; never reads the bytes of pictures or sound, so hours are read in a moment."""
    length = file.seek(0, 2)
    header_length, fragments, moof, kinds = 0, [], None, []
    is_fragmented = True
    safe = 0
    for box in _boxes(file, 0, length):
        if box.kind == b"free" and header_length:
            break  # a fragment that was not written to its end
        kinds.append(box.kind)
        safe = box.stop
        if box.kind == b"moov":
            header_length = box.stop
            is_fragmented = any(inner.kind == b"mvex" for inner in _boxes(file, box.content, box.stop))
        elif box.kind == b"moof":
            moof = box
        elif box.kind == b"mdat" and moof is not None:
            fragments.append(_fragment(file, moof, box.stop))
            moof = None
    rest = _cut_off_kind(file, safe, length)
    kinds.append(b"moof" if rest == b"free" and header_length else rest)
    order = [b"ftyp", b"moov"] + [b"moof", b"mdat"] * (len(kinds) // 2)
    is_fragmented &= all(needed.startswith(kind) for needed, kind in zip(order, kinds, strict=False))
    return Fragments(header_length, tuple(fragments), length, is_fragmented)


def write_fragment(file: BinaryIO, start: int, header: bytes, fragment: bytes) -> None:
    """Put a fragment (and in front of the first one the header) at byte `start` of an unbuffered file, so that it is whole or not there."""
    if fragment[4:8] != b"moof":
        raise ValueError(f"a fragment starts with a moof, got {fragment[4:8]!r}")
    file.seek(start)
    view = memoryview(header + fragment[:4] + b"free" + fragment[8:])
    while view:
        view = view[file.write(view) :]
    os.fsync(file.fileno())
    file.seek(start + len(header) + 4)
    file.write(b"moof")
    os.fsync(file.fileno())


def split(data: bytes) -> tuple[bytes, bytes]:
    """Header and fragments of a fragmented MP4 in memory."""
    start = 0
    while start + 8 <= len(data) and data[start + 4 : start + 8] != b"moof":
        start += struct.unpack_from(">I", data, start)[0]
    return data[:start], data[start:]


def _fragment(file: BinaryIO, moof: Box, stop: int) -> Fragment:
    pictures = sound_packets = sound_time = 0
    for traf in _boxes(file, moof.content, moof.stop):
        if traf.kind != b"traf":
            continue
        track = time = count = 0
        for box in _boxes(file, traf.content, traf.stop):
            if box.kind == b"tfhd":
                track = _number(file, box.content + 4, ">I")
            elif box.kind == b"tfdt":
                version_1 = _number(file, box.content, ">B") == 1
                time = _number(file, box.content + 4, ">Q" if version_1 else ">I")
            elif box.kind == b"trun":
                count += _number(file, box.content + 4, ">I")
        if track == PICTURE_TRACK:
            pictures += count
        elif track == SOUND_TRACK:
            sound_packets, sound_time = count, time
    return Fragment(moof.start, stop, pictures, sound_packets, sound_time)


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[Box]:
    """The whole boxes between two places; ends quietly at one that is cut off or nonsense."""
    while start + 8 <= stop:
        file.seek(start)
        head = file.read(16)
        size, kind, content = struct.unpack_from(">I", head)[0], head[4:8], start + 8
        if size == 1 and len(head) == 16:
            size, content = struct.unpack_from(">Q", head, 8)[0], start + 16
        if start + size < content or start + size > stop:
            return
        yield Box(kind, start, content, start + size)
        start += size


def _cut_off_kind(file: BinaryIO, start: int, stop: int) -> bytes:
    """The name, or the beginning of it, of a box that was not written to its end."""
    file.seek(start)
    return file.read(min(8, stop - start))[4:]


def _number(file: BinaryIO, start: int, form: str) -> int:
    file.seek(start)
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]
