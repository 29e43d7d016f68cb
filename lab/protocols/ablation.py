"""The ablation as a run: every variant with every sitter, under the same noise, measured while it is drawn, and never twice.

Each result is a line of `results.jsonl` as soon as it is there, so a run that is killed goes on where it was. Sitters are taken a few
at a time and all variants sit them before the next few come: what is there is always paired. Frames are measured and thrown
away; of each video a strip of some moments is kept. Two kinds of driving, because with pose *and* sound everything visible is
determined and a knot has nothing to carry; with sound alone head, gaze and backdrop move as nobody says.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from kf_core.metrics.reader import OneReading, PortraitReader
from kf_core.metrics.report import Examination
from kf_core.models.causal import Generator
from kf_core.settings import RolloutSettings
from kf_core.timeline import PixelSpan
from kf_core.vae.wan import WanVAE

from .batched_rollout import Played, Sitter, play, through_codec
from .metric_curves import Course
from .results import Results, claim, written_once
from .variants import Variant

POSE_AND_SOUND, SOUND_ONLY = "pose and sound", "sound only"
CONDITIONS = (POSE_AND_SOUND, SOUND_ONLY)
CODEC, TRUTH = "codec", "truth"
MOMENTS = 10  # frames in a strip
RESULTS, STRIPS = "results.jsonl", "strips"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run."""

    seconds: float
    seeds: tuple[int, ...]  # one sitter each
    variants: tuple[Variant, ...]
    conditions: tuple[str, ...] = CONDITIONS
    together: int = 4  # sitters in one rollout
    with_codec: bool = True

    @property
    def jobs(self) -> list[tuple[Variant | None, str]]:
        """(variant, condition), the autoencoder alone first."""
        codec = [(None, CODEC)] if self.with_codec else []
        return codec + [(variant, condition) for variant in self.variants for condition in self.conditions]


@dataclass(frozen=True, eq=False)
class Equipment:
    """The networks that are measured, and the one that measures."""

    model: Generator
    vae: WanVAE
    reader: PortraitReader

    def fingerprint(self) -> str:
        """A name for exactly these weights, and the precision they compute in where that is not float32."""
        weights, dtype = fingerprint_of(self.model.modules, self.model.adapters, self.vae, self.reader), self.model.dtype
        return weights if dtype == torch.float32 else f"{weights} in {str(dtype).removeprefix('torch.')}"


def run(equipment: Equipment, seat: Callable[[int], Sitter], plan: Plan, folder: Path) -> None:
    """Do what the plan asks and is not done yet. Raises KnotForcingError when the folder belongs to other weights."""
    claim(folder, equipment.fingerprint())
    results = Results(folder / RESULTS)
    done = {(line["seconds"], line["variant"], line["condition"], line["seed"]) for line in results.read()}

    def is_done(variant, condition, seed):
        return (plan.seconds, _name(variant), condition, seed) in done

    total = len(plan.jobs) * len(plan.seeds)
    missing = [job for job in plan.jobs for seed in plan.seeds if not is_done(*job, seed)]
    with tqdm(total=total, initial=total - len(missing), unit="clip", desc=f"{plan.seconds:g} s", smoothing=0.1) as bar:
        for start in range(0, len(plan.seeds), plan.together):
            sitters: dict[int, Sitter] = {}
            for variant, condition in plan.jobs:
                seeds = [s for s in plan.seeds[start : start + plan.together] if not is_done(variant, condition, s)]
                if not seeds:
                    continue
                for seed in seeds:
                    sitters.setdefault(seed, seat(seed))
                bar.set_postfix_str(f"{_name(variant)}, {condition}")
                few = [sitters[seed] for seed in seeds]
                results.append(_sit_for(equipment, few, variant, condition, plan.seconds, folder / STRIPS))
                bar.update(len(seeds))


def read(folder: Path) -> list[dict]:
    """The results that are there."""
    return Results(folder / RESULTS).read()


def fingerprint_of(*networks: torch.nn.Module | None) -> str:
    digest = hashlib.sha256()
    for network in networks:
        for name, weight in sorted(network.state_dict().items()) if network is not None else ():
            digest.update(name.encode())
            digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _sit_for(
    equipment: Equipment, sitters: Sequence[Sitter], variant: Variant | None, condition: str, seconds: float, strips: Path
) -> list[dict]:
    """Run some sitters together and measure each: one result a sitter."""
    settings = equipment.model.card.rollout if variant is None else variant.settings
    if variant is None:
        played = through_codec(equipment.vae, sitters)
    else:
        played = play(equipment.model, equipment.vae, sitters, settings, with_pose=condition == POSE_AND_SOUND)
    watchers = [_Watcher(equipment, sitter, settings) for sitter in sitters]
    started, worked = time.perf_counter(), time.process_time()
    for span, frames in _with_progress(played, sitters[0].num_frames):
        for watcher, sitter, made in zip(watchers, sitters, frames, strict=True):
            watcher.see(made, sitter.frames(span))
    cost = {"seconds of wall clock": time.perf_counter() - started, "seconds of CPU": time.process_time() - worked}
    cost = {name: round(spent / len(sitters), 2) for name, spent in cost.items()} | {"together": len(sitters)}
    lines = []
    for watcher, sitter in zip(watchers, sitters, strict=True):
        key = dict(seconds=seconds, variant=_name(variant), condition=condition, seed=sitter.seed)
        lines.append(key | {"voice": sitter.voice} | watcher.numbers() | {"cost": cost})
        place = strips / f"{seconds:g}s" / condition
        watcher.save(place / f"{_name(variant)}-{sitter.seed}.webp", watcher.made)
        truth = strips / f"{seconds:g}s" / TRUTH / f"{TRUTH}-{sitter.seed}.webp"
        written_once(truth, partial(watcher.save, frames=watcher.true))
    return lines


class _Watcher:
    """All that is kept of one video: measures, their course, and some frames."""

    def __init__(self, equipment: Equipment, sitter: Sitter, settings: RolloutSettings) -> None:
        reader, fps, count = OneReading(equipment.reader), equipment.model.card.fps, sitter.num_frames
        portrait = sitter.frames(PixelSpan(0, 1))[0]
        self._examination = Examination(
            fps=fps,
            chunk=settings.chunk,
            first_chunk=settings.first_chunk,
            portrait=portrait,
            opening=sitter.opening,
            reader=reader,
            has_truth=True,
        )
        self._course = Course(reader, portrait, count)
        self._wanted = {round((count - 1) * k / (MOMENTS - 1)) for k in range(MOMENTS)}
        self._seen = 0
        self.made: list[Tensor] = []
        self.true: list[Tensor] = []

    def see(self, made: Tensor, truth: Tensor) -> None:
        self._examination.add(made, truth)
        self._course.add(made, truth)
        for index in range(len(made)):
            if self._seen + index in self._wanted:
                self.made.append(made[index].clone())
                self.true.append(truth[index].clone())
        self._seen += len(made)

    def numbers(self) -> dict:
        values = {name: value for name, value, _ in self._examination.result().rows}
        return {"values": values, "course": self._course.result()}

    @staticmethod
    def save(path: Path, frames: list[Tensor]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        strip = torch.cat(frames, 1)
        Image.fromarray((strip.clamp(0, 1) * 255).round().byte().numpy()).save(path, quality=90)


def _with_progress(played: Iterator[Played], num_frames: int) -> Iterator[Played]:
    with tqdm(total=num_frames, unit="frame", leave=False, mininterval=2) as bar:
        for span, frames in played:
            yield span, frames
            bar.update(span.length)


def _name(variant: Variant | None) -> str:
    return CODEC if variant is None else variant.name
