"""The file of a film while it is made: begun in the place of what was there, and given up when it is not ours any more.

    begin   --> a new file beside it, whole on the disk --> takes the name in one step
    changed --> is it still the file that was begun, and as long as we left it? asked before every fragment

Knows nothing of what is written into it.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import KnotForcingError
from ..writing import create_beside, is_special, put_in_place, sync, unwritable


class GrowingFile:
    """A file that one writer makes longer.

    Invariants
    - What lies at `path` stays until `begin` has written its successor, and is replaced in one step. Of a link, the target is replaced.
    - Nothing is replaced that was not there when this was made.
    """

    def __init__(self, path: Path | str, *, resume: bool) -> None:
        """Touches nothing. `resume`: go on with what is there, if anything is. Raises KnotForcingError where no file can be."""
        self.path = Path(path)
        self.place = Path(os.path.realpath(path))
        self.before = self._found()  # what is to be replaced, or gone on with
        self.handle = self._opened() if resume and self.before is not None else None  # None: not begun
        self._size = 0
        self._is_known = False  # whether this disk tells files apart, and so whether one that was replaced can be noticed
        if self.handle is not None:
            self.settle()

    @property
    def is_begun(self) -> bool:
        return self.handle is not None

    def begin(self, write: Callable[[BinaryIO], object]) -> None:
        """Have `write` fill a new file, and put it in place. Raises OSError, or KnotForcingError where somebody else has the name by now;
        then all is as it was."""
        fresh, file = create_beside(self.place)
        try:
            with file:
                write(file)
            self._replace_by(fresh)
        finally:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
        self.handle = open(self.place, "r+b", buffering=0)
        self.settle()

    def settle(self) -> None:
        """What has been written is ours."""
        own = os.fstat(self.handle.fileno())
        self._size, self._is_known = own.st_size, os.path.samestat(own, os.stat(self.place))

    def refuse_changed(self, made: str) -> None:
        """Raises KnotForcingError where the file was removed, moved, replaced, or written by another program. `made`: what it holds.

        Raises OSError where nobody can say."""
        own = os.fstat(self.handle.fileno())
        try:
            there = os.stat(self.place)
        except FileNotFoundError:
            there = None
        if there is None or (self._is_known and not os.path.samestat(own, there)):
            if own.st_nlink == 0:
                raise KnotForcingError(f"{self.path} was deleted or replaced while it was made, and {made} went with it. Make it again.")
            raise KnotForcingError(
                f"{self.path} was moved or replaced while it was made, so the recording has ended: {made} are in the file that was moved"
                f"{self._where()}. Move it back and continue with resume, or give the video another name."
            )
        if own.st_size != self._size:
            raise KnotForcingError(
                f"Another program has written into {self.path} while it was made, so the recording has ended, and {made} may be damaged. "
                f"Let one program at a time write it; continue with resume, or make it again under another name."
            )

    def is_ours(self) -> bool:
        """Whether it is there, under whatever name, and as it was left."""
        if self.handle is None:
            return False
        own = os.fstat(self.handle.fileno())
        return own.st_nlink > 0 and own.st_size == self._size

    def close(self) -> None:
        if self.handle is not None:
            self.handle.close()

    def _found(self) -> os.stat_result | None:
        if os.path.isdir(self.place):
            raise KnotForcingError(f"{self.path} is a folder. Give the name of a video file in it, such as {self.path / 'video.mp4'}.")
        try:
            if is_special(self.place):
                raise KnotForcingError(f"{self.path} is a pipe or a device, and a video needs a file. Choose another name for the video.")
            os.stat(self.place.parent)
            return os.stat(self.place)
        except OSError as problem:
            if isinstance(problem, FileNotFoundError) and os.path.isdir(self.place.parent):
                return None
            raise unwritable(self.path, problem) from problem

    def _opened(self) -> BinaryIO:
        try:
            return open(self.place, "r+b", buffering=0)
        except OSError as problem:
            raise unwritable(self.path, problem) from problem

    def _replace_by(self, fresh: Path) -> None:
        try:
            there = os.stat(self.place)
        except FileNotFoundError:
            there = None
        if there is not None and (self.before is None or not os.path.samestat(there, self.before)):
            raise self._taken()
        try:
            put_in_place(fresh, self.place, is_new=there is None)
        except FileExistsError as problem:
            raise self._taken() from problem
        except PermissionError:
            if there is None:
                raise
            with open(self.place, "r+b", buffering=0) as file:  # Windows renames over nothing that is being watched, but may write to it
                file.truncate(0)
                file.write(fresh.read_bytes())
                sync(file)

    def _taken(self) -> KnotForcingError:
        return KnotForcingError(
            f"Another program has put a file at {self.path} meanwhile. It was not touched, and the new video was not begun. "
            f"Give the video another name."
        )

    def _where(self) -> str:
        """Where the file is that was moved, if the system tells."""
        try:
            found = Path(f"/proc/self/fd/{self.handle.fileno()}").readlink()
            return f", {found}" if os.path.samestat(os.fstat(self.handle.fileno()), os.stat(found)) else ""
        except OSError:
            return ""
