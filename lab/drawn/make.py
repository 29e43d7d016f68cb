"""Makes shards of drawn heads: one character a clip, with all labels. A shard is a pure function of its seed and of this code.

python -m lab.drawn.make --out shards --seed 1 --clips 100 --frames 4 --moments
python -m lab.drawn.make --sheet drawn.png --seed 40
"""

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ..framing import TIGHT, Framing
from ..heads.motion import FPS, TRACKS, Performance, babble, moments
from ..points import PARTS, POINTS
from ..shards import Shard, write_shard
from .draw import Character
from .style import draw_style

LICENCE = "this repository's, Apache-2.0"


def draw_character(rng: np.random.Generator, framing: Framing = TIGHT, loose: float = 1.0) -> Character:
    """Somebody new in about the aligned framing: scale .85 to 1.15, shift 5 %, roll 8 degrees; `loose` times that."""
    scale, shift = float(np.exp(rng.uniform(-0.15, 0.14) * loose)), rng.uniform(-0.05, 0.05, 2) * loose
    return Character(draw_style(rng), rng, framing, scale, tuple(shift), float(np.radians(rng.uniform(-8, 8)) * loose))


def make_shard(
    path: Path, seed: int, clips: int, frames: int, size: int = 128, are_moments: bool = False, framing: Framing = TIGHT, loose: float = 1.0
) -> Shard:
    """Draw `clips` characters and write the shard. `are_moments`: the frames of a clip are unrelated states."""
    drawn, known = [], []
    for clip in range(clips):
        rng = np.random.default_rng([seed, clip])
        character = draw_character(rng, framing, loose)
        if are_moments:
            states = moments(frames, rng)
            alone = [character.render(states[i : i + 1], size) for i in range(frames)]  # each is cut by its own eyes
            drawn.append({name: np.concatenate([state[name] for state in alone]) for name in alone[0]})
        else:
            drawn.append(character.render(babble(frames, rng), size))
        known.append({"kind": character.style.kind, "rendering": character.style.rendering, "eyes": character.style.eyes})
    tensors = {name: np.stack([clip[name] for clip in drawn]) for name in drawn[0]}
    tensors["tracks"] = tensors["tracks"].astype(np.float16)
    about = {
        "world": "drawn", "licence": LICENCE, "seed": seed, "fps": FPS, "are_moments": are_moments, "points": POINTS, "tracks": TRACKS,
        "parts": PARTS, "framing": [framing.eye_distance, framing.eye_line], "people": known,
    }  # fmt: skip
    return write_shard(path, tensors, about)


def sheet(seed: int, people: int = 10, size: int = 128, show: int = 128) -> Image.Image:
    """Characters by rows; a resting frame and seven moments."""
    rows = []
    for person in range(people):
        rng = np.random.default_rng([seed, person])
        character = draw_character(rng, loose=0.3)
        states = moments(8, rng)
        rest = dataclasses.replace(states, **{name: np.concatenate([[0.0], getattr(states, name)[1:]]) for name in TRACKS})
        frames = character.render(Performance(**vars(rest)), size)["frames"]
        large = [Image.fromarray(frame).resize((show, show), Image.Resampling.BICUBIC) for frame in frames]
        rows.append(np.concatenate([np.asarray(frame) for frame in large], 1))
    return Image.fromarray(np.concatenate(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw heads into a shard, or onto a contact sheet.")
    parser.add_argument("--out", type=Path, help="folder of the shards")
    parser.add_argument("--name", default="drawn", help="the shard's file is NAME-SEED")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet instead")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--moments", action="store_true", help="unrelated states instead of motion")
    parser.add_argument("--loose", type=float, default=1.0, help="so many times the aligned framing's randomness")
    given = parser.parse_args()
    started = time.process_time()
    if given.sheet:
        sheet(given.seed, size=given.size).save(given.sheet)
    else:
        path = given.out / f"{given.name}-{given.seed:04d}.safetensors"
        make_shard(path, given.seed, given.clips, given.frames, given.size, given.moments, loose=given.loose)
        spent = time.process_time() - started
        print(f"{path}: {given.clips * given.frames} frames in {spent:.0f} CPU s, {given.clips * given.frames / spent:.1f} a second")
