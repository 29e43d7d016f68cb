"""Results as lines of a file, written as they come, so that a run which is killed goes on where it was.

A folder belongs to the weights whose results it holds. Several processes may add to one file when their results have different keys.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import KnotForcingError

ABOUT = "about.json"


@dataclass(frozen=True)
class Results:
    """JSON objects, one a line."""

    path: Path

    def read(self) -> list[dict]:
        """All that are there; a line that was cut off does not count."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def append(self, results: Iterable[dict]) -> None:
        """Add lines, in one piece, and not to the end of one that was cut off."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_cut = self.path.exists() and self.path.stat().st_size > 0 and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * is_cut + "".join(json.dumps(result) + "\n" for result in results))


def claim(folder: Path, weights: str) -> None:
    """Take the folder for these weights, or refuse where it holds results of others."""
    folder.mkdir(parents=True, exist_ok=True)
    about = folder / ABOUT
    if about.exists() and (known := json.loads(about.read_text())["weights"]) != weights:
        raise KnotForcingError(
            f"{folder} holds results of other weights ({known}; these are {weights}). Choose another folder, or delete that one."
        )
    if not about.exists():  # written once, and never half: another process may read it at this moment
        half = about.with_name(f"{ABOUT}.{os.getpid()}")
        half.write_text(json.dumps({"weights": weights}), encoding="utf-8")
        half.replace(about)
