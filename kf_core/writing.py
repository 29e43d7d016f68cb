"""How a result gets onto a disk: whole or not at all, over nothing else, and with a true sentence where the disk says no.

Knows nothing of what is written. What a result may not lie on is `outputs.py`.
"""

import errno
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO

from .errors import KnotForcingError

LONGEST_NAME = 255  # bytes of a file's name, where the system does not say
RESERVED = 16  # ... of which other endings may need so many
NO_SYNC = ("EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "ENOTTY")  # what file systems say that cannot wait for their disk
RETRIES, RETRY_SECONDS = 10, 0.05  # Windows: a virus scanner holds a new file for a moment

WHY = {  # errno: what was found, and what to do
    "ENAMETOOLONG": ("its name is too long for that disk", "Give a shorter name"),
    "EROFS": ("that disk can only be read", "Choose a place on another disk"),
    "EACCES": ("this account may not write there", "Choose another place, or have its permissions changed"),
    "EPERM": ("this account may not write there", "Choose another place, or have its permissions changed"),
    "EISDIR": ("it is a folder", "Give the name of a file"),
    "ENOTDIR": ("a part of its path is a file and not a folder", "Check the path"),
    "EEXIST": ("there is a file of that name where a folder is needed", "Choose another name"),
    "ENOENT": ("its folder does not exist", "Make the folder, or choose another place"),
    "ELOOP": ("its links lead in a circle", "Remove them, or choose another name"),
    "ENOSPC": ("the disk is full", "Make room"),
    "EDQUOT": ("this account has used up its share of the disk", "Make room"),
    "EFBIG": ("a file may not become larger on that disk or in this shell", "Choose another disk, or raise the limit (ulimit -f)"),
    "EIO": ("the disk reports an error", "Check the disk and its cable"),
    "ESTALE": ("the network drive does not know the file any more", "Connect the drive again"),
    "ENOTCONN": ("the network drive does not answer", "Connect the drive again"),
    "EHOSTDOWN": ("the network drive does not answer", "Connect the drive again"),
    "ETIMEDOUT": ("the network drive does not answer", "Connect the drive again"),
    "ENXIO": ("it is a pipe or a device, not a file", "Give the name of a file"),
    "ENODEV": ("it is a pipe or a device, not a file", "Give the name of a file"),
    "ESPIPE": ("it is a pipe or a device, not a file", "Give the name of a file"),
    "EBUSY": ("another program has it open", "Close that program"),
    "ETXTBSY": ("another program has it open", "Close that program"),
    "EMFILE": ("too many files are open", "Close other programs"),
    "ENFILE": ("too many files are open", "Close other programs"),
}
SHARING_VIOLATIONS = (32, 33)  # Windows
NO_NAMES = (123, 161)  # Windows: a name that none may have
LONGEST_WINDOWS_PATH = 259


def why(problem: OSError, path: Path | None = None) -> tuple[str, str]:
    """What is wrong, as the end of a sentence, and what to do, as the beginning of one. `path`: what was to be opened."""
    windows = getattr(problem, "winerror", None)
    if windows in SHARING_VIOLATIONS:
        return WHY["EBUSY"]
    if windows in NO_NAMES:
        return "no file may have that name", 'Give another name, without \\ / : * ? " < > |'
    name = errno.errorcode.get(problem.errno or 0, "")
    if name == "ENOENT" and path is not None and os.path.isdir(path.parent):
        if os.path.islink(path):
            return "it is a link to a place that does not exist", "Remove the link, or make that place"
        if os.name == "nt" and len(os.path.abspath(path)) > LONGEST_WINDOWS_PATH:
            return WHY["ENAMETOOLONG"]
        return "it is not there", "Check its name and folder"
    if name == "ENOENT" and path is not None:
        return WHY["ENOTDIR"] if _is_below_a_file(path) else (f"the folder {path.parent} does not exist", WHY[name][1])
    if name == "EACCES" and path is not None and os.path.isdir(path):  # so does Windows say that it is a folder
        return WHY["EISDIR"]
    return WHY.get(name, (problem.strerror or str(problem) or type(problem).__name__, "Put that right"))


def unwritable(path: Path | str, problem: OSError) -> KnotForcingError:
    """Why a file cannot be written, for the user."""
    found, remedy = why(problem, Path(path))
    return KnotForcingError(f"{path} cannot be written: {found}. {remedy}.")


def is_full(problem: OSError) -> bool:
    return errno.errorcode.get(problem.errno or 0, "") in ("ENOSPC", "EDQUOT", "EFBIG")


def sync(file: BinaryIO) -> None:
    """Wait until the disk has what was written. Some file systems cannot say when; they are taken at their word."""
    try:
        os.fsync(file.fileno())
    except OSError as problem:
        if errno.errorcode.get(problem.errno or 0, "") not in NO_SYNC:
            raise


def beside(path: Path, ending: str) -> Path:
    """The file next to `path` that has its name and this ending; of a name too long for both, its beginning and a checksum."""
    longest, name = _longest_name(path.parent) - RESERVED, path.name + ending
    if len(os.fsencode(name)) <= longest:
        return path.with_name(name)
    whole = os.fsencode(path.name)
    ending = f"~{hashlib.sha256(whole).hexdigest()[:8]}{ending}"
    beginning = whole[: longest - len(ending)].decode("utf-8", errors="ignore")
    return path.with_name(beginning + ending)


def create_beside(path: Path, suffix: str = "") -> tuple[Path, BinaryIO]:
    """A new file next to `path`, open and unbuffered, under a name that nobody had. Raises OSError."""
    for number in chain([""], count(1)):
        fresh = beside(path, f".new{number}{suffix}")
        with suppress(FileExistsError):
            return fresh, open(fresh, "x+b", buffering=0)


def put_in_place(fresh: Path, path: Path, *, is_new: bool = False) -> None:
    """Give a file that is closed and whole its name, in one step. `is_new`: raises FileExistsError where somebody has that name by now,
    else the other file is replaced. Raises OSError; then both are as they were."""
    if not is_new:
        with suppress(OSError):
            shutil.copymode(path, fresh)
        _patiently(os.replace, fresh, path)
    elif os.name == "nt":
        _patiently(os.rename, fresh, path)
    else:
        try:
            os.link(fresh, path)
        except FileExistsError:
            raise
        except OSError as problem:  # a disk that knows no links
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from problem
            os.replace(fresh, path)
        else:
            os.unlink(fresh)
    _sync_folder(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file to be written, which takes the place of `path` when the block ends well; else `path` is as it was.

    A link's target is replaced, and the link stays. What is no regular file, such as a pipe, is written to directly.
    Raises KnotForcingError where the disk says no."""
    fresh = None
    try:
        if is_special(path):
            yield path
            return
        place = Path(os.path.realpath(path))
        fresh, file = create_beside(place, place.suffix)
        file.close()
        yield fresh
        with fresh.open("r+b") as file:
            sync(file)
        put_in_place(fresh, place)
    except OSError as problem:
        raise unwritable(path, problem) from problem
    finally:
        if fresh is not None:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Put a text into a file, which is replaced whole or not at all. Raises KnotForcingError."""
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def is_special(path: Path) -> bool:
    """Whether it is a pipe, a device or a socket. Raises OSError where that cannot be known."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _patiently(step, fresh: Path, path: Path) -> None:
    for left in reversed(range(RETRIES if os.name == "nt" else 1)):
        try:
            step(fresh, path)
            return
        except PermissionError:
            if not left:
                raise
            time.sleep(RETRY_SECONDS)


def _sync_folder(folder: Path) -> None:
    """The new name is on the disk, too, where the system has a way to ask for that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _longest_name(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, ValueError, OSError):
        return LONGEST_NAME


def _is_below_a_file(path: Path) -> bool:
    return any(os.path.isfile(parent) for parent in path.parents)
