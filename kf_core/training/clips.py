"""Training clips: an identity, its motion and a voice become pictures and everything that drives them; latents are kept on disk.

A clip is a pure function of its seed and the speech library. Latents are made once with the frozen autoencoder and written in small
shards, so training may begin on the first ones while more are made. Knows nothing of how a generator is trained.
"""

import os
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from .. import timeline
from ..conditioning.audio import SAMPLE_RATE, AudioArray
from ..conditioning.expression import EXPRESSION
from ..conditioning.log_mel import LogMel
from ..conditioning.openpose import draw_pose
from ..timeline import PIXELS_PER_LATENT, LatentSpan, PixelSpan
from ..vae.streaming import encode_clip
from ..vae.wan import SPATIAL_STRIDE, WanVAE
from .drawing import render
from .portraits import Identities, Motion, Split, sample_identities, sample_motion, with_mouth
from .precision import mixed_precision
from .takes import FPS, Library, training_take

LENGTHS = (49, 49, 81)  # pictures of the clips in one shard after another: faces matter more than length, long rollouts need some length
SHARD = 10  # clips per file, all of one length
HELD_OUT_SEED = 2**31  # beyond any clip, and within the 32 bits of a seed that PyTorch's generator reads on a CPU


@dataclass(frozen=True, kw_only=True, eq=False)
class Drivers:
    """What drives a clip, per latent frame. Four steps to a frame, time-major, as `Driving.bind` makes them; all signals are there."""

    audio: Tensor  # [f, 1024]
    pose: Tensor  # [f, 12, h, w] RGB 0..1 on the latent grid
    expression: Tensor  # [f, 4, 5] values in the order of EXPRESSION, all known
    motion: Tensor  # [f, 1] 0..2


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """Pictures, their drivers and where the loss should look."""

    pictures: Tensor  # [3, pf, h, w] RGB 0..1
    drivers: Drivers
    weights: Tensor  # [f, h/8, w/8] 1 .. 4, more in mouth and eyes
    mouth: Tensor  # [f, h/8, w/8] 0..1 how much of the cell is mouth


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipLatents:
    """Clips as the student sees them: latents in model space, float16 on disk."""

    latents: Tensor  # [n, 16, f, h, w]
    reference: Tensor  # [n, 16, 1, h, w] the last picture, encoded alone
    audio: Tensor  # [n, f, 1024]
    pose: Tensor  # [n, f, 12, h, w] uint8
    expression: Tensor  # [n, f, 4, 5]
    motion: Tensor  # [n, f, 1]
    weights: Tensor  # [n, f, h, w]
    mouth: Tensor  # [n, f, h, w]

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, rows) -> "ClipLatents":
        return ClipLatents(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def sample_clip(
    seed: int, library: Library, *, pictures: int = max(LENGTHS), size: int = 128, split: Split = "train",
    device: torch.device | str = "cpu",
) -> Clip:  # fmt: skip
    """The clip of this seed: `pictures` = 1 + 4n pictures of `size` x `size`, drawn on `device`."""
    generator = torch.Generator().manual_seed(seed)
    take = training_take(library, pictures, np.random.default_rng([seed, 1]))
    who, motion = who_and_how(pictures, generator, split)
    drawn = render(who, with_mouth(motion, *torch.from_numpy(take.mouth)[:, None]), size, device)

    steps = timeline.groups(LatentSpan(0, timeline.latent_frames(pictures)))
    grid = size // SPATIAL_STRIDE
    pose = draw_pose(drawn.keypoints[0], grid, grid, _thickness(generator))
    expression = torch.stack([getattr(motion, name)[0] for name in EXPRESSION], -1)
    drivers = Drivers(
        audio=by_frame(LogMel(AudioArray(take.samples, SAMPLE_RATE).open(), FPS).steps(PixelSpan(0, pictures)), steps).flatten(1),
        pose=by_frame(pose, steps).flatten(1, 2),
        expression=by_frame(expression, steps),
        motion=by_frame(motion.strength[0], steps).mean(1, keepdim=True),
    )
    pool = lambda cover: F.avg_pool2d(by_frame(cover[0, :, 0], steps).amax(1), SPATIAL_STRIDE)
    only_mouth = replace(drawn, eye_boxes=torch.full_like(drawn.eye_boxes, -size))  # eyes out of the picture
    return Clip(
        pictures=rearrange(drawn.pictures[0], "f c h w -> c f h w"),
        drivers=drivers,
        weights=pool(drawn.weights()),
        mouth=pool(only_mouth.weights(extra=1.0) - 1),
    )


def who_and_how(pictures: int, generator: torch.Generator, split: Split = "train") -> tuple[Identities, Motion]:
    """The face of a clip and how it moves, but for the mouth."""
    motion = sample_motion(1, pictures, generator, FPS, _motion_strength(pictures, generator))
    return sample_identities(1, generator, split), motion


def by_frame(track: Tensor, steps: PixelSpan) -> Tensor:
    """One value per picture [pf, ...] -> four per latent frame [f, 4, ...]; a negative step answers as picture 0."""
    return track[torch.tensor([max(0, step) for step in steps])].unflatten(0, (-1, PIXELS_PER_LATENT))


def _motion_strength(pictures: int, generator: torch.Generator) -> Tensor:
    """One strength 0..2 for the clip; in a third of them it changes once, within half a second: [1, pictures]."""
    before, after, chance, place = torch.rand(4, generator=generator).tolist()
    if chance > 1 / 3:
        return torch.full((1, pictures), 2 * before)
    ramp = ((torch.arange(pictures) - place * pictures) / (FPS / 2) + 0.5).clamp(0, 1)
    return 2 * torch.lerp(torch.tensor(before), torch.tensor(after), ramp)[None]


def _thickness(generator: torch.Generator) -> float:
    """Lines as the standard has them, or in half of the clips 0.7 .. 1.5 times as thick: a user's pictures have any size."""
    chance, share = torch.rand(2, generator=generator).tolist()
    return 1.0 if chance < 0.5 else 0.7 + 0.8 * share


@torch.no_grad()
def encode(vae: WanVAE, clip: Clip) -> ClipLatents:
    """The clip in latents, one row."""
    with mixed_precision(vae.conv1.weight.device):
        pictures = clip.pictures[None].to(vae.conv1.weight.device)
        latents = encode_clip(vae, pictures)
        reference = encode_clip(vae, pictures[:, :, -1:])
    half = lambda tensor: tensor.to("cpu", torch.float16)
    return ClipLatents(
        latents=half(latents),
        reference=half(reference),
        audio=half(clip.drivers.audio[None]),
        pose=(clip.drivers.pose[None] * 255).round().byte().cpu(),
        expression=half(clip.drivers.expression[None]),
        motion=half(clip.drivers.motion[None]),
        weights=half(clip.weights[None]),
        mouth=half(clip.mouth[None]),
    )


class ClipFolder:
    """Encoded clips in a folder: `write` adds shards in order, `read_new` gives those not seen yet. One writer, any number of readers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def _shard(self, index: int) -> Path:
        return self.path / f"{index:05d}.safetensors"

    @property
    def shards(self) -> int:
        index = self._read
        while self._shard(index).exists():
            index += 1
        return index

    def write(self, clips: ClipLatents) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        file = self._shard(self.shards)
        save_file({field.name: getattr(clips, field.name).contiguous() for field in fields(clips)}, file.with_suffix(".unfinished"))
        os.replace(file.with_suffix(".unfinished"), file)

    def read_new(self, limit: int | None = None) -> list[ClipLatents]:
        """The shards written since the last call (all of them the first time), at most `limit`."""
        stop = self.shards if limit is None else min(self.shards, self._read + limit)
        shards = [ClipLatents(**load_file(self._shard(index))) for index in range(self._read, stop)]
        self._read = stop
        return shards


def joined(parts: list[ClipLatents]) -> ClipLatents:
    return ClipLatents(**{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(ClipLatents)})


def make_clips(
    folder: ClipFolder, vae: WanVAE, library: Library, *, count: int, size: int, minutes: float = float("inf"), split: Split = "train"
) -> int:
    """Encode clips until `count` lie in the folder or the minutes are over, going on where an earlier run stopped.

    Returns how many lie there."""
    until = time.monotonic() + 60 * minutes
    seeds = HELD_OUT_SEED if split == "held-out" else 0
    with tqdm(total=count, initial=folder.shards * SHARD, unit="clip", desc=f"clips ({split})", mininterval=10) as bar:
        while folder.shards * SHARD < count and time.monotonic() < until:
            shard, rows = folder.shards, []
            pictures = LENGTHS[shard % len(LENGTHS)]
            for seed in range(shard * SHARD, (shard + 1) * SHARD):
                how = dict(pictures=pictures, size=size, split=split, device=vae.conv1.weight.device)
                rows.append(encode(vae, sample_clip(seeds + seed, library, **how)))
                bar.update()
            folder.write(joined(rows))
    return folder.shards * SHARD
