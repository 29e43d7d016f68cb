"""The ablation as numbers and as a page: means, differences to the full method with intervals, drift against time, strips of frames.

Everything comes from the results in a run's folder; nothing is written by hand. A difference is paired by sitter, and its interval is the
bootstrap's over sitters. Flickering is given only at equal motion, because a face that moves less flickers less.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import fmean

import torch
from PIL import Image
from torch import Tensor

from kf_core.media.image import read_image
from kf_core.metrics.contact_sheet import contact_sheet
from kf_core.metrics.flicker import EQUAL_MOTION, is_equal_motion
from kf_core.metrics.identity import verification_auc
from kf_core.metrics.line_plot import Panel, line_plot
from kf_core.metrics.reader import PortraitReader

from .ablation import CODEC, CONDITIONS, MOMENTS, STRIPS, TRUTH, read
from .bootstrap import Interval, interval, paired
from .metric_curves import COURSES, PARTS
from .variants import FULL, Trained

SEAMS = "seam ratio over the codec's"
FLICKER, MOTION = "temporal flickering", "motion"
KEPT, WORN = "identity cosine, last tenth over first", "sharpness against truth, last tenth"
PALETTE = "palette error, last tenth from first"
VERIFICATION = "verification AUC"
LONG = 45.0  # seconds from which on the beginning is compared with the end
# measure -> (its name in the table, digits)
SHOWN = {
    SEAMS: ("seams", 3),
    "identity cosine": ("identity", 3),
    "identity cosine, last fifth": ("identity, last fifth", 3),
    KEPT: ("identity, last tenth over first", 4),
    "palette error": ("palette error", 4),
    PALETTE: ("palette error, last tenth from first", 4),
    "sharpness against truth": ("sharpness", 3),
    WORN: ("sharpness, last tenth", 3),
    "colour, last fifth from truth": ("colour from truth, last fifth", 4),
    "mouth r": ("mouth r", 3),
    MOTION: ("motion", 2),
    FLICKER: ("flickering", 2),
}
PLOTTED = (FULL, "without-knot", "without-fusion", "anchor-fixed", "anchor-behind", "without-anchor", "self-forcing")
STRIP_SIDE, STRIP_QUALITY = 56, 45  # pixels, WebP's


def write_page(
    folder: Path,
    page: Path,
    *,
    changes: Mapping[str, str],
    coverage: Mapping[str, Trained] | None,
    about: Mapping[str, object],
    reader: PortraitReader,
) -> dict:
    """Write `ablation.json` in `folder` and the page with its frames; returns what the JSON holds.

    `coverage` by variant; None: how these weights were trained is not known."""
    results = read(folder)
    summary = {
        "about": {**about, "date": str(date.today())},
        "trained": None if coverage is None else {name: str(trained) for name, trained in coverage.items()},
        "tables": [
            {"seconds": seconds, "condition": condition, "rows": rows_of(results, seconds, condition)}
            for seconds in sorted({line["seconds"] for line in results})
            for condition in CONDITIONS
            if any(line["seconds"] == seconds and line["condition"] == condition for line in results)
        ],
        "results": results,
    }
    for table in summary["tables"]:
        seeds = {line["seed"] for line in results if line["seconds"] == table["seconds"]}
        for variant, row in table["rows"].items():
            strips = folder / STRIPS / f"{table['seconds']:g}s"
            condition = CODEC if variant == CODEC else table["condition"]
            row[VERIFICATION] = _verification(strips, condition, variant, sorted(seeds), reader)
    (folder / "ablation.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    page.parent.mkdir(parents=True, exist_ok=True)
    lines = _head(summary["about"])
    for table in summary["tables"]:
        lines += _table(table, changes, coverage)
    lengths = sorted({table["seconds"] for table in summary["tables"]})
    for seconds in lengths:
        lines += _frames(results, seconds, list(changes), folder, page, with_plot=seconds >= LONG or seconds == lengths[-1])
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return summary


def rows_of(results: list[dict], seconds: float, condition: str) -> dict[str, dict]:
    """variant -> measure -> mean, its interval, and the paired difference to the full method: all as plain numbers."""
    by_variant = _by_sitter(results, seconds, condition)
    rows: dict[str, dict] = {}
    for variant, sitters in by_variant.items():
        row: dict[str, object] = {"sitters": len(sitters)}
        for measure in SHOWN:
            values = {seed: numbers[measure] for seed, numbers in sitters.items() if measure in numbers}
            if not values:
                continue
            full = {seed: numbers[measure] for seed, numbers in by_variant.get(FULL, {}).items() if measure in numbers}
            against = paired(values, full) if variant != FULL else None
            row[measure] = _plain(interval(list(values.values()))) | ({"difference": _plain(against)} if against else {})
        rows[variant] = row
    for row in rows.values():
        motion, full = row.get(MOTION), rows.get(FULL, {}).get(MOTION)
        if motion and full and not is_equal_motion(motion["mean"], full["mean"]):
            row.get(FLICKER, {}).pop("difference", None)
            row.get(FLICKER, {})["not comparable"] = motion["mean"] / full["mean"] - 1
    return rows


def _by_sitter(results: list[dict], seconds: float, condition: str) -> dict[str, dict[int, dict[str, float]]]:
    """variant -> seed -> measures, the seams divided by what the autoencoder does to the same sitter."""
    codec = {r["seed"]: r["values"].get("seam ratio") for r in results if r["variant"] == CODEC and r["seconds"] == seconds}
    found: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for line in results:
        if line["seconds"] == seconds and line["condition"] in (condition, CODEC):
            values = dict(line["values"])
            if codec.get(line["seed"]) and "seam ratio" in values:
                values[SEAMS] = values["seam ratio"] / codec[line["seed"]]
            if seconds >= LONG:
                values |= _ends(line["course"])
            found[line["variant"]][line["seed"]] = values
    return found


def _ends(course: dict[str, list[float]]) -> dict[str, float]:
    """The last tenth of a video beside its first: of ten minutes, a minute each."""
    tenth = max(1, PARTS // 10)
    first, last = ({name: fmean(values[part]) for name, values in course.items()} for part in (slice(0, tenth), slice(-tenth, None)))
    return {
        KEPT: last["identity cosine"] / first["identity cosine"],
        WORN: last["sharpness against truth"],
        PALETTE: last["palette error"] - first["palette error"],
    }


def _verification(strips: Path, condition: str, variant: str, seeds: Sequence[int], reader: PortraitReader) -> float | None:
    """Does the reader know the sitters in what was made? The moments of the strips against every portrait; None for a single sitter."""
    pairs = [(strips / condition / f"{variant}-{seed}.webp", strips / TRUTH / f"{TRUTH}-{seed}.webp") for seed in seeds]
    pairs = [(made, true) for made, true in pairs if made.exists() and true.exists()]
    if len(pairs) < 2:
        return None
    portraits = torch.stack([reader.read(_moments(true)[:1]).embedding[0] for _, true in pairs])
    closeness = torch.stack([reader.read(_moments(made)[1:]).embedding @ portraits.T for made, _ in pairs])  # [sitter, moment, portrait]
    own = torch.eye(len(pairs), dtype=torch.bool)[:, None].expand_as(closeness)
    return verification_auc(closeness[own], closeness[~own])


def _moments(strip: Path) -> Tensor:
    """The frames of a strip: [f, h, w, 3]."""
    return torch.stack(read_image(strip, longest=None).chunk(MOMENTS, dim=1))


def _plain(found: Interval) -> dict:
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _head(about: Mapping[str, object]) -> list[str]:
    lines = ["# What the knot, the anchor and running ahead are worth", ""]
    if about.get("note"):
        lines += [about["note"], ""]
    return lines + [
        "The method without each of its parts, on held-out faces that speak held-out sentences by held-out voices. All variants of a "
        "sitter draw from the same noise and start on the same true first chunk (9 frames), so that those without an anchor know whom "
        "they draw. With *pose and sound* everything visible but gaze, brows, hair and backdrop is determined, and a knot has little to "
        "carry; with *sound only* the head moves as nobody says, and continuity is up to window and knot.",
        "",
        "Means over sitters. In brackets the difference to the full method, paired by sitter, and its 95 % bootstrap interval; bold where "
        "that excludes 0. What each measure is and where it ends: [evaluation.md](evaluation.md). A face that moves less flickers less, so "
        f"flickering is given only where motion is within {EQUAL_MOTION:.0%} of the full method's; a dash stands for the rest.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in about.items() if name != "note" and value),
        "",
    ]


def _table(table: dict, changes: Mapping[str, str], coverage: Mapping[str, Trained] | None) -> list[str]:
    rows = table["rows"]
    shown = [measure for measure in SHOWN if any(measure in row for row in rows.values())]
    changes = {CODEC: "the truth through the autoencoder, the best that any variant could do", **changes}
    order = [name for name in changes if name in rows]
    lines = [
        f"## {table['condition'].capitalize()}, {table['seconds']:g} s, {max(row['sitters'] for row in rows.values())} sitters",
        "",
        "| variant | in training | " + " | ".join(SHOWN[measure][0] for measure in shown) + " | verification |",
        "|---|---|" + "---:|" * (len(shown) + 1),
    ]
    for name in order:
        cells = [_cell(rows[name].get(measure), SHOWN[measure][1]) for measure in shown]
        cells.append("" if rows[name].get(VERIFICATION) is None else f"{rows[name][VERIFICATION]:.3f}")
        few = "" if rows[name]["sitters"] == max(row["sitters"] for row in rows.values()) else f" ({rows[name]['sitters']} sitters)"
        trained = "" if name == CODEC else "not known" if coverage is None else coverage[name]
        lines.append(f"| **{name}**: {changes[name]}{few} | {trained} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _cell(found: dict | None, digits: int) -> str:
    if found is None:
        return ""
    if "not comparable" in found:
        return "–"
    text = f"{found['mean']:.{digits}f}"
    difference = found.get("difference")
    if difference is None:
        return text
    if difference["low"] is None:
        return f"{text} ({difference['mean']:+.{digits}f})"
    words = f"{difference['mean']:+.{digits}f} [{difference['low']:+.{digits}f}, {difference['high']:+.{digits}f}]"
    excludes_zero = difference["low"] > 0 or difference["high"] < 0
    return f"{text} (**{words}**)" if excludes_zero else f"{text} ({words})"


def _frames(results: list[dict], seconds: float, variants: Sequence[str], folder: Path, page: Path, *, with_plot: bool) -> list[str]:
    """One sitter's strips of this length and its drift as a plot, beside the page. Small: they are kept with the documents."""
    lines = []
    for condition in CONDITIONS:
        courses = _mean_courses([r for r in results if r["seconds"] == seconds and r["condition"] == condition])
        shown = {name: courses[name] for name in PLOTTED if name in courses}
        if not shown:
            continue
        stem = f"{page.stem}-{seconds:g}s-{condition.replace(' ', '-')}"
        lines += [f"## {condition.capitalize()}, {seconds:g} s: in frames", ""]
        if (sheet := _strips(folder / STRIPS / f"{seconds:g}s", condition, variants, results, seconds)) is not None:
            sheet.save(page.with_name(f"{stem}.webp"), quality=STRIP_QUALITY, method=6)
            lines += ["One sitter, the same moments:", "", f"![A strip of each variant]({stem}.webp)", ""]
        if with_plot:
            panels = [
                Panel(f"{measure} ({how})", {name: course[measure] for name, course in shown.items()}, *_middles(seconds), "seconds")
                for measure, how in COURSES.items()
                if measure != "motion"
            ]
            page.with_name(f"{stem}.svg").write_text(line_plot(panels), encoding="utf-8")
            lines += ["Means over sitters against time:", "", f"![Measures against time]({stem}.svg)", ""]
    return lines


