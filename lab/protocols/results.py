"""Results as lines of a file, written as they come, so that a run which is killed goes on where it was.

A folder belongs to the weights whose results it holds. Several processes may add to one file when their results have different keys;
not so on Windows, which does not append in one piece. What all of them need is written once (`written_once`).
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kf_core.errors import KnotForcingError

ABOUT = "about.json"


@dataclass(frozen=True)
class Results:
    """JSON objects, one a line."""

    path: Path

    def read(self) -> list[dict]:
        """All that are there; a line that was cut off does not count."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        return [result for line in lines if (result := _whole(line)) is not None]

    def append(self, results: Iterable[dict]) -> None:
        """Add lines, in one piece, and not to the end of one that was cut off."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_cut = self.path.exists() and self.path.stat().st_size > 0 and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * is_cut + "".join(json.dumps(result) + "\n" for result in results))


def claim(folder: Path, weights: str) -> None:
    """Take the folder for these weights, or refuse where it holds results of others."""
    about = folder / ABOUT
    written_once(about, lambda path: path.write_text(json.dumps({"weights": weights}), encoding="utf-8"))
    known = json.loads(about.read_text(encoding="utf-8"))["weights"]
    if known != weights:
        raise KnotForcingError(
            f"{folder} holds results of other weights, or of another precision ({known}; these are {weights}). "
            f"Choose another folder, or delete that one."
        )


def written_once(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file, unless it is there. It is there whole or not at all, and of several processes the first one's stays."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(own)
        _publish(own, path)
    finally:
        own.unlink(missing_ok=True)


def _publish(own: Path, path: Path) -> None:
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    except OSError:  # a disk that knows no links: of several processes the last one's stays
        own.replace(path)


def _whole(line: str) -> dict | None:
    try:
        result = json.loads(line)
    except json.JSONDecodeError:
        return None
    return result if isinstance(result, dict) else None
