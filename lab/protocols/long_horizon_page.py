"""The last minute beside the first, as numbers, a table and a sheet of frames; everything from the lines that `first_and_last` left.

Goals that a number is held against are given beside it and decide nothing. Verification: the chance that a moment of a minute is closer to
its own sitter's portrait than to another's; with few sitters that is easy, so the reader's, on a hundred held-out faces, stands beside it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from kf_core.media.image import read_image
from kf_core.metrics.contact_sheet import contact_sheet
from kf_core.metrics.identity import verification_auc

from .ablation import POSE_AND_SOUND
from .bootstrap import interval
from .long_horizon import FIRST, LAST, MADE, MOMENTS, ON_SHEET, RESULTS, TRUTH, strips_of
from .metric_curves import COURSES
from .results import Results

KEPT, VERIFICATION, READER = "identity cosine, last over first", "verification AUC", "verification AUC of the reader, held-out faces"
GOALS = {KEPT: ">= .97", VERIFICATION: ">= .98", READER: ">= .98", "sharpness against truth": ">= .9"}
BOTH_WAYS = ("identity cosine", "palette error")  # where the truth itself is not trivial
SHEET_BYTES, SIDE, QUALITIES = 200_000, 96, (80, 65, 50, 35, 20, 5)


def lines_of(folder: Path, seconds: float, condition: str) -> list[dict]:
    """The results of this length and driving, by sitter."""
    lines = [line for line in Results(folder / RESULTS).read() if (line["seconds"], line["condition"]) == (seconds, condition)]
    return sorted(lines, key=lambda line: line["seed"])


def numbers(lines: Sequence[dict], condition: str) -> dict[str, dict]:
    """measure -> {first, last, change: interval over sitters; truth of the first and last; goal}. `lines` of one condition."""
    found: dict[str, dict] = {}
    measures = [*COURSES, *(["PSNR"] if condition == POSE_AND_SOUND else [])]  # without a pose nobody says where the head is
    for measure in measures:
        first, last = ([line[end]["values"][MADE][measure] for line in lines] for end in (FIRST, LAST))
        row = {FIRST: _plain(first), LAST: _plain(last), "change": _plain([b - a for a, b in zip(first, last, strict=True)])}
        if measure in BOTH_WAYS:
            row[TRUTH] = [_plain([line[end]["values"][TRUTH][measure] for line in lines])["mean"] for end in (FIRST, LAST)]
        found[measure] = row

    def cosine(line, end, kind):
        return line[end]["values"][kind]["identity cosine"]

    made, true = ([cosine(line, LAST, kind) / cosine(line, FIRST, kind) for line in lines] for kind in (MADE, TRUTH))
    found[KEPT] = {LAST: _plain(made), "lowest of a sitter": min(made), TRUTH: [None, _plain(true)["mean"]]}
    if len(lines) > 1:
        aucs = {kind: [verification(lines, end, kind) for end in (FIRST, LAST)] for kind in (MADE, TRUTH)}
        row = {end: {"mean": auc, "low": None, "high": None} for end, auc in zip((FIRST, LAST), aucs[MADE], strict=True)}
        found[VERIFICATION] = row | {TRUTH: aucs[TRUTH]}
    return {name: row | ({"goal": GOALS[name]} if name in GOALS else {}) for name, row in found.items()}


def verification(lines: Sequence[dict], end: str, kind: str) -> float:
    """Whose portrait the moments of a minute are closest to; two sitters or more."""
    portraits = torch.tensor([line["portrait"] for line in lines])
    closeness = torch.tensor([line[end]["embeddings"][kind] for line in lines]) @ portraits.T  # [sitter, moment, portrait]
    own = torch.eye(len(lines), dtype=torch.bool)[:, None].expand_as(closeness)
    return verification_auc(closeness[own], closeness[~own])


def table(found: Mapping[str, Mapping], minute: float) -> str:
    """Markdown: a line a measure; in brackets the 95 % bootstrap interval over sitters. `minute`: seconds of what is compared."""
    lines = [f"| | first {minute:g} s | last {minute:g} s | change | truth, first and last | goal |", "|---|---:|---:|---:|---:|---|"]
    for name, row in found.items():
        cells = [_cell(row.get(column)) for column in (FIRST, LAST, "change")]
        truth = ", ".join("" if value is None else f"{value:.4g}" for value in row.get(TRUTH, ())).removeprefix(", ")
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {truth} | {row.get('goal', '')} |")
    return "\n".join(lines) + "\n"


def write_sheet(folder: Path, lines: Sequence[dict], fps: float, path: Path) -> None:
    """Portrait, first and last minute of every sitter, a row each; no larger than SHEET_BYTES. A WebP."""
    rows = {}
    for line in lines:
        strip = read_image(strips_of(folder, line["seconds"], line["condition"]) / f"{line['seed']}.webp", longest=None)
        rows[f"{line['seed']}"] = torch.stack(strip.split(strip.shape[0], dim=1))
    minute = lines[0][FIRST]["frames"] / fps
    shares = [index / (MOMENTS - 1) for index in ON_SHEET]
    begun = lines[0]["seconds"] - minute
    headings = ["portrait", *(_clock(minute * share) for share in shares), *(_clock(begun + minute * share) for share in shares)]
    sheet = contact_sheet(rows, fps=1, moments=range(len(headings)), side=SIDE, headings=headings)
    for quality in QUALITIES:
        sheet.save(path, quality=quality, method=6)
        if path.stat().st_size <= SHEET_BYTES:
            return


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _plain(values: Sequence[float]) -> dict:
    found = interval(values)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _cell(found: Mapping | None) -> str:
    if found is None:
        return ""
    return f"{found['mean']:.4g}" + ("" if found["low"] is None else f" [{found['low']:.4g}, {found['high']:.4g}]")
