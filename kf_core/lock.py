"""One writer for one film: a lock that the system takes back when its process ends, however that ends.

It lies on an empty file beside the state that a film is resumed from, because the state itself is replaced each time that it is saved.
Where a file system knows no locks there is none, and a second writer is noticed at the next fragment instead (`media/video.py`).
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import KnotForcingError
from .writing import beside, unwritable

HELD = ("EWOULDBLOCK", "EAGAIN", "EACCES", "EDEADLK", "EDEADLOCK")
LOCK, LOG = ".lock", ".latents"


def lock_of(state_file: Path) -> Path:
    return beside(state_file, LOCK)


def log_of(state_file: Path) -> Path:
    """The latents that bridge from one saving of the state to the next."""
    return beside(state_file, LOG)


@contextmanager
def locked(state_file: Path, film: Path) -> Iterator[None]:
    """Nobody else records `film` meanwhile. Raises KnotForcingError where somebody does, or where nothing can be written beside it."""
    path = lock_of(state_file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _taken(path)
    except OSError as problem:
        raise unwritable(path, problem) from problem
    if handle is None:
        raise KnotForcingError(
            f"{film} is being made by another process right now. Wait until it has ended, stop it, or give the video another name."
        )
    try:
        yield
    finally:
        is_empty = os.fstat(handle).st_size == 0  # one with something in it is somebody else's
        if os.name == "nt":  # it removes nothing that is open
            os.close(handle)
        with suppress(OSError):
            if is_empty:
                path.unlink(missing_ok=True)
        if os.name != "nt":
            os.close(handle)


def _taken(path: Path) -> int | None:
    """The open lock file; None where another process holds it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            _lock(handle)
            if os.name == "nt" or _is_there(handle, path):
                return handle
            os.close(handle)  # its last holder has removed it: again
        except OSError as problem:
            if errno.errorcode.get(problem.errno or 0, "") in HELD:
                os.close(handle)
                return None
            return handle  # a file system without locks
        except BaseException:
            os.close(handle)
            raise


def _lock(handle: int) -> None:
    """Raises OSError where it is held, and where there are no locks."""
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
