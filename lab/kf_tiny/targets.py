"""What kf-tiny was meant to reach beside what was measured: one table of the model card, from the files that the protocols left.

A protocol that was not run leaves its rows out. Knows no networks: it reads numbers, compares them and says where they come from.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..protocols.long_horizon import LAST
from ..protocols.long_horizon_page import KEPT, READER, VERIFICATION
from ..protocols.mouth import WITH_IDLE

CONDITIONS = ("pose and sound", "sound only")
PROTOCOLS = ("mouth", "drift", "ablation")  # `evaluate --NAME RUN/NAME` leaves RUN/NAME/NAME.json
SHEET = "../../lab/docs/kf-tiny-ten-minutes.webp"  # what the drift protocol draws, beside the card
EXPERIMENTS = "../../lab/docs/experiments.md"
SEAMS = "seam ratio over the codec's"


@dataclass(frozen=True)
class Goal:
    """One number that was asked for: at least (`sign` 1) or at most (-1) `asked`."""

    name: str
    sign: int
    asked: float
    found: float

    @property
    def is_reached(self) -> bool:
        return self.sign * (self.found - self.asked) >= 0

    def row(self) -> str:
        bound = f"{'>=' if self.sign > 0 else '<='} {self.asked:g}"
        return f"| {self.name} | {bound} | {self.found:.3g} | {'yes' if self.is_reached else '**no**'} |"


def read_protocols(run: Path) -> dict[str, dict]:
    """What `evaluate --mouth RUN/mouth`, `--drift RUN/drift` and `--ablation RUN/ablation` left, as far as they were run."""
    files = {name: run / name / f"{name}.json" for name in PROTOCOLS}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}


def goals(codec: Mapping, measures: Mapping, protocols: Mapping[str, Mapping]) -> Iterator[Goal]:
    """`codec`: what the autoencoder's file says of itself; `measures`: what `measure.measure` returned."""
    yield Goal("PSNR of the autoencoder, held-out clips, dB", 1, 30, codec["psnr"])
    yield Goal("the same at the mouth, dB", 1, 26, codec["psnr_mouth"])
    for condition in CONDITIONS:
        each = [one["mouth r"] for one in measures["conditions"][condition]["each"]]
        mean = measures["conditions"][condition]["mean"]
        yield Goal(f"mouth r, {condition}", 1, 0.7, sum(each) / len(each))
        yield Goal(f"mouth r, {condition}, the worst face", 1, 0.5, min(each))
        yield Goal(f"mouth r, {condition}, shifted by 0.5 s", -1, 0.2, abs(mean["mouth r, shifted 0.5 s"]))
    if "mouth" in protocols:
        yield from _mouth(protocols["mouth"]["found"])
    if "drift" in protocols:
        yield from _drift(protocols["drift"]["found"])
    if "ablation" in protocols:
        yield from _seams(protocols["ablation"]["tables"])


def goals_table(codec: Mapping, measures: Mapping, protocols: Mapping[str, Mapping]) -> list[str]:
    """The table in Markdown, and under it by which commands its numbers came to be."""
    rows = [goal.row() for goal in goals(codec, measures, protocols)]
    lines = ["## Beside what was asked", "", "| | asked | found | reached |", "|---|---:|---:|---|", *rows, ""]
    if "drift" in protocols:
        lines += [f"![Eight faces in the first and in the tenth minute, beside their portraits]({SHEET})", ""]
    if protocols:
        lines += [
            "Streams of these protocols begin on their true first chunk: how one begins on a portrait makes no difference to them.",
            "",
        ]
    for name, protocol in protocols.items():
        about = protocol["about"]
        lines.append(f"- {name}: `{about['command']}`, commit {about['code']}, {about['date']}, {about['machine']}")
    if protocols and (missing := [name for name in PROTOCOLS if name not in protocols]):
        lines.append(
            f"- not run with these weights: {', '.join(missing)}; what earlier ones had is in [lab/docs/experiments.md]({EXPERIMENTS})"
        )
    return [*lines, ""] if protocols else lines


def _mouth(found: Mapping) -> Iterator[Goal]:
    closures, pauses, voices = (found[part] for part in ("closures", "pause", "voice"))
    if alive := closures.get(WITH_IDLE):  # measured where it is asked for, and by no other protocol
        yield Goal(f"mouth r, {WITH_IDLE}", 1, 0.7, alive["mouth r"])
        yield Goal(f"mouth r, {WITH_IDLE}, the worst face", 1, 0.5, alive["lowest mouth r of a sitter"])
        yield Goal(f"mouth r, {WITH_IDLE}, shifted by 0.5 s", -1, 0.2, abs(alive["mouth r, shifted 0.5 s"]))
    for condition in (*CONDITIONS, WITH_IDLE):
        if condition in closures:
            shut, control = closures[condition]["mouth shut at m, b, p"], closures[condition]["shut 0.5 s away"]
            yield Goal(f"mouth shut at m, b, p (half a second away: {control:.2f}), {condition}", 1, 0.8, shut)
        if condition in pauses:
            yield Goal(f"opening in a pause, share of speech, {condition}", -1, 0.15, pauses[condition]["opening, share of speech"])
            yield Goal(f"the same, the worst face, {condition}", -1, 0.15, pauses[condition]["largest of a sitter"])
        if condition in voices:
            yield Goal(f"r with a recorded voice, {condition}", 1, 0.5, voices[condition]["r"])
            yield Goal(f"the same, shifted, {condition}", -1, 0.2, abs(voices[condition]["shifted"]))


def _drift(found: Mapping) -> Iterator[Goal]:
    minutes = found["pose and sound"]
    yield Goal("ten minutes: identity cosine, last minute over first", 1, 0.97, minutes[KEPT][LAST]["mean"])
    yield Goal("ten minutes: the same, the worst face", 1, 0.97, minutes[KEPT]["lowest of a sitter"])
    yield Goal("ten minutes: verification AUC in the last minute", 1, 0.98, minutes[VERIFICATION][LAST]["mean"])
    yield Goal("verification AUC of the reader", 1, 0.98, found[READER])
    yield Goal("ten minutes: sharpness of the last minute over the truth's", 1, 0.9, minutes["sharpness against truth"][LAST]["mean"])
    yield Goal("ten minutes: change of the palette error", -1, 0.005, minutes["palette error"]["change"]["mean"])


def _seams(tables: list[Mapping]) -> Iterator[Goal]:
    for table in tables:
        rows, driving = table["rows"], f"{table['condition']}, {table['seconds']:g} s"
        if "full" in rows and rows["full"].get(SEAMS):
            yield Goal(f"seam ratio with the knot, {driving}", -1, 1.15, rows["full"][SEAMS]["mean"])
        without = rows.get("without-knot", {}).get(SEAMS, {}).get("difference", {})
        if without.get("low") is not None:  # fewer than three sitters have no interval
            yield Goal(f"how much larger without it, lower end of 95 %, {driving}", 1, 0, without["low"])
