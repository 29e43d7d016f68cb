"""`evaluate`: measure a finished video, with what is at hand of its portrait, its sound and the truth."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..conditioning.audio import AudioFile
from ..conditioning.portrait import prepare_portrait
from ..errors import KnotForcingError
from ..media.image import read_image
from ..media.playback import VideoFacts, frames, probe
from ..metrics.contact_sheet import contact_sheet
from ..metrics.lip_sync import fewest_frames, opening_from_sound
from ..metrics.reader import load_reader
from ..metrics.report import evaluate
from ..metrics.vbench import vbench
from ..outputs import refuse_outputs
from ..settings import RolloutSettings
from ..types import SAMPLE_RATE
from ..writing import replacing, write_text

SHEET_COLUMNS = 10
READ = ("portrait", "audio", "truth")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", type=Path, metavar="VIDEO", help="the video to measure")
    parser.add_argument("--portrait", type=Path, metavar="FILE", help="its portrait: does it still look like that? (cartoons only)")
    parser.add_argument("--audio", type=Path, metavar="FILE", help="its voice: does the mouth follow? (cartoons only)")
    parser.add_argument("--truth", type=Path, metavar="VIDEO", help="what it should have been, frame by frame")
    parser.add_argument("--chunk", type=int, default=RolloutSettings.chunk, metavar="N", help="latent frames in a chunk (default: 3)")
    parser.add_argument("--vbench", type=Path, metavar="PYTHON", help="also VBench's own dimensions, by a Python that has it installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="write a contact sheet here, a PNG")


def run(chosen: argparse.Namespace) -> int:
    _check_outputs(chosen)
    facts = probe(chosen.video)
    _refuse_unmeasurable(chosen, facts)
    needs_reader = chosen.portrait is not None or chosen.audio is not None
    report = evaluate(
        _blocks(chosen.video),
        fps=facts.fps,
        chunk=chosen.chunk,
        truth=None if chosen.truth is None else _blocks(chosen.truth),
        portrait=None if chosen.portrait is None else _portrait(chosen.portrait, facts.width, facts.height),
        opening=None if chosen.audio is None else _opening(chosen.audio, facts.fps, facts.frames),
        reader=load_reader() if needs_reader else None,
    )
    print(report.to_markdown(), end="")
    numbers = json.loads(report.to_json())
    if chosen.vbench is not None:
        found = vbench(chosen.video, chosen.vbench)
        numbers["vbench"] = asdict(found)
        for dimension, score in found.scores.items():
            print(f"| VBench: {dimension.replace('_', ' ')} | {100 * score:.4g} | 0..100 |")
        for dimension, reason in found.missing.items():
            print(f"VBench found no {dimension.replace('_', ' ')}: {reason}. How to get its models: lab/docs/evaluation.md.")
    if chosen.json is not None:
        write_text(chosen.json, json.dumps(numbers, indent=2) + "\n")
    if chosen.sheet is not None:
        with replacing(chosen.sheet) as fresh:
            _sheet(chosen, facts.frames, facts.fps).save(fresh)
    return 0


def _check_outputs(chosen: argparse.Namespace) -> None:
    """Refuse what cannot be written, or must not be written over, before anything is measured."""
    read = {"the video": chosen.video, "--vbench": chosen.vbench} | {f"--{name}": getattr(chosen, name) for name in READ}
    outputs = {"--json": chosen.json, "--sheet": chosen.sheet}
    refuse_outputs(outputs, read)
    if chosen.sheet is not None and chosen.sheet.suffix.lower() not in _image_suffixes():
        raise KnotForcingError(f"{chosen.sheet} is not the name of an image. Give, for example, {chosen.sheet.with_suffix('.png')}.")


def _image_suffixes() -> set[str]:
    """The endings that Pillow can write."""
    return {ending for ending, kind in Image.registered_extensions().items() if kind in Image.SAVE}


def _refuse_unmeasurable(chosen: argparse.Namespace, facts: VideoFacts) -> None:
    """Raises KnotForcingError before an image is read."""
    if chosen.chunk < 1:
        raise KnotForcingError(f"A chunk of {chosen.chunk} latent frames cannot be. Give --chunk 1 or more, as the video was made with.")
    true = facts if chosen.truth is None else probe(chosen.truth)
    if (true.width, true.height) != (facts.width, facts.height):
        raise KnotForcingError(
            f"{chosen.video} is {facts.width}x{facts.height} and {chosen.truth} is {true.width}x{true.height}, so they cannot be compared "
            f"frame by frame. Scale one of them to the size of the other."
        )
    common, needed = min(facts.frames, true.frames), fewest_frames(facts.fps)
    if chosen.audio is not None and common < needed:
        raise KnotForcingError(
            f"{common} frames are too few to say whether the mouth follows the voice: {needed} are needed at {facts.fps:g} FPS. "
            f"Leave out --audio, or give a longer video."
        )


def _blocks(path: Path):
    for frame in frames(path):
        yield frame[None]


def _portrait(path: Path, width: int, height: int) -> torch.Tensor:
    return prepare_portrait(read_image(path), width, height)[0, :, 0].permute(1, 2, 0)


def _opening(path: Path, fps: float, count: int) -> torch.Tensor:
    sound = np.concatenate([block[:, 0] for block in AudioFile(path).blocks(SAMPLE_RATE)])
    opening = opening_from_sound(sound, SAMPLE_RATE, fps)[:count]
    return torch.nn.functional.pad(opening, (0, count - len(opening)))


def _sheet(chosen: argparse.Namespace, count: int, fps: float):
    """Only the frames that are shown are kept."""
    columns = min(SHEET_COLUMNS, count)
    wanted = {round((count - 1) * k / max(1, columns - 1)): k for k in range(columns)}
    rows = {}
    for name, path in (("video", chosen.video), ("truth", chosen.truth)):
        if path is not None:
            rows[name] = torch.stack([frame for index, frame in enumerate(frames(path)) if index in wanted])
    step = (count - 1) / max(1, columns - 1) / fps if columns > 1 else 1.0
    return contact_sheet(rows, fps=1 / step, columns=columns)
