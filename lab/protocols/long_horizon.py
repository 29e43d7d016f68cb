"""Ten minutes in one stream: what the last minute is beside the first.

Sitters are rolled out a few at a time; only the first and the last minute are decoded and measured, and only there is the truth drawn.
A result is a line of `results.jsonl` as soon as its sitters are done; frames are thrown away, but for some moments of each minute,
which are kept as a strip. What is measured of the made frames is measured of the truth, too: a head that turns changes the palette,
and how far is the truth's to say. Source of the measures: `course.py`, `psnr.py`, `identity.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from kf_core.metrics.psnr import Psnr
from kf_core.metrics.reader import OneReading, PortraitReader
from kf_core.timeline import PixelSpan

from .ablation import POSE_AND_SOUND, Equipment
from .batched_rollout import Sitter, play
from .metric_curves import Course
from .results import Results, claim

FIRST, LAST, MADE, TRUTH = "first", "last", "made", "truth"
MINUTE = 60.0  # seconds
MOMENTS = 12  # frames of each minute that are embedded
ON_SHEET = (1, 4, 7, 10)  # of these, those that are kept to be looked at
DIGITS = 5  # of what is kept of an embedding
RESULTS, STRIPS = "results.jsonl", "strips"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run."""

    seconds: float
    seeds: tuple[int, ...]  # one sitter each
    conditions: tuple[str, ...] = (POSE_AND_SOUND,)
    together: int = 4  # sitters in one rollout


def ends(num_frames: int, fps: float) -> dict[str, PixelSpan]:
    """The first and the last minute; of what is shorter than two, its halves."""
    length = min(round(MINUTE * fps), num_frames // 2)
    return {FIRST: PixelSpan(0, length), LAST: PixelSpan(num_frames - length, num_frames)}


def run(equipment: Equipment, seat: Callable[[int], Sitter], plan: Plan, folder: Path) -> None:
    """Roll out and measure what is not done yet. Raises KnotForcingError when the folder belongs to other weights."""
    claim(folder, equipment.fingerprint())
    results = Results(folder / RESULTS)
    done = {(line["seconds"], line["condition"], line["seed"]) for line in results.read()}
    for condition in plan.conditions:
        missing = [seed for seed in plan.seeds if (plan.seconds, condition, seed) not in done]
        for start in range(0, len(missing), plan.together):
            sitters = [seat(seed) for seed in missing[start : start + plan.together]]
            results.append(_sit_for(equipment, sitters, condition, plan.seconds, strips_of(folder, plan.seconds, condition)))


def strips_of(folder: Path, seconds: float, condition: str) -> Path:
    return folder / STRIPS / f"{seconds:g}s" / condition


def _sit_for(equipment: Equipment, sitters: Sequence[Sitter], condition: str, seconds: float, strips: Path) -> list[dict]:
    """Roll some sitters out together: one result a sitter."""
    own, fps, count = equipment.model.card.rollout, equipment.model.card.fps, sitters[0].num_frames
    spans = ends(count, fps)
    portraits = [sitter.frames(PixelSpan(0, 1))[0] for sitter in sitters]
    watched = [{end: _Minute(equipment.reader, portrait, span) for end, span in spans.items()} for portrait in portraits]
    names = ", ".join(str(sitter.seed) for sitter in sitters)
    with tqdm(total=count, unit="frame", desc=f"{condition}, {names}", mininterval=5) as bar:
        how = dict(with_pose=condition == POSE_AND_SOUND, only=tuple(spans.values()))
        for span, frames in play(equipment.model, equipment.vae, sitters, own, **how):
            for end, inside in spans.items():
                common = PixelSpan(max(span.start, inside.start), min(span.stop, inside.stop)) if _meet(span, inside) else None
                for sitter, made, minutes in zip(sitters, frames, watched, strict=True) if common else ():
                    minutes[end].add(made[common.start - span.start : common.stop - span.start], sitter.frames(common))
            bar.update(span.length)
    lines = []
    for sitter, portrait, minutes in zip(sitters, portraits, watched, strict=True):
        line = dict(seconds=seconds, condition=condition, seed=sitter.seed, voice=sitter.voice)
        line["portrait"] = _rounded(equipment.reader.read(portrait[None]).embedding[0])
        lines.append(line | {end: minute.result() for end, minute in minutes.items()})
        save_strip(strips / f"{sitter.seed}.webp", [portrait, *(frame for minute in minutes.values() for frame in minute.kept)])
    return lines


class _Minute:
    """All that is kept of one minute: its measures, embeddings of some moments, a few frames."""

    def __init__(self, reader: PortraitReader, portrait: Tensor, span: PixelSpan) -> None:
        self._readers = {kind: OneReading(reader) for kind in (MADE, TRUTH)}
        self._courses = {kind: Course(each, portrait, span.length, parts=1) for kind, each in self._readers.items()}
        self._psnr = Psnr()
        moments = [round((span.length - 1) * k / (MOMENTS - 1)) for k in range(MOMENTS)]
        self._moments, self._shown = set(moments), {moments[index] for index in ON_SHEET}
        self._embeddings: dict[str, list[list[float]]] = {MADE: [], TRUTH: []}
        self._seen = 0
        self.kept: list[Tensor] = []

    def add(self, made: Tensor, truth: Tensor) -> None:
        self._courses[MADE].add(made, truth)
        self._courses[TRUTH].add(truth, truth)
        self._psnr.add(made, truth)
        here = [index for index in range(len(made)) if self._seen + index in self._moments]
        for kind, frames in ((MADE, made), (TRUTH, truth)):
            embeddings = self._readers[kind].read(frames).embedding
            self._embeddings[kind] += [_rounded(embeddings[index]) for index in here]
        self.kept += [made[index].clone() for index in here if self._seen + index in self._shown]
        self._seen += len(made)

    def result(self) -> dict:
        values = {kind: {name: parts[0] for name, parts in course.result().items()} for kind, course in self._courses.items()}
        values[MADE]["PSNR"] = self._psnr.result().whole
        return {"frames": self._seen, "values": values, "embeddings": self._embeddings}


def save_strip(path: Path, frames: Sequence[Tensor]) -> None:
    """Frames [h, w, 3] side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    strip = torch.cat(list(frames), 1)
    Image.fromarray((strip.clamp(0, 1) * 255).round().byte().numpy()).save(path, quality=90)


def _meet(one: PixelSpan, other: PixelSpan) -> bool:
    return max(one.start, other.start) < min(one.stop, other.stop)


def _rounded(embedding: Tensor) -> list[float]:
    return [round(value, DIGITS) for value in embedding.tolist()]
