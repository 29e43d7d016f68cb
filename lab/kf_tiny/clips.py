"""Training clips: an identity, its motion and a voice become frames and everything that drives them; latents are kept on disk.

A clip is a pure function of its seed and the speech library. Latents are made once with the frozen autoencoder and written in small
shards, so training may begin on the first ones while more are made. Knows nothing of how a generator is trained.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from kf_core import timeline
from kf_core.conditioning.audio import AudioArray
from kf_core.conditioning.expression import EXPRESSION
from kf_core.conditioning.head import Tensors
from kf_core.conditioning.openpose import draw_pose
from kf_core.encoders.log_mel import LogMel
from kf_core.timeline import PIXELS_PER_LATENT, LatentSpan, PixelSpan
from kf_core.training.precision import mixed_precision
from kf_core.types import SAMPLE_RATE
from kf_core.vae.streaming import encode_clip
from kf_core.vae.wan import SPATIAL_STRIDE, WanVAE

from .drawing import render
from .portraits import Identities, Motion, Split, sample_identities, sample_motion, with_mouth
from .speech_dataset import FPS, Library, training_take

LENGTHS = (49, 49, 81)  # frames of the clips in one shard after another: faces matter more than length, long rollouts need some length
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
    """Frames, their drivers and where the loss should look."""

    frames: Tensor  # [3, pf, h, w] RGB 0..1
    drivers: Drivers
    weights: Tensor  # [f, h/8, w/8] 1 .. 4, more in mouth and eyes
    mouth: Tensor  # [f, h/8, w/8] 0..1 how much of the cell is mouth


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipLatents:
    """Clips as the student sees them: latents in model space, float16 on disk."""

    latents: Tensor  # [n, 16, f, h, w]
    reference: Tensor  # [n, 16, 1, h, w] the last frame, encoded alone
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
    seed: int, library: Library, *, frames: int = max(LENGTHS), size: int = 128, split: Split = "train",
    device: torch.device | str = "cpu",
) -> Clip:  # fmt: skip
    """The clip of this seed: `frames` = 1 + 4n frames of `size` x `size`, drawn on `device`."""
    (clip,) = sample_clips([seed], library, frames=frames, size=size, split=split, device=device)
    return clip


def sample_clips(
    seeds: Sequence[int], library: Library, *, frames: int, size: int, split: Split = "train", device: torch.device | str = "cpu"
) -> list[Clip]:
    """The clips of these seeds, drawn together."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    takes = [training_take(library, frames, np.random.default_rng([seed, 1])) for seed in seeds]
    faces, motions = zip(*(who_and_how(frames, generator, split) for generator in generators), strict=True)
    spoken = torch.from_numpy(np.stack([take.mouth for take in takes])).unbind(1)
    motion = with_mouth(_together(motions), *spoken)
    drawn = render(_together(faces), motion, size, device)

    steps = timeline.groups(LatentSpan(0, timeline.latent_frames(frames)))
    grid = size // SPATIAL_STRIDE
    cover = drawn.weights()
    only_mouth = replace(drawn, eye_boxes=torch.full_like(drawn.eye_boxes, -size)).weights(extra=1.0) - 1  # eyes out of the frame

    def pool(cover):
        return F.avg_pool2d(by_frame(cover[:, 0], steps).amax(1), SPATIAL_STRIDE)

    clips = []
    for row, (take, generator) in enumerate(zip(takes, generators, strict=True)):
        pose = draw_pose(drawn.keypoints[row], grid, grid, _thickness(generator))
        expression = torch.stack([getattr(motion, name)[row] for name in EXPRESSION], -1)
        drivers = Drivers(
            audio=by_frame(LogMel(AudioArray(take.samples, SAMPLE_RATE).open(), FPS).steps(PixelSpan(0, frames)), steps).flatten(1),
            pose=by_frame(pose, steps).flatten(1, 2),
            expression=by_frame(expression, steps),
            motion=by_frame(motion.strength[row], steps).mean(1, keepdim=True),
        )
        shown = rearrange(drawn.frames[row], "f c h w -> c f h w")
        clips.append(Clip(frames=shown, drivers=drivers, weights=pool(cover[row]), mouth=pool(only_mouth[row])))
    return clips


def _together(parts: Sequence[Tensors]) -> Tensors:
    """Faces or motions of one each, as those of many."""
    leaves: list[list[Tensor]] = []
    for part in parts:
        leaves.append([])
        part.map(leaves[-1].append)
    columns = zip(*leaves, strict=True)
    return parts[0].map(lambda _: torch.cat(next(columns)))


def who_and_how(frames: int, generator: torch.Generator, split: Split = "train") -> tuple[Identities, Motion]:
    """The face of a clip and how it moves, but for the mouth."""
    motion = sample_motion(1, frames, generator, FPS, _motion_strength(frames, generator))
    return sample_identities(1, generator, split), motion


def by_frame(track: Tensor, steps: PixelSpan) -> Tensor:
    """One value per frame [pf, ...] -> four per latent frame [f, 4, ...]; a negative step answers as frame 0."""
    return track[torch.tensor([max(0, step) for step in steps])].unflatten(0, (-1, PIXELS_PER_LATENT))


