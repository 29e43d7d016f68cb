"""Who is drawn and how they move: procedural cartoon portraits as numbers, before anything is drawn.

An identity is a pure function of its seed, of which PyTorch's generator reads 32 bits. So there are 2**32 faces, and both splits draw
from all of them: seeds of `held-out` lie from 2**40 on and show by that what they are meant for, but a held-out face is another than all
that were trained on by chance only (one in a million for some thousands of those), and where it is drawn by a stream of its own. A test
looks at those that are measured. Knows nothing of pixels (see `drawing.py`).
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from kf_core.conditioning.head import HeadPose, HeadShape, Tensors

Split = Literal["train", "held-out"]
_SEEDS = 2**40  # per split

SKIN = ("ffe4cf", "fbd5b5", "f3c19c", "e2a97e", "c68a5d", "9a6540", "74482e", "ffd9bd", "f6cbb4")
HAIR = ("2a1f1d", "4a2e1f", "7a4a28", "a8662f", "d9a95a", "f0d58c", "b4472a", "7d7d86", "e9e6ea", "43508f", "c45a94", "3d8577", "6b4a8e")
EYES = ("5a3820", "3a76b8", "3f8f5f", "6f7a86", "8a5a2c", "2e2a2a", "5b4aa0")
LIPS = ("c8505a", "b0404e", "d9726e")


@dataclass(frozen=True, kw_only=True)
class Identities(Tensors):
    """Who is drawn. Every field [n] or, for colours, [n, 3] RGB 0..1; `shape` holds the proportions."""

    seed: Tensor  # int64
    shape: HeadShape
    jaw: Tensor  # 0..0.3 how much narrower the chin is
    skin: Tensor
    hair: Tensor
    iris: Tensor
    lips: Tensor
    cloth: Tensor
    collar: Tensor
    background: Tensor
    background_2: Tensor
    object: Tensor  # colour of what drifts behind the head
    object_x: Tensor  # its place at rest
    object_y: Tensor
    object_size: Tensor
    disc_x: Tensor  # the still second tone of the background
    disc_y: Tensor
    disc_size: Tensor
    iris_size: Tensor  # of the eye's height
    brow_thickness: Tensor
    brow_slant: Tensor
    lip_thickness: Tensor
    hair_volume: Tensor  # how far hair stands off the head
    hair_length: Tensor  # down to y in the head's frame
    hair_wave: Tensor
    fringe: Tensor  # the hairline's y, of the face's height
    fringe_slant: Tensor
    fringe_wave: Tensor
    bun: Tensor  # 0 or 1, as all below
    bald: Tensor
    glasses: Tensor
    beard: Tensor
    moustache: Tensor
    earrings: Tensor
    lashes: Tensor
    v_neck: Tensor
    cheeks: Tensor  # 0..0.6 how red
    freckles: Tensor

    def map(self, change) -> "Identities":
        return replace(super().map(lambda value: value.map(change) if isinstance(value, HeadShape) else change(value)))


@dataclass(frozen=True, kw_only=True)
class Motion(Tensors):
    """What the heads do: every field [n, frames]. Angles in radians, shifts in image units (half the image = 1)."""

    yaw: Tensor
    pitch: Tensor
    roll: Tensor
    shift_x: Tensor
    shift_y: Tensor
    blink: Tensor  # 0 open .. 1 shut
    brows: Tensor  # -1 knitted .. 1 raised
    smile: Tensor  # -1 corners down .. 1 corners up, eyes a little narrowed
    gaze_x: Tensor  # -1..1, to the viewer's left .. right
    gaze_y: Tensor  # -1..1, up .. down
    mouth_open: Tensor  # 0 shut .. 1
    mouth_wide: Tensor  # -1 round .. 1 wide
    lip_bite: Tensor  # 0..1, upper teeth on the lower lip (f, v)
    hair_sway: Tensor  # -1..1; hidden: no control reveals it
    background_x: Tensor  # -1..1; hidden: the drift of an object behind the head
    background_y: Tensor
    strength: Tensor  # 0..2 motion strength, the same over a clip unless it was given otherwise

    @property
    def head(self) -> HeadPose:
        return HeadPose(**{name: getattr(self, name) for name in HeadPose.__dataclass_fields__})


def with_mouth(motion: Motion, open: Tensor, wide: Tensor, bite: Tensor | None = None) -> Motion:
    """The same motion with the mouth of a speech track, each [n, frames]."""
    return replace(motion, mouth_open=open, mouth_wide=wide, lip_bite=torch.zeros_like(open) if bite is None else bite)


def sample_identities(n: int, generator: torch.Generator | None = None, split: Split = "train") -> Identities:
    """`n` faces that are unlikely to have been seen, or to be seen in the other split, if that draws from another generator."""
    return identities(torch.randint(_SEEDS, (n,), generator=generator) + (_SEEDS if split == "held-out" else 0))


def identities(seeds: Tensor) -> Identities:
    """The faces of these seeds [n]: the same seed is the same face, for ever (and so are seeds whose lower 32 bits are the same)."""
    rows = [torch.rand(_Dice.SIDES, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    dice = _Dice(torch.stack(rows) if rows else torch.zeros(0, _Dice.SIDES))
    between, pick, chance = dice.between, dice.pick, dice.chance
    shape = HeadShape(
        centre_x=between(-0.04, 0.04), centre_y=between(-0.07, 0.01), width=between(0.55, 0.65), height=between(0.61, 0.70),
        depth=between(0.48, 0.56), eye_x=between(0.245, 0.285), eye_y=between(-0.10, 0.0), eye_width=between(0.135, 0.170),
        eye_height=between(0.145, 0.195), brow_y=between(0.235, 0.285), brow_width=between(0.11, 0.16), nose_y=between(0.13, 0.20),
        nose_width=between(0.045, 0.075), mouth_y=between(0.355, 0.415), mouth_width=between(0.20, 0.255),
    )  # fmt: skip
    skin, hair = pick(SKIN), pick(HAIR)
    hue, light = dice.roll(), between(0.60, 0.95)
    background = _hsv(hue, between(0.10, 0.38), light)
    background_2 = _hsv(hue + between(-0.08, 0.08), between(0.12, 0.45), (light + dice.sign() * between(0.10, 0.25)).clamp(0.35, 1))
    far_side = dice.sign()
    bald = chance(0.06)
    return Identities(
        seed=seeds, shape=shape, jaw=between(0.02, 0.20), skin=skin, hair=hair, iris=pick(EYES),
        lips=torch.lerp(skin * torch.tensor([0.84, 0.62, 0.60]), pick(LIPS), between(0.25, 0.95)[:, None]),
        cloth=_hsv(dice.roll(), between(0.25, 0.80), between(0.35, 0.90)), collar=_hsv(dice.roll(), between(0.0, 0.45), between(0.65, 1.0)),
        background=background, background_2=background_2, object=_hsv(hue + between(0.25, 0.75), between(0.30, 0.65), between(0.65, 0.95)),
        object_x=far_side * between(0.60, 0.80), object_y=between(-0.85, -0.35), object_size=between(0.16, 0.26),
        disc_x=-far_side * between(0.2, 0.9), disc_y=between(-0.9, 0.4), disc_size=between(0.55, 1.0),
        iris_size=between(0.60, 0.74), brow_thickness=between(0.020, 0.042), brow_slant=between(-0.22, 0.22),
        lip_thickness=between(0.022, 0.040), hair_volume=between(0.07, 0.15), hair_length=_length(dice), hair_wave=between(0.0, 0.035),
        fringe=between(-0.72, -0.52), fringe_slant=between(-0.16, 0.16), fringe_wave=between(0.0, 0.05), bun=chance(0.15) * (1 - bald),
        bald=bald, glasses=chance(0.20), beard=chance(0.14), moustache=chance(0.08), earrings=chance(0.25), lashes=chance(0.45),
        v_neck=chance(0.5), cheeks=between(0.0, 0.55), freckles=chance(0.12),
    )  # fmt: skip


def sample_motion(
    n: int, frames: int, generator: torch.Generator | None = None, fps: float = 16, strength: float | Tensor | None = 1.0
) -> Motion:
    """Smooth random motion with a babbling mouth.

    `strength` 0..2 scales the head's motion: a number, [n], [n, frames], or drawn at random if None."""
    seconds = torch.arange(frames) / fps
    if strength is None:
        strength = 2 * torch.rand(n, generator=generator)
    strength = torch.as_tensor(strength, dtype=torch.float32)
    strength = (strength[:, None] if strength.dim() == 1 else strength).expand(n, frames)

    def wander(amplitude: float, slowest: float, fastest: float, waves: int = 4) -> Tensor:
        """A sum of sines, about `amplitude` at one standard deviation: [n, frames]."""
        frequency = slowest + (fastest - slowest) * torch.rand(n, waves, 1, generator=generator)
        phase = 2 * math.pi * torch.rand(n, waves, 1, generator=generator)
        weight = torch.randn(n, waves, 1, generator=generator) * (2 / waves) ** 0.5
        return amplitude * (weight * (2 * math.pi * frequency * seconds + phase).sin()).sum(1)

    lively = 0.12 + 0.88 * strength  # even a still head breathes
    held = torch.randn(n, 3, 1, generator=generator) * torch.tensor([[[0.10], [0.05], [0.04]]])  # how the head is held all along
    opening, width = _babble(n, frames, generator, fps)
    return Motion(
        yaw=_bounded(held[:, 0] + lively * wander(0.16, 0.06, 0.40), 0.50),
        pitch=_bounded(held[:, 1] + lively * wander(0.085, 0.08, 0.5), 0.30),
        roll=_bounded(held[:, 2] + lively * wander(0.065, 0.06, 0.35), 0.25), shift_x=_bounded(lively * wander(0.025, 0.05, 0.3), 0.08),
        shift_y=_bounded(lively * wander(0.016, 0.08, 0.4), 0.05), blink=_blinks(n, frames, generator, fps),
        brows=_bounded(wander(0.45, 0.08, 0.5), 1), smile=_bounded(0.25 + wander(0.45, 0.04, 0.25), 1),
        gaze_x=_bounded(wander(0.45, 0.08, 0.5), 1), gaze_y=_bounded(wander(0.30, 0.08, 0.4), 1), mouth_open=opening, mouth_wide=width,
        lip_bite=torch.zeros(n, frames), hair_sway=_bounded(wander(0.5, 0.2, 0.6), 1), background_x=_bounded(wander(0.6, 0.03, 0.15), 1),
        background_y=_bounded(wander(0.6, 0.03, 0.15), 1), strength=strength.clone(),
    )  # fmt: skip


