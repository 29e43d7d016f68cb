"""The whole benchmark of a graphics card, in one call:

    python -m tests.benchmarks.card --json card.json            # on a card: 1.3B random weights in bf16, 832x480 and 512x512
    python -m tests.benchmarks.card --tiny --json tiny.json     # the same parts on a CPU, as small as they can be

After each part the numbers are in the file, and as Markdown beside it. A call that was cut off is made again as it was: what is in the
file of the same code on the same machine is not measured twice. Needs PyTorch and what the pack itself needs; for the comparison with
the public Self-Forcing pipeline also its folder, and the packages `diffusers` and `transformers` that it imports.
"""

import argparse
import shlex
import sys
import time
import traceback
from datetime import date
from pathlib import Path

import torch
from tqdm import tqdm

from kf_core.errors import KnotForcingError
from kf_core.metrics.speed import machine

from .page import page
from .parts import PEER, Part, parts
from .record import ROOT, Record, commit, sources
from .scale import CARD, TINY, Scale
from .workbench import Workbench

PUBLIC = (
    Path.home() / "refs" / "Self-Forcing",
    ROOT / "shared" / "refs" / "Self-Forcing",
    ROOT.parent / "shared" / "refs" / "Self-Forcing",
)
NO_PEER = "its folder is not there. Clone https://github.com/guandeh17/Self-Forcing and give it by --self-forcing FOLDER"


def main(words: list[str] | None = None, scale: Scale | None = None) -> int:
    """`scale`: where it is neither of the two."""
    parser = argparse.ArgumentParser(prog="card", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("card.json"), metavar="FILE", help="the numbers; Markdown goes beside it, to .md")
    parser.add_argument("--tiny", action="store_true", help="as small as can be, on a CPU: shows that every part runs")
    parser.add_argument(
        "--minutes", type=float, default=8, help="begin no part later than this; the rest is left out, and said (default: 8)"
    )
    parser.add_argument("--self-forcing", type=Path, metavar="FOLDER", help="the public pipeline (default: where it is looked for)")
    parser.add_argument("--device", help="cuda, cuda:1, cpu (default: cuda, with --tiny cpu)")
    parser.add_argument("--commit", help="of the code, where a copy of it has no git")
    chosen = parser.parse_args(words)
    scale = scale or (TINY if chosen.tiny else CARD)
    device = torch.device(chosen.device or ("cpu" if chosen.tiny else "cuda"))
    if device.type == "cuda" and not torch.cuda.is_available():
        print("There is no card that this PyTorch can use. Give --tiny to run every part on the CPU.", file=sys.stderr)
        return 1
    facts = {
        "sources": sources(),
        "machine": f"{machine()}, on {device.type}",
        "scale": scale.name,
        "commit": chosen.commit or commit(),
        "date": f"{date.today():%d %B %Y}",
        "command": shlex.join(["python", "-m", "tests.benchmarks.card", *(sys.argv[1:] if words is None else words)]),
    }
    record = Record.open(chosen.json, facts)
    folder = chosen.self_forcing or next((place for place in PUBLIC if place.exists()), None)
    if folder is None:
        print(f"THE PUBLIC SELF-FORCING PIPELINE IS NOT COMPARED: {NO_PEER}.", file=sys.stderr)
        record.leave_out(PEER, NO_PEER + ".")
    measure(parts(folder), Workbench(scale, device), record, 60 * chosen.minutes)
    print(page(record.run))
    return 1 if record.run["failed"] else 0


def measure(wanted: list[Part], at: Workbench, record: Record, seconds: float) -> None:
    """Each part that is not in the record, while there is time."""
    begun = time.monotonic()
    with tqdm(wanted, unit=" parts", file=sys.stderr) as bar:
        for part in bar:
            bar.set_description(part.name)
            if record.has(part.name):
                continue
            if time.monotonic() - begun > seconds:
                record.leave_out(part.name, f"{seconds / 60:g} minutes were over. The same command goes on here.")
                continue
            chunks = 0

            def told(_: object) -> None:
                nonlocal chunks
                chunks += 1
                bar.set_postfix(chunks=chunks)  # noqa: B023  it is called at once

            try:
                record.put(part.name, part.measure(at, record.run["parts"], told))
            except KnotForcingError as problem:
                record.fail(part.name, str(problem))
            except Exception:  # a card may be at hand for minutes only: what breaks one part must not cost the others
                record.fail(part.name, traceback.format_exc())
                traceback.print_exc()
            record.path.with_suffix(".md").write_text(page(record.run), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