def _motion_strength(frames: int, generator: torch.Generator) -> Tensor:
    """One strength 0..2 for the clip; in a third of them it changes once, within half a second: [1, frames]."""
    before, after, chance, place = torch.rand(4, generator=generator).tolist()
    if chance > 1 / 3:
        return torch.full((1, frames), 2 * before)
    ramp = ((torch.arange(frames) - place * frames) / (FPS / 2) + 0.5).clamp(0, 1)
    return 2 * torch.lerp(torch.tensor(before), torch.tensor(after), ramp)[None]


def _thickness(generator: torch.Generator) -> float:
    """Lines as the standard has them, or in half of the clips 0.7 .. 1.5 times as thick: a user's images have any size."""
    chance, share = torch.rand(2, generator=generator).tolist()
    return 1.0 if chance < 0.5 else 0.7 + 0.8 * share


def encode(vae: WanVAE, clip: Clip) -> ClipLatents:
    """The clip in latents, one row."""
    return encode_together(vae, [clip])


@torch.no_grad()
def encode_together(vae: WanVAE, clips: list[Clip]) -> ClipLatents:
    """Clips of one length in latents, a row each."""
    with mixed_precision(vae.conv1.weight.device):
        frames = torch.stack([clip.frames for clip in clips]).to(vae.conv1.weight.device)
        latents = encode_clip(vae, frames)
        reference = encode_clip(vae, frames[:, :, -1:])

    def half(tensor):
        return tensor.to("cpu", torch.float16)

    def rows(take):
        return torch.stack([take(clip) for clip in clips])

    return ClipLatents(
        latents=half(latents),
        reference=half(reference),
        audio=half(rows(lambda clip: clip.drivers.audio)),
        pose=(rows(lambda clip: clip.drivers.pose) * 255).round().byte().cpu(),
        expression=half(rows(lambda clip: clip.drivers.expression)),
        motion=half(rows(lambda clip: clip.drivers.motion)),
        weights=half(rows(lambda clip: clip.weights)),
        mouth=half(rows(lambda clip: clip.mouth)),
    )


class ClipFolder:
    """Encoded clips in a folder: `write` adds a shard, `read_new` gives those not seen yet. One writer of each, any number of readers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: set[int] = set()

    def _shard(self, index: int) -> Path:
        return self.path / f"{index:05d}.safetensors"

    def _indices(self) -> list[int]:
        return sorted(int(file.stem) for file in self.path.glob("[0-9]*.safetensors"))

    @property
    def shards(self) -> int:
        return len(self._indices())

    def holds(self, index: int) -> bool:
        return self._shard(index).exists()

    def write(self, clips: ClipLatents, index: int | None = None) -> None:
        """As the shard of this number, or else of the first that is free."""
        self.path.mkdir(parents=True, exist_ok=True)
        file = self._shard(next(free for free in count() if not self.holds(free)) if index is None else index)
        save_file({field.name: getattr(clips, field.name).contiguous() for field in fields(clips)}, file.with_suffix(".unfinished"))
        os.replace(file.with_suffix(".unfinished"), file)

    def read_new(self, limit: int | None = None) -> list[ClipLatents]:
        """The shards written since the last call (all of them the first time), at most `limit`."""
        new = [index for index in self._indices() if index not in self._read][:limit]
        self._read.update(new)
        return [ClipLatents(**load_file(self._shard(index))) for index in new]


def joined(parts: list[ClipLatents]) -> ClipLatents:
    return ClipLatents(**{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(ClipLatents)})


def make_clips(
    folder: ClipFolder, vae: WanVAE, library: Library, *, count: int, size: int, minutes: float = float("inf"), split: Split = "train",
    part: int = 0, parts: int = 1,
) -> int:  # fmt: skip
    """Encode clips until `count` lie in the folder or the minutes are over, going on where an earlier run stopped.

    Several processes share the work: each makes every `parts`-th shard, from number `part` on. Returns how many clips lie there."""
    until = time.monotonic() + 60 * minutes
    device = vae.conv1.weight.device
    at_once = 1 if device.type == "cpu" else SHARD  # a device takes a whole shard as quickly as a clip
    missing = [shard for shard in range(part, -(-count // SHARD), parts) if not folder.holds(shard)]
    done = len(range(part, -(-count // SHARD), parts)) - len(missing)
    with tqdm(total=-(-count // parts), initial=done * SHARD, unit="clip", desc=f"clips ({split})", mininterval=10) as bar:
        for shard in missing:
            if time.monotonic() >= until:
                break
            seeds = [(HELD_OUT_SEED if split == "held-out" else 0) + seed for seed in range(shard * SHARD, (shard + 1) * SHARD)]
            how = dict(frames=LENGTHS[shard % len(LENGTHS)], size=size, split=split, device=device)
            rows = []
            for first in range(0, SHARD, at_once):
                rows.append(encode_together(vae, sample_clips(seeds[first : first + at_once], library, **how)))
                bar.update(at_once)
            folder.write(joined(rows), shard)
    return folder.shards * SHARD
