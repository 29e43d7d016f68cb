"""What was measured, in a file that is written anew after each part: a run that is cut off goes on where it was.

A run is one state of the sources on one machine at one scale. The file keeps the runs of other states and machines, too.
"""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from kf_core.content_id import fingerprint

ROOT = Path(__file__).parents[3]
SAME = ("sources", "machine", "scale")  # what two calls must share to be one run


@dataclass
class Record:
    """The file, and the run that is under way in it."""

    path: Path
    run: dict
    _runs: list[dict] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, facts: dict[str, str]) -> "Record":
        """Go on with the run that has these facts, or begin one. `facts`: at least `SAME`; what else they say is renewed."""
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
        run = next((run for run in runs if all(run[name] == facts[name] for name in SAME)), None)
        if run is None:
            run = {"parts": {}}
            runs.append(run)
        run |= facts | {"failed": {}, "left_out": {}}
        return cls(path, run, runs)

    def has(self, part: str) -> bool:
        return part in self.run["parts"]

    def put(self, part: str, found: dict) -> None:
        self.run["parts"][part] = found
        self._write()

    def fail(self, part: str, why: str) -> None:
        self.run["failed"][part] = why
        self._write()

    def leave_out(self, part: str, why: str) -> None:
        self.run["left_out"][part] = why
        self._write()

    def _write(self) -> None:
        """The file is replaced whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.write_text(json.dumps({"runs": self._runs}, indent=1) + "\n", encoding="utf-8")
        os.replace(fresh, self.path)


def commit() -> str:
    """Of the checkout, and whether anything was changed since; a copy without git does not know."""

    def git(*words):
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)

    try:
        head, changed = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    except OSError:
        return "not known"
    return "not known" if head.returncode else head.stdout.strip() + (" and changes" if changed.stdout.strip() else "")


def sources() -> str:
    """A name for the code that is measured, and for what measures it."""
    files = sorted(file for folder in ("kf_core", "tests/benchmarks") for file in (ROOT / folder).glob("**/*.py"))
    return fingerprint(*(part for file in files for part in (file.relative_to(ROOT).as_posix(), file)))[:12]
