"""`python -m lab ablation|attention|mouth|drift DIR`: protocols on subjects whose truth is known, because `kf_tiny` draws them.

A protocol that was stopped goes on; what is done is not done twice.
"""

import argparse
import hashlib
import json
import math
import os
import sys
from datetime import date
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kf_core.cli.model import device_called, remark_on_device, set_threads
from kf_core.cli.words import given, option, refuse, shell_line, typed
from kf_core.conditioning.audio import AudioFile
from kf_core.errors import KnotForcingError
from kf_core.metrics.line_plot import need_matplotlib
from kf_core.metrics.lip_sync import fewest_frames, opening_from_sound
from kf_core.metrics.speed import computed_on
from kf_core.outputs import refuse_inputs, refuse_place
from kf_core.timeline import latent_frames, pixel_frames
from kf_core.types import SAMPLE_RATE
from kf_core.writing import write_text

from ..kf_tiny import subjects
from ..kf_tiny.batches import LAYOUTS
from ..kf_tiny.coverage import coverage as coverage_of
from ..kf_tiny.reader_training import measure_reader
from . import ablation, attention, mouth, mouth_page
from . import long_horizon as first_and_last
from . import long_horizon_page as first_and_last_page
from .ablation import CONDITIONS, POSE_AND_SOUND, Equipment, Plan
from .ablation_page import write_page
from .measured_files import MeasuredFiles
from .variants import chosen as chosen_variants
from .variants import variants

FIRST_SEED = 2000  # of the sitters; those of the model card have others
SECONDS, SITTERS, TOGETHER = 20.0, 16, 4
WATCHED = "full,without-fusion,without-knot"  # by the attention protocol, where nothing else is asked for
PAUSE_CLIP, SILENT = 16.0, (5.5, 10.5)  # seconds: of a clip with a pause, and from when to when it is silent
LONG = 300.0  # seconds from which on a stream is driven by pose and sound only
ALL_TAKE = {"seconds", "identities", "first_seed", "checkpoint", "vae", "device", "threads"}
PAGE = {"page", "note"}
PROTOCOLS = {
    "ablation": "the method without each of its parts",
    "attention": "where each frame of a chunk looks, with and without the knot",
    "mouth": "does the mouth close on m, b, p, rest in a pause, follow a recording?",
    "drift": "the last minute beside the first; give --seconds 600",
}
TAKES = {  # the options that each protocol uses
    "ablation": ALL_TAKE | {"variants", "conditions", "together"} | PAGE,
    "attention": ALL_TAKE | {"variants", "conditions"},
    "mouth": ALL_TAKE | {"voice", "idle", "together"},
    "drift": ALL_TAKE | {"conditions", "together"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("protocol", choices=tuple(TAKES), help="; ".join(f"{name}: {what}" for name, what in PROTOCOLS.items()))
    parser.add_argument("folder", type=Path, metavar="DIR", help="where numbers and images go; a run that is there goes on")
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--voice", type=Path, nargs="+", metavar="FILE", help="recordings for mouth, one after the other")
    parser.add_argument("--idle", action="store_true", help="mouth also under idle life, which people get who give no pose")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help=f"length of each clip (default: {SECONDS:g})")
    parser.add_argument("--identities", type=int, default=SITTERS, metavar="N", help=f"held-out faces and voices (default: {SITTERS})")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, metavar="N", help=f"of the sitters (default: {FIRST_SEED})")
    parser.add_argument("--variants", metavar="A,B", help="only these (default: all; the few that matter for 45 s and more)")
    parser.add_argument("--conditions", metavar="A,B", help=f"of {', '.join(CONDITIONS)} (default: both; from {LONG:g} s on the first)")
    parser.add_argument("--together", type=int, default=TOGETHER, metavar="N", help=f"sitters in one rollout (default: {TOGETHER})")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="model (default: the bundled kf-tiny)")
    parser.add_argument("--vae", type=Path, metavar="FILE", help="its autoencoder (default: the bundled one)")
    parser.add_argument("--device", default="cpu", help="what draws them: cpu, cuda, .. (default: cpu)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page here, frames beside it (default: DIR/ablation.md)")
    parser.add_argument("--note", default="", metavar="TEXT", help="what the top of the page says, in Markdown")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")


