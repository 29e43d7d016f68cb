"""Streams that are kept on disk: how large they are, which of them go when there are too many, and which are being read.

A folder of files whose names begin with their stream's recipe (32 hexadecimal digits): latents, states. Others were put there by somebody
else, and are neither counted nor removed. A stream goes whole, the one that was used longest ago first, and none goes while somebody
uses it: this process counts its users, and each user holds a lock file that other processes see and that ends with its process. The one
that was used last stays, however large it is, so that what was cancelled can be gone on with. Knows nothing of what is in the files.
"""

import os
import re
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import KnotForcingError

BYTES_PER_GB = 10**9
RECIPE = re.compile(r"[0-9a-f]{32}")
OURS = re.compile(r"\.(latents|state)(\.new)?$")  # `.new`: a writer that was killed left it
LOCK = ".lock"
_used: Counter[tuple[Path, str]] = Counter()  # folder and recipe of what this process uses


@dataclass(frozen=True)
class KeptStream:
    recipe: str  # the beginning of its files' names
    num_bytes: int
    last_used: float  # seconds since 1970
    is_used: bool  # now, by this process or another


class KeptStreams:
    """The kept streams of one folder, `limit_bytes` of them."""

    def __init__(self, folder: Path, limit_bytes: int = 4 * BYTES_PER_GB) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes

    def streams(self) -> list[KeptStream]:
        """All of them, the one that was used last first."""
        found = [self._stream(recipe, files) for recipe, files in self._files().items()]
        return sorted(found, key=lambda stream: stream.last_used, reverse=True)

    @property
    def num_bytes(self) -> int:
        return sum(stream.num_bytes for stream in self.streams())

    @contextmanager
    def use(self, recipe: str) -> Iterator[Path]:
        """The folder, in which this stream's files stay as long as the block lasts. Others go before and after, down to the limit."""
        self.folder.mkdir(parents=True, exist_ok=True)
        key, lock = (self.folder.resolve(), recipe), FileLock(self.folder / f"{recipe}.{uuid.uuid4().hex[:8]}{LOCK}")
        with self._alone():
            lock.acquire()
            _used[key] += 1
        try:
            self._touch(recipe)
            self.trim()
            yield self.folder
        finally:
            self._touch(recipe)
            _used[key] -= 1
            lock.release()
            with suppress(OSError):
                Path(lock.lock_file).unlink(missing_ok=True)
            self.trim()

    def trim(self) -> int:
        """Remove what is too much, and say how many bytes that was."""
        left, removed = self.num_bytes, 0
        for stream in reversed(self.streams()[1:]):
            if left - removed > self.limit_bytes:
                removed += self._remove(stream.recipe)
        return removed

    def empty(self) -> int:
        """Remove all that nobody uses, and say how many bytes that was."""
        return sum(self._remove(stream.recipe) for stream in self.streams())

    def listing(self) -> str:
        """Where they are, how large, and since when, for people."""
        streams = self.streams()

        def size(num_bytes):
            return f"{num_bytes / BYTES_PER_GB:.2f} GB" if num_bytes >= 0.1 * BYTES_PER_GB else f"{num_bytes / 1e6:.1f} MB"

        total = f"{len(streams)} kept {'stream' if len(streams) == 1 else 'streams'}, {size(sum(s.num_bytes for s in streams))}"
        lines = [f"{total} of at most {size(self.limit_bytes)}, in {self.folder}"]
        for stream in streams:
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(stream.last_used))
            lines.append(f"{stream.recipe[:8]}  {size(stream.num_bytes)}  used {used}{', in use now' if stream.is_used else ''}")
        return "\n".join(lines)

    def _files(self) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if OURS.search(path.name) and path.is_file() and not path.is_symlink():
                recipe = RECIPE.match(path.name)
                found[recipe[0] if recipe else path.name].append(path)
        return found

    def _stream(self, recipe: str, files: list[Path]) -> KeptStream:
        facts = []
        for path in files:
            with suppress(FileNotFoundError):
                facts.append(path.stat())
        last = max((fact.st_mtime for fact in facts), default=0.0)
        return KeptStream(recipe, sum(fact.st_size for fact in facts), last, self._is_used(recipe))

    def _is_used(self, recipe: str) -> bool:
        if _used[(self.folder.resolve(), recipe)] > 0:
            return True
        for path in self.folder.glob(f"{recipe}.*{LOCK}") if RECIPE.fullmatch(recipe) else ():
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return True
            lock.release()
            with suppress(OSError):  # its process has ended
                path.unlink(missing_ok=True)
        return False

    def _remove(self, recipe: str) -> int:
        """Remove a stream that nobody uses: 0 where somebody does."""
        with self._alone():
            if self._is_used(recipe):
                return 0
            removed = 0
            for path in self._files().get(recipe, ()):
                with suppress(OSError):  # Windows keeps a file that somebody reads
                    size = path.stat().st_size
                    path.unlink()
                    removed += size
            return removed

    def _alone(self) -> FileLock:
        """Nobody begins to use a stream while another is looked at and removed."""
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f"streams{LOCK}", timeout=60)

    def _touch(self, recipe: str) -> None:
        for path in self._files().get(recipe, ()):
            with suppress(OSError):
                os.utime(path)


def limit_from(text: str | None) -> int:
    """A limit that somebody wrote down in GB, as bytes; the usual one where nobody did. Raises KnotForcingError."""
    if not text:
        return 4 * BYTES_PER_GB
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise KnotForcingError(f"KNOT_FORCING_KEPT_GB is {text!r}. Give the most that kept streams may take as a number of GB, such as 4.")
    return round(limit * BYTES_PER_GB)