def _mean_courses(results: list[dict]) -> dict[str, dict[str, list[float]]]:
    """variant -> measure -> mean over sitters in each part of the video."""
    by_variant = defaultdict(list)
    for line in results:
        by_variant[line["variant"]].append(line["course"])

    def mean(rows):
        return [sum(column) / len(column) for column in zip(*rows, strict=False)]

    return {name: {measure: mean([course[measure] for course in courses]) for measure in COURSES} for name, courses in by_variant.items()}


def _middles(seconds: float) -> tuple[float, float]:
    """The middles of the first and last part."""
    return seconds / PARTS / 2, seconds - seconds / PARTS / 2


def _strips(strips: Path, condition: str, variants: Sequence[str], results: list[dict], seconds: float) -> Image.Image | None:
    """The strips of the sitter that most variants sat, under each other in the order of `variants`."""
    here = [r for r in results if r["seconds"] == seconds and r["condition"] == condition]
    seeds = [line["seed"] for line in here]
    seed = max(sorted(set(seeds)), key=seeds.count)
    files = {TRUTH: strips / TRUTH / f"{TRUTH}-{seed}.webp"}
    files |= {variant: strips / condition / f"{variant}-{seed}.webp" for variant in variants}
    rows = {name: _moments(file) for name, file in files.items() if file.exists()}
    if not rows:
        return None
    headings = [f"{seconds * k / (MOMENTS - 1):.0f} s" for k in range(MOMENTS)]
    return contact_sheet(rows, fps=1, moments=range(MOMENTS), side=STRIP_SIDE, headings=headings)
