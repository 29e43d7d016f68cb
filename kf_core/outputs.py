"""Where a result may go: never over what it is made of, under whatever name.

A path is compared with what it leads to: links, hard links and other spellings of one file (case, accents, a drive under two letters) are
that file. Everything that a command writes is looked at before it touches anything.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .errors import KnotForcingError
from .writing import create_beside, is_special, unwritable

Files = Path | Iterable[Path] | None


def refuse_outputs(outputs: Mapping[str, Path | None], inputs: Mapping[str, Files]) -> None:
    """Raises KnotForcingError where one of several results must not or cannot be written. Touches nothing."""
    refuse_inputs(outputs, inputs)
    for name, path in outputs.items():
        if path is not None:
            refuse_place(path, name)


def refuse_inputs(outputs: Mapping[str, Path | None], inputs: Mapping[str, Files]) -> None:
    """Raises KnotForcingError where a file that would be written is one that is read, or is written twice.

    Both go by what the user calls them, such as `--audio`. A folder that is read stands for all files in it."""
    there = {}  # what can be written over: what is not there is read by nobody
    for name, path in outputs.items():
        if path is not None and (found := _identity(path)) is not None:
            there.setdefault(found, (name, path))
    if there:
        for name, files in inputs.items():
            for file in _all_files(files):
                if (found := _identity(file)) in there:
                    written, path = there[found]
                    raise KnotForcingError(
                        f"{written} ({path}) is the same file as {name} ({file}), which would be written over. "
                        f"Nothing was touched. Give another name for {written}."
                    )
    _refuse_twice(outputs)


def refuse_place(path: Path, called: str, *, is_film: bool = False) -> None:
    """Raises KnotForcingError where no file can be written, before there is anything to write. `called`: what the user calls it.

    A film is read again while it grows, so it cannot go into a pipe or a device."""
    try:
        if os.path.isdir(path):
            raise KnotForcingError(f"{called}: {path} is a folder. Give the name of a file in it.")
        if is_special(path):
            if is_film:
                raise KnotForcingError(f"{called}: {path} is a pipe or a device, and a video needs a file. Give the name of a file.")
            return
        place = Path(os.path.realpath(path))
        if os.path.lexists(place):
            os.stat(place)
        fresh, file = create_beside(place)
        file.close()
        fresh.unlink()
    except OSError as problem:
        raise unwritable(path, problem) from problem


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file that is there."""
    found = _identity(one)
    return found is not None and found == _identity(other)


def _refuse_twice(outputs: Mapping[str, Path | None]) -> None:
    seen: dict[object, str] = {}
    for name, path in outputs.items():
        if path is None or _is_special(path):
            continue
        for key in filter(None, (os.path.normcase(os.path.realpath(path)), _identity(path))):
            if seen.setdefault(key, name) != name:
                raise KnotForcingError(f"{name} and {seen[key]} are the same file ({path}). Give each its own.")


def _identity(path: Path) -> object | None:
    """Which file it is; None where there is none, or where it is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return (found.st_dev, found.st_ino) if found.st_ino else os.path.normcase(os.path.realpath(path))  # a disk that numbers no files


def _is_special(path: Path) -> bool:
    try:
        return is_special(path)
    except OSError:
        return False


def _all_files(files: Files) -> Iterator[Path]:
    for path in () if files is None else (files,) if isinstance(files, Path) else files:
        if os.path.isdir(path):
            for folder, _, names in os.walk(path):
                yield from (Path(folder, name) for name in names)
        else:
            yield path