def run(chosen: argparse.Namespace) -> int:
    protocol = chosen.protocol
    words = given(chosen, add_options)
    refuse(words, words.keys() - TAKES[protocol], f"{protocol} does not use it. Leave it out.")
    _check_outputs(chosen)
    return {"ablation": run_ablation, "attention": run_attention, "mouth": run_mouth, "drift": run_drift}[protocol](chosen)


def _check_outputs(chosen: argparse.Namespace) -> None:
    """Refuse to write over what is read. The folder is made only when there is something to put into it."""
    folder, protocol = chosen.folder, chosen.protocol
    numbers = folder / f"{protocol}.json"
    outputs = {"--page": chosen.page, f"{numbers.name} in {folder}": numbers}
    own = MeasuredFiles.of(None, None)
    read = {"--checkpoint": chosen.checkpoint, "--vae": chosen.vae, "--voice": chosen.voice, "the pack's own model": own.generator.parent}
    refuse_inputs(outputs, read)
    if chosen.page is not None and os.path.lexists(chosen.page.parent):
        refuse_place(chosen.page, "--page")
    if os.path.lexists(folder) and not folder.is_dir():
        raise KnotForcingError(f"{protocol}: {folder} is not a folder. Give a folder, there already or not.")


def run_ablation(chosen: argparse.Namespace) -> int:
    """Run what is missing, and write numbers and page of all that is there."""
    need_matplotlib()
    files, equipment = _prepare(chosen)
    card = equipment.model.card
    every = variants(card.rollout, latent_frames(round(chosen.seconds * card.fps)))
    plan = Plan(
        seconds=chosen.seconds,
        seeds=_seeds(chosen),
        variants=chosen_variants(chosen.variants, every, chosen.seconds),
        conditions=_conditions(chosen.conditions, chosen.seconds),
        together=chosen.together,
        with_codec=chosen.seconds < LONG,
    )

    def seat(seed):
        return subjects.seat(seed, chosen.seconds, card.width, chosen.folder / "speech")

    ablation.run(equipment, seat, plan, chosen.folder)
    shown = files.trained_under(card.rollout, LAYOUTS)
    coverage = shown and {name: coverage_of(shown, variant.settings) for name, variant in every.items()}
    page = chosen.page or chosen.folder / "ablation.md"
    write_page(
        chosen.folder,
        page,
        changes={name: variant.change for name, variant in every.items()},
        coverage=coverage,
        about={"note": chosen.note, "command": command_of(chosen, "ablation"), **files.facts(), "machine": _machine(equipment)},
        reader=equipment.reader,
    )
    print(f"{chosen.folder / 'ablation.json'}, {page}")
    return 0


