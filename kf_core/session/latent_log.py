"""Latents on disk, appended chunk by chunk: who comes later reads instead of computing.

One file for one recipe. A record is whole or it is not there; the file may grow while others read it. Two writers of one recipe write
the same bytes in the same places, so they need no lock. With a chunk's latents goes its knot, so that a stream can go on from the last
record, whatever ended the process. Knows nothing of how latents are made or shown.

    LatentLog(folder, recipe)       all chunks of a stream, for whoever has the same recipe
    LatentLog.beside(path, recipe)  a log: those since the state was saved; `forget` drops what the next state has
"""

import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ..errors import KnotForcingError
from ..timeline import LatentSpan
from ..types import LatentChunk
from ..writing import sync, why

# mark, recipe, dtype, index, span, shape, frames of the knot, length of the bytes ... and their checksum
_HEAD = struct.Struct("<4s32s8sIIIIIIIIII")
_MARK = b"KFL2"
_DTYPES = {b"float16": torch.float16, b"bfloat16": torch.bfloat16, b"float32": torch.float32, b"float64": torch.float64}


class LatentLog:
    """The latents of one recipe.

    Invariants
    - `append` has the record on the disk when it returns; a record that was cut off is not there for anyone, and is written over.
    - What is read is what was appended, bit for bit. A record whose bytes have changed is not there, nor what follows it, from when it
      is read on; so it is written over, too. Nor is a record of another recipe.
    - Opening costs no more for hours than for minutes, but for a glance at each record's head.
    """

    def __init__(self, folder: Path | str, recipe: str) -> None:
        self.path = Path(folder) / f"{recipe}.latents"
        self._recipe = recipe.encode()[:32].ljust(32, b"\0")
        self._begins_anywhere = False
        self._forget_all()

    @classmethod
    def beside(cls, path: Path, recipe: str) -> "LatentLog":
        """A log in this file: it may begin with any chunk, and begins anew when one is appended that does not follow."""
        log = cls(path.parent, recipe)
        log.path, log._begins_anywhere = path, True
        return log

    def __len__(self) -> int:
        """How many chunks there are now."""
        self._look()
        return len(self._starts)

    @property
    def first(self) -> int:
        """The first chunk that is there; 0 where none is."""
        self._look()
        return self._first

    @property
    def stop(self) -> int:
        """The chunk that would follow."""
        return self.first + len(self._starts)

    @property
    def num_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def reaches(self, index: int) -> bool:
        """Whether chunk `index` is there, or may be the next to be appended."""
        return self._begins_anywhere or self.first <= index <= self.stop

    def read(self, index: int) -> LatentChunk | None:
        """Chunk number `index`, on the CPU; None when it is not there (yet)."""
        if not 0 <= index - self._first < len(self._starts):
            self._look()
        place = index - self._first
        if not 0 <= place < len(self._starts):
            return None
        try:
            with self.path.open("rb") as file:
                found = self._chunk(file, self._starts[place])
        except FileNotFoundError:
            found = None
        if found is None:
            self._changed = self._stop = self._starts[place]
            del self._starts[place:]
        return found

    def holds(self, start: int, stop: int) -> bool:
        """Whether chunks start .. stop - 1 are there, bit for bit."""
        return all(self.read(index) is not None for index in range(start, stop))

    def append(self, chunk: LatentChunk) -> None:
        """Put `chunk` at the end. One that is there already is left as it is. Raises KnotForcingError when it cannot be written."""
        first, stop = self.first, self.stop
        if first <= chunk.index < stop:
            return
        if chunk.index != stop:
            if not self._begins_anywhere:
                raise ValueError(f"the spool holds chunks {first} .. {stop - 1}, so number {chunk.index} cannot be appended")
            self._forget_all()
            self._first = chunk.index
        data = _bytes(chunk.latents) + (b"" if chunk.knot is None else _bytes(chunk.knot.to(chunk.latents)))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
                file.truncate(self._stop)
                file.seek(self._stop)
                file.write(self._head(chunk, data) + data)
                file.flush()
                sync(file)
        except OSError as problem:
            found, remedy = why(problem, self.path)
            raise KnotForcingError(
                f"What was denoised cannot be kept: {self.path} cannot be written, because {found}. {remedy}. What was made so far is kept."
            ) from problem
        self._starts.append(self._stop)
        self._stop += _HEAD.size + len(data)
        self._changed = None

    def forget(self, before: int) -> None:
        """Drop the chunks before this one: what is left takes their place at once, or not at all."""
        place = min(max(0, before - self.first), len(self._starts))
        if not place:
            return
        fresh = self.path.with_name(self.path.name + ".new")
        try:
            with self.path.open("rb") as file:
                file.seek(self._starts[place] if place < len(self._starts) else self._stop)
                fresh.write_bytes(file.read(self._stop - file.tell()))
            os.replace(fresh, self.path)
        except OSError:  # a log that is longer than it need be does no harm
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            return
        self._forget_all()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._forget_all()

    def _forget_all(self) -> None:
        """Nothing is known of the file."""
        self._first = 0
        self._starts: list[int] = []  # of the whole records, in bytes
        self._stop = 0
        self._changed: int | None = None  # where a record begins that is not what was appended

    def _look(self) -> None:
        """Look for records beyond those that are known.

        Each was on the disk before the next one was begun, so a crash can only have broken the last: its bytes are checked here, those of
        the others when they are read."""
        if not self.path.exists():
            self._forget_all()
            return
        with self.path.open("rb") as file:
            known, length = len(self._starts), file.seek(0, 2)
            if length < self._stop:
                self._forget_all()  # somebody else made it shorter
                known = 0
            while self._stop + _HEAD.size <= length and self._stop != self._changed:
                file.seek(self._stop)
                mark, recipe, _, index, *_, num_bytes, _ = _HEAD.unpack(file.read(_HEAD.size))
                expected = index if self._begins_anywhere and not self._starts else self._first + len(self._starts)
                stop = self._stop + _HEAD.size + num_bytes
                if (mark, recipe, index) != (_MARK, self._recipe, expected) or stop > length:
                    break
                self._first = index - len(self._starts)
                self._starts.append(self._stop)
                self._stop = stop
            while len(self._starts) > known and self._chunk(file, self._starts[-1]) is None:
                self._stop = self._starts.pop()

    def _head(self, chunk: LatentChunk, data: bytes) -> bytes:
        name = str(chunk.latents.dtype).removeprefix("torch.").encode()
        b, c, _, h, w = chunk.latents.shape
        knot = 0 if chunk.knot is None else chunk.knot.shape[2]
        said = (_MARK, self._recipe, name, chunk.index, chunk.span.start, chunk.span.stop, b, c, h, w, knot)
        return _HEAD.pack(*said, len(data), zlib.crc32(data))

    def _chunk(self, file: BinaryIO, start: int) -> LatentChunk | None:
        file.seek(start)
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        _, _, name, index, first, stop, b, c, h, w, knot, num_bytes, checksum = _HEAD.unpack(head)
        data = file.read(num_bytes)
        if zlib.crc32(data) != checksum:
            return None
        span, values = LatentSpan(first, stop), torch.frombuffer(bytearray(data), dtype=_DTYPES[name.rstrip(b"\0")])
        latents = values[: b * c * span.length * h * w].view(b, c, span.length, h, w)
        return LatentChunk(index, span, latents, values[latents.numel() :].view(b, c, knot, h, w) if knot else None)


def is_log(path: Path) -> bool:
    """Whether a file may be written over by latents: it holds some, or it is empty or not there."""
    try:
        with path.open("rb") as file:
            return file.read(3) in (b"", _MARK[:3])
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _bytes(latents: Tensor) -> bytes:
    return latents.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
