"""A terminal that may be gone: what cannot be said is left unsaid, and what was made counts.

A closed stream, a reader that has gone (`| head -1`), a full disk behind `>` or a code page without the letters of a name are no reason
to end a run. And a program that starts with closed streams gives their numbers to the next files it opens: whatever a library then
prints would go into the video, so they are filled first.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class Forgiving:
    """A text stream that takes everything. `lost`: why something did not arrive; None while all did."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream if stream is not None else open(os.devnull, "w", encoding="utf-8")
        self.lost: OSError | ValueError | None = None
        with suppress(AttributeError, ValueError, OSError):
            self._stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # a stream whose errors cannot be chosen
            with suppress(OSError, ValueError):
                self._stream.write(text.encode("ascii", "backslashreplace").decode())
        except (OSError, ValueError) as problem:
            self._lose(problem)
        return len(text)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as problem:
            self._lose(problem)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, problem: OSError | ValueError) -> None:
        """From now on it leads nowhere: Python flushes what is left when it ends, and would end in failure."""
        self.lost = self.lost or problem
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, self._stream.fileno())
            finally:
                os.close(nowhere)


@contextmanager
def forgiving() -> Iterator[Forgiving]:
    """Standard output and error as such streams; yields the output."""
    _fill_closed()
    before = sys.stdout, sys.stderr
    out, err = Forgiving(before[0]), Forgiving(before[1])
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def _fill_closed() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # it gets the smallest number that is free
