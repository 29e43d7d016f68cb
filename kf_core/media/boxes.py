"""The boxes an MP4 is made of: a size, a name of four letters, and a content, which may be boxes again. Found, and built.

Knows nothing of films. Source: ISO/IEC 14496-12, 4.2.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class Box:
    """Where a box lies in a file."""

    kind: bytes
    start: int  # bytes from the beginning of the file
    content: int
    stop: int


def boxes_in(file: BinaryIO, start: int, stop: int) -> Iterator[Box]:
    """The whole boxes between two places of a file; ends quietly at one that is cut off or nonsense."""
    while start + 8 <= stop:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind, content = struct.unpack_from(">I", head)[0], head[4:8], start + 8
        if size == 1 and len(head) == 16:
            size, content = struct.unpack_from(">Q", head, 8)[0], start + 16
        if start + size < content or start + size > stop:
            return
        yield Box(kind, start, content, start + size)
        start += size


def boxes_of(content: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Name and content of each box in the content of another, held in memory. Raises ValueError where one is cut off or nonsense."""
    content = memoryview(content)
    while content:
        size, kind = struct.unpack_from(">I4s", content) if len(content) >= 8 else (0, b"")
        if not 8 <= size <= len(content):
            raise ValueError(f"a box of {size} bytes in {len(content)}")
        yield kind, content[8:size]
        content = content[size:]


def box(kind: bytes, *content: bytes | memoryview) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


def full_box(kind: bytes, version: int, *content: bytes | memoryview) -> bytes:
    """A box that begins with its version and 24 flags, which are 0."""
    return box(kind, bytes((version, 0, 0, 0)), *content)