def run_attention(chosen: argparse.Namespace) -> int:
    """Watch the attention of a few variants and write `attention.json` and a figure for each kind of driving."""
    need_matplotlib()
    files, equipment = _prepare(chosen)
    card = equipment.model.card
    every = variants(card.rollout, latent_frames(round(chosen.seconds * card.fps)))
    watched = chosen_variants(chosen.variants or WATCHED, every, chosen.seconds)
    conditions = _conditions(chosen.conditions, chosen.seconds)
    seeds = _seeds(chosen)
    sitters = [subjects.seat(seed, chosen.seconds, card.width, chosen.folder / "speech") for seed in seeds]
    found: dict[str, dict] = {condition: {} for condition in conditions}
    with tqdm(total=len(watched) * len(conditions), unit="rollout") as bar:
        for condition in conditions:
            contexts = {}
            for variant in watched:
                bar.set_postfix_str(f"{variant.name}, {condition}")
                with_pose = condition == POSE_AND_SOUND
                contexts[variant.name] = attention.watch(equipment.model, equipment.vae, sitters, variant.settings, with_pose=with_pose)
                found[condition][variant.name] = contexts[variant.name].as_numbers()
                bar.update()
            figure = chosen.folder / f"attention-{condition.replace(' ', '-')}.svg"
            write_text(figure, attention.plot(contexts))
    about = {"command": command_of(chosen, "attention"), **files.facts(), "machine": _machine(equipment), "date": str(date.today())}
    numbers = {"about": about | {"seeds": list(seeds), "seconds": chosen.seconds}, "found": found}
    write_text(chosen.folder / "attention.json", json.dumps(numbers, indent=1))
    for condition, contexts in found.items():
        for name, context in contexts.items():
            *within, across = context["overlap with the next frame"]
            inside = f", within a chunk {sum(within) / len(within):.3f}" if within else ""
            print(f"{condition}, {name}: attention in common with the next frame: across a seam {across:.3f}{inside}")
    return 0


def run_mouth(chosen: argparse.Namespace) -> int:
    """Read what is missing and write `mouth.json`; prints a table."""
    files, equipment = _prepare(chosen)
    size, fps = equipment.model.card.width, equipment.model.card.fps
    seeds = _seeds(chosen)
    speech = chosen.folder / "speech"

    def speaking(seed):
        return subjects.seat(seed, chosen.seconds, size, speech)

    def pausing(seed):
        return subjects.seat_with_pause(seed, PAUSE_CLIP, size, SILENT, speech)

    conditions = (*mouth.EVERY, mouth.WITH_IDLE) if chosen.idle else mouth.EVERY
    protocols = [
        mouth.Protocol(mouth_page.CLOSURES, f"{chosen.seconds:g} s", speaking, conditions),
        mouth.Protocol(mouth_page.PAUSE, f"{PAUSE_CLIP:g} s", pausing, conditions),
    ]
    opening = None
    if chosen.voice:
        samples = mouth.joined([_samples(path) for path in chosen.voice], SAMPLE_RATE)
        opening = opening_from_sound(samples, SAMPLE_RATE, fps)
        opening = opening[: pixel_frames(latent_frames(len(opening)) - 1)]

        def hearing(seed):
            return subjects.seat_with_voice(seed, samples, opening, size, chosen.voice[0].stem)

        protocols.append(mouth.Protocol(mouth_page.VOICE, hashlib.sha256(samples.tobytes()).hexdigest()[:12], hearing, conditions))
    mouth.run(equipment, protocols, seeds, chosen.folder, together=chosen.together)
    seated = {seed: speaking(seed) for seed in seeds}
    known = dict(closures={seed: sitter.closures for seed, sitter in seated.items()}, silent=SILENT, opening=opening)
    known |= dict(true_openings={seed: sitter.opening for seed, sitter in seated.items()})
    found = mouth_page.numbers(chosen.folder, protocols, fps=fps, **known)
    about = {"command": command_of(chosen, "mouth"), **files.facts(), "machine": _machine(equipment), "date": str(date.today())}
    about |= {"seeds": list(seeds), "voice": [path.name for path in chosen.voice or ()]}
    write_text(chosen.folder / "mouth.json", json.dumps({"about": about, "found": found}, indent=1))
    print(mouth_page.table(found), end="")
    return 0


