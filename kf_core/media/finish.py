"""A growing film becomes an ordinary MP4 where it lies, and a growing one again, byte for byte.

    1  a full index is added at the end under the name `free`, which players skip
    2  it gets its own name; a fragmented file with a second `moov` is played by its first
    3  the placeholder becomes the head of an `mdat` that holds everything up to the index: its size first, then its name

Each step is on the disk before the next one begins, so whatever stops it, the file plays and can be gone on with. No frame is copied.
Source: the hybrid MP4 of OBS Studio 30.2 (plugins/obs-outputs/mp4-mux.c), which does the same to a file of its own.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from ..writing import sync
from .boxes import boxes_in
from .fragments import PLACEHOLDER, Fragments, read_fragments, write_at
from .index import full_index


def finish(file: BinaryIO) -> bool:
    """Whether the film is an ordinary MP4 now. One begun before there was a placeholder, or of which no index can be made, stays as it is.

    Needs an unbuffered file. Raises OSError where there is no room for the index, for instance; then, too, the film is as it was."""
    found = read_fragments(file)
    if found.is_finished or found.placeholder is None or not found.is_fragmented or not found.frames:
        return found.is_finished
    stop, placeholder = found.stop, found.placeholder
    try:
        index = full_index(_header(file, found), _moofs(file, found))
    except ValueError:  # fragments that do not follow one another
        return False
    try:
        unfinish(file, found)  # what an attempt before this one left
        write_at(file, stop, index[:4] + b"free" + index[8:])
        write_at(file, stop + 4, b"moov")
        write_at(file, placeholder + 8, struct.pack(">Q", stop - placeholder))
        write_at(file, placeholder, struct.pack(">I4s", 1, b"mdat"))
    except BaseException:
        unfinish(file, found)
        raise
    return True


def unfinish(file: BinaryIO, found: Fragments) -> None:
    """The growing file, as it was before `finish`, and without what is broken at its end. `found`: what is in it."""
    if found.placeholder is not None:
        file.seek(found.placeholder)
        if file.read(len(PLACEHOLDER)) != PLACEHOLDER:
            write_at(file, found.placeholder, PLACEHOLDER[:8])  # first: until then the index is needed
            write_at(file, found.placeholder + 8, PLACEHOLDER[8:])
    file.truncate(found.stop)
    sync(file)


def _header(file: BinaryIO, found: Fragments) -> bytes:
    """The content of the growing file's `moov`."""
    box = next(boxes_in(file, found.placeholder + len(PLACEHOLDER), found.header_length))
    file.seek(box.content)
    return file.read(box.stop - box.content)


def _moofs(file: BinaryIO, found: Fragments) -> Iterator[tuple[int, bytes]]:
    for fragment in found.whole:
        file.seek(fragment.start)
        size = struct.unpack(">I", file.read(4))[0]
        file.seek(fragment.start + 8)
        yield fragment.start, file.read(size - 8)
