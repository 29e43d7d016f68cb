"""How soon a film is there: `animate` of one second with the bundled model against `import torch`, each a process of its own, in turn.

    python -m tests.benchmarks.first_frame [--repeats 5] [--duration 1] [-- further words of animate]

Prints seconds of the clock and of the processor (medians, least and most), the ratio pair by pair, and what the film itself says of its
first frame. Runs where PyTorch's files were read before: the first of each kind is thrown away.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "kf_core" / "assets"


def timed(words: list[str]) -> tuple[float, float, str]:
    """Seconds by the clock, and the processor's, of a process of this Python; and what it printed."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    after, seconds = os.times(), time.perf_counter() - began
    return seconds, after.children_user + after.children_system - before.children_user - before.children_system, done.stdout


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--duration", type=float, default=1.0)
    parser.add_argument("more", nargs="*", help="after --: further words of animate")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = {"portrait": ASSETS / "example-portrait.png", "audio": ASSETS / "example-voice.wav", "duration": chosen.duration}
        given["out"] = Path(folder) / "film.mp4"
        words = ["-m", "kf_core", "animate", "--overwrite"]
        words += [part for name, value in given.items() for part in (f"--{name}", str(value))] + chosen.more
        kinds = {"import torch": ["-c", "import torch"], "film": words}
        found = {kind: [] for kind in kinds}
        for _ in range(1 + chosen.repeats):
            for kind, what in kinds.items():
                found[kind].append(timed(what))
    runs = {kind: times[1:] for kind, times in found.items()}
    print("| | seconds | of the processor |\n|---|---:|---:|")
    for kind, times in runs.items():
        print(f"| {kind} | {spread([t[0] for t in times])} | {spread([t[1] for t in times])} |")
    pairs = list(zip(runs["film"], runs["import torch"], strict=True))
    print(f"| ratio, pair by pair | {spread([a[0] / b[0] for a, b in pairs])} | {spread([a[1] / b[1] for a, b in pairs])} |")
    for line in runs["film"][-1][2].splitlines():
        if re.match(r"(speed|first frame|precision) ", line):
            print(line)


if __name__ == "__main__":
    main()