def run_drift(chosen: argparse.Namespace) -> int:
    """Roll out what is missing and write `drift.json` and a sheet for each kind of driving; prints a table."""
    files, equipment = _prepare(chosen)
    size, fps = equipment.model.card.width, equipment.model.card.fps
    conditions = _conditions(chosen.conditions or POSE_AND_SOUND, chosen.seconds)
    plan = first_and_last.Plan(seconds=chosen.seconds, seeds=_seeds(chosen), conditions=conditions, together=chosen.together)

    def seat(seed):
        return subjects.seat(seed, chosen.seconds, size, chosen.folder / "speech")

    first_and_last.run(equipment, seat, plan, chosen.folder)
    of_the_reader = measure_reader(equipment.reader).verification_auc
    found = {first_and_last_page.READER: of_the_reader}
    lines = {condition: first_and_last_page.lines_of(chosen.folder, chosen.seconds, condition) for condition in conditions}
    print(f"{first_and_last_page.READER}: {of_the_reader:.4f}")
    for condition, each in lines.items():
        found[condition] = first_and_last_page.numbers(each, condition)
        minute = each[0][first_and_last.FIRST]["frames"] / fps
        print(f"\n{condition}, {chosen.seconds:g} s, {len(each)} sitters\n\n{first_and_last_page.table(found[condition], minute)}", end="")
        sheet = chosen.folder / f"drift-{condition.replace(' ', '-')}.webp"
        first_and_last_page.write_sheet(chosen.folder, each, fps, sheet)
        print(sheet)
    about = {"command": command_of(chosen, "drift"), **files.facts(), "machine": _machine(equipment), "date": str(date.today())}
    about |= {"seconds": chosen.seconds, "seeds": {condition: [line["seed"] for line in each] for condition, each in lines.items()}}
    numbers = {"about": about, "found": found, "results": lines}
    write_text(chosen.folder / "drift.json", json.dumps(numbers, indent=1))
    print(chosen.folder / "drift.json")
    return 0


def _samples(path: Path) -> np.ndarray:
    return np.concatenate([block[:, 0] for block in AudioFile(path).blocks(SAMPLE_RATE)])


def _prepare(chosen: argparse.Namespace) -> tuple[MeasuredFiles, Equipment]:
    """What every protocol begins with: the files that are measured, and their networks."""
    if not 0 < chosen.seconds < float("inf"):
        raise KnotForcingError(f"Clips of {chosen.seconds:g} s cannot be made. Give --seconds more than 0.")
    for name in ("identities", "together"):
        if (count := getattr(chosen, name)) < 1:
            raise KnotForcingError(f"{count} sitters show nothing. Give {option(name)} 1 or more.")
    set_threads(chosen.threads)
    if remark := remark_on_device(chosen):
        print(f"Note: {remark}", file=sys.stderr)
    files = MeasuredFiles.of(chosen.checkpoint, chosen.vae)
    equipment = files.load(device_called(chosen.device))
    fps = equipment.model.card.fps
    frames, needed = pixel_frames(latent_frames(round(chosen.seconds * fps))), fewest_frames(fps)
    if frames < needed:
        raise KnotForcingError(
            f"Clips of {frames} frames are too short to say whether a mouth follows: {needed} are needed at {fps:g} FPS. "
            f"Give --seconds {math.ceil(needed / fps)} or more."
        )
    return files, equipment


def _machine(equipment: Equipment) -> str:
    return computed_on(equipment.model.dtype, equipment.model.device)


def _seeds(chosen: argparse.Namespace) -> tuple[int, ...]:
    return tuple(range(chosen.first_seed, chosen.first_seed + chosen.identities))


def command_of(chosen: argparse.Namespace, protocol: str) -> str:
    """The words that repeat a run, without those that say where it is kept and what is said of it; of files the names alone."""
    repeated = {"seconds": chosen.seconds, "identities": chosen.identities} | given(chosen, add_options)
    words = [word for name, value in repeated.items() if name in TAKES[protocol] - PAGE for word in typed(name, value)]
    return shell_line(["python", "-m", "lab", protocol, "DIR", *words])


def _conditions(names: str | None, seconds: float) -> tuple[str, ...]:
    if names is None:
        return CONDITIONS if seconds < LONG else (POSE_AND_SOUND,)
    wanted = tuple(name.strip() for name in names.split(","))
    if unknown := [name for name in wanted if name not in CONDITIONS]:
        raise KnotForcingError(f"There is no condition {', '.join(unknown)}. There are: {', '.join(CONDITIONS)}.")
    return wanted
