"""Latents on disk, appended chunk by chunk: who comes later reads instead of computing.

One file for one recipe. A record is whole or it is not there; the file may grow while others read it. Two writers of one recipe write
the same bytes in the same places, so they need no lock. Knows nothing of how latents are made or shown.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from .chunks import LatentChunk
from .timeline import LatentSpan

_HEAD = struct.Struct("<4s8sIIIIIIIII")  # mark, dtype, index, span, shape, length of the bytes ... and their checksum
_MARK = b"KFL1"
_DTYPES = {b"float16": torch.float16, b"bfloat16": torch.bfloat16, b"float32": torch.float32, b"float64": torch.float64}


class Spool:
    """The latents of one recipe.

    Invariants
    - `append` has the record on the disk when it returns; a record that was cut off is not there for anyone, and is written over.
    - What is read is what was appended, bit for bit. A record whose bytes have changed is not there, nor what follows it, from when it
      is read on; so it is written over, too.
    - Opening costs no more for hours than for minutes, but for a glance at each record's head.
    """

    def __init__(self, folder: Path | str, recipe: str) -> None:
        self.path = Path(folder) / f"{recipe}.latents"
        self._starts: list[int] = []  # of the whole records, in bytes
        self._stop = 0
        self._changed: int | None = None  # where a record begins that is not what was appended

    def __len__(self) -> int:
        """How many chunks there are now."""
        if self.path.exists():
            with self.path.open("rb") as file:
                self._find(file)
        return len(self._starts)

    def read(self, index: int) -> LatentChunk | None:
        """Chunk number `index`, on the CPU; None when it is not there (yet)."""
        if not self.path.exists():
            return None
        with self.path.open("rb") as file:
            if index >= len(self._starts):
                self._find(file)
            if index >= len(self._starts):
                return None
            found = _chunk(file, self._starts[index])
        if found is None:
            self._changed = self._stop = self._starts[index]
            del self._starts[index:]
        return found

    def holds(self, start: int, stop: int) -> bool:
        """Whether chunks start .. stop - 1 are there, bit for bit."""
        return all(self.read(index) is not None for index in range(start, stop))

    def append(self, chunk: LatentChunk) -> None:
        """Put `chunk` at the end. One that is there already is left as it is."""
        there = len(self)
        if chunk.index < there:
            return
        if chunk.index > there:
            raise ValueError(f"the spool holds chunks 0 .. {there - 1}, so number {chunk.index} cannot be appended")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = _bytes(chunk.latents)
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            file.truncate(self._stop)
            file.seek(self._stop)
            file.write(_head(chunk, data) + data)
            file.flush()
            os.fsync(file.fileno())
        self._starts.append(self._stop)
        self._stop += _HEAD.size + len(data)
        self._changed = None

    def _find(self, file: BinaryIO) -> None:
        """Look for records beyond those that are known.

        Each was on the disk before the next one was begun, so a crash can only have broken the last: its bytes are checked here, those of
        the others when they are read."""
        known, length = len(self._starts), file.seek(0, 2)
        while self._stop + _HEAD.size <= length and self._stop != self._changed:
            file.seek(self._stop)
            mark, _, index, *_, num_bytes, _ = _HEAD.unpack(file.read(_HEAD.size))
            stop = self._stop + _HEAD.size + num_bytes
            if mark != _MARK or index != len(self._starts) or stop > length:
                break
            self._starts.append(self._stop)
            self._stop = stop
        while len(self._starts) > known and _chunk(file, self._starts[-1]) is None:
            self._stop = self._starts.pop()


def _head(chunk: LatentChunk, data: bytes) -> bytes:
    name = str(chunk.latents.dtype).removeprefix("torch.").encode()
    b, c, _, h, w = chunk.latents.shape
    return _HEAD.pack(_MARK, name, chunk.index, chunk.span.start, chunk.span.stop, b, c, h, w, len(data), zlib.crc32(data))


def _chunk(file: BinaryIO, start: int) -> LatentChunk | None:
    file.seek(start)
    _, name, index, first, stop, b, c, h, w, num_bytes, checksum = _HEAD.unpack(file.read(_HEAD.size))
    data = file.read(num_bytes)
    if zlib.crc32(data) != checksum:
        return None
    span = LatentSpan(first, stop)
    latents = torch.frombuffer(bytearray(data), dtype=_DTYPES[name.rstrip(b"\0")]).view(b, c, span.length, h, w)
    return LatentChunk(index, span, latents)


def _bytes(latents: Tensor) -> bytes:
    return latents.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