def _bounded(track: Tensor, limit: float) -> Tensor:
    """Bends smoothly towards +-limit instead of stopping there."""
    return limit * torch.tanh(track / limit)


def _blinks(n: int, frames: int, generator: torch.Generator | None, fps: float) -> Tensor:
    """Eyes shut for about a quarter of a second, every two to five seconds: [n, frames]."""
    count = int(frames / fps / 2) + 2
    moments = (2 + 3 * torch.rand(n, count, generator=generator)).cumsum(1) - 5 * torch.rand(n, 1, generator=generator)
    distance = (torch.arange(frames) / fps - moments[..., None]).abs()  # [n, blinks, frames] seconds
    return torch.exp(-((distance / 0.11) ** 4)).amax(1)


def _babble(n: int, frames: int, generator: torch.Generator | None, fps: float) -> tuple[Tensor, Tensor]:
    """Syllables without a language: the mouth opens to a random degree, closes between, rests in pauses. Each [n, frames]."""
    knots = int(frames / fps * 8) + 4  # eight targets a second
    target = torch.rand(n, knots, generator=generator)
    target = torch.where(torch.rand(n, knots, generator=generator) < 0.35, torch.zeros(()), target)
    pause = torch.rand(n, knots // 6 + 1, generator=generator).repeat_interleave(6, 1)[:, :knots] < 0.25
    wide = 2 * torch.rand(n, knots, generator=generator) - 1
    shift = torch.rand(1, generator=generator)
    place = (torch.arange(frames) / fps * 8 + shift).clamp(max=knots - 1.001)
    left, part = place.long(), place.frac()
    ease = part.square() * (3 - 2 * part)

    def along(track):
        return torch.lerp(track[:, left], track[:, left + 1], ease)

    return along(torch.where(pause, torch.zeros(()), target)), along(torch.where(pause, torch.zeros(()), wide))


def _length(dice: "_Dice") -> Tensor:
    """Short, middling or long hair, in image units below the middle of the face."""
    kind, long, short = dice.roll(), dice.between(0.35, 1.05), dice.between(-0.20, 0.15)
    return torch.where(kind < 0.6, long, short)


def _hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """[n] each -> RGB [n, 3]."""
    k = (torch.tensor([5.0, 3.0, 1.0]) + 6 * hue[:, None]) % 6
    return value[:, None] * (1 - saturation[:, None] * torch.minimum(k, 4 - k).clamp(0, 1))


class _Dice:
    """Uniform numbers [n, SIDES], used up column by column. A new column goes to the end of `identities`, or every face changes."""

    SIDES = 96

    def __init__(self, rows: Tensor) -> None:
        self.columns = iter(rows.unbind(1))

    def roll(self) -> Tensor:
        return next(self.columns)

    def between(self, low: float, high: float) -> Tensor:
        return low + (high - low) * self.roll()

    def chance(self, probability: float) -> Tensor:
        return (self.roll() < probability).float()

    def sign(self) -> Tensor:
        return 1 - 2 * self.chance(0.5)

    def pick(self, palette: tuple[str, ...]) -> Tensor:
        """A colour between two of the palette, nearer to one: [n, 3]."""
        colours = torch.tensor([[int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)] for colour in palette])
        first, second = (colours[(self.roll() * len(palette)).long()] for _ in range(2))
        return torch.lerp(first, second, 0.35 * self.roll()[:, None])
