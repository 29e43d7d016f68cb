"""What the student is shown: frames of clips laid out as the rollout will meet them, with driving signals dropped at random.

A batch is one segment [anchor | past | current] under the mask that `visible` gives. A `Layout` says how long past and current are and
under which settings; layouts other than the usual one are the conditions that ablations turn off. Knows nothing of losses.
"""

from dataclasses import dataclass, replace

import torch
from einops import repeat
from torch import Tensor

from kf_core.device import to_device
from kf_core.models.causal import Segment
from kf_core.models.image_channels import with_image_channels
from kf_core.models.visibility import training_mask
from kf_core.schedule import Schedule
from kf_core.settings import RolloutSettings
from kf_core.timeline import LatentSpan
from kf_core.training.rng import normal
from kf_core.types import ChunkConditioning, Signal

from .audio_augment import as_other_voices
from .clips import ClipLatents

LEADS = (1, 24)  # how far ahead of the last drawn frame the anchor stands, latent frames
BEHIND = (1, 12)  # or how far behind the first
BEHIND_SHARE = 0.25
NOISED_SHARE = 0.5  # of past and knot frames; they will be imperfect
MOST_NOISE = 0.3
LAYOUTS = 2  # which `layouts` these are: a generator's file says so, and it goes up with every change of them
SAME_FRAME_SHARE = 0.5  # of the streams that begin on the portrait: it is their first frame; in the others they have to leave it


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way to lay out a batch. Lengths in latent frames."""

    share: float  # of the batches
    settings: RolloutSettings
    past: int
    known: float = 0.65  # how often the knot is given
    on_portrait: bool = False  # a stream's first chunk, to which the portrait is handed as its knot (`first_frame="tie"`)

    @property
    def is_first(self) -> bool:
        """The first chunk of a stream: nothing came before it."""
        return self.on_portrait or (self.past == 0 and self.known == 0)

    @property
    def start(self) -> int:
        """Where the current chunk is taken to begin: a chunk's beginning, as masks are cut by chunks; only differences matter."""
        return 0 if self.is_first else max(2 * self.settings.chunk, self.past)


def layouts(settings: RolloutSettings) -> tuple[Layout, ...]:
    """The usual rollout, its first chunk, and what ablations turn off: each at least a tenth, or it would be unfair to it.

    A past frame sees its own chunk, so pasts are whole chunks; a window that cuts one hides its first frames."""
    chunk, drawn = settings.chunk, settings.denoised
    alone = replace(settings, knot=None, fuse=False, anchor=None)
    tied = (Layout(share=0.10, settings=settings, past=0, known=1.0, on_portrait=True),) if settings.begins_on_portrait else ()
    return (
        Layout(share=0.10 if tied else 0.15, settings=settings, past=0, known=0.0),
        Layout(share=0.28 if tied else 0.33, settings=settings, past=chunk),
        Layout(share=0.10, settings=replace(settings, window=drawn), past=0, known=1.0),  # only the knot is left
        Layout(share=0.10, settings=replace(settings, window=2 * settings.window), past=3 * chunk),
        Layout(share=0.10, settings=replace(settings, knot=None, fuse=False), past=chunk, known=0.0),
        Layout(share=0.10, settings=replace(settings, anchor=None), past=chunk),
        Layout(share=0.10, settings=replace(alone, window=chunk + 3 * chunk), past=3 * chunk, known=0.0),  # Self Forcing
        Layout(share=0.02, settings=alone, past=0, known=0.0),
        *tied,
    )


def whole_clip(settings: RolloutSettings, frames: int, known: int = 0) -> Layout:
    """A clip of `frames` latent frames as one chunk, in which all see each other; its first frames are known, or it begins a stream."""
    knot = max(known, 1)
    whole = replace(settings, chunk=frames - knot, knot_frames=knot, window=frames)
    return Layout(share=1.0, settings=whole, past=0, known=1.0 if known else 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Frames ready to be noised: everything the network will see but the noise of the current frames."""

    layout: Layout
    clean: Tensor  # [b, 16, f, h, w] current frames
    past: Tensor  # [b, 16, p, h, w] noised a little
    reference: Tensor  # [b, 16, 1, h, w]
    knot: Tensor  # [b, 16, k, h, w] as the chunk before would hand it over, noised a little, or the portrait; k = 0 without a knot
    knows_knot: Tensor  # [b] bool
    anchor_position: Tensor  # [b]
    driving: ChunkConditioning  # of [anchor | past | current]
    weights: Tensor  # [b, f, h, w]
    mouth: Tensor  # [b, f, h, w]

    def segment(self, noisy: Tensor, t: Tensor, in_channels: int) -> Segment:
        """The network's view when the current frames are `noisy` [b, 16, f, h, w] at times `t` [b]."""
        b, _, f, _, _ = noisy.shape
        past, start = self.past.shape[2], self.layout.start
        known = torch.zeros(b, 1 + past + f, dtype=torch.bool, device=noisy.device)
        known[:, 0] = True
        frame = noisy.new_zeros(b, noisy.shape[1], 1 + past + f, *noisy.shape[3:])
        frame[:, :, :1] = self.reference
        k = self.knot.shape[2]
        known[:, 1 + past : 1 + past + k] = self.knows_knot[:, None]
        frame[:, :, 1 + past : 1 + past + k] = self.knot * self.knows_knot.to(noisy)[:, None, None, None, None]
        frames = torch.arange(start - past, start + f, device=noisy.device, dtype=torch.float64)
        return Segment(
            latents=with_image_channels(torch.cat((self.reference, self.past, noisy), dim=2), frame, known, in_channels),
            positions=torch.cat((self.anchor_position[:, None].double(), frames.expand(b, -1)), dim=1),
            t=torch.cat((t.new_zeros(b, 1 + past), t[:, None].expand(b, f)), dim=1),
            driving=self.driving,
            mask=training_mask(LatentSpan(start - past, start), LatentSpan(start, start + f), self.layout.settings).to(noisy.device),
        )


class Sampler:
    """Batches from encoded clips, which may be added to at any time. All chance comes from one generator."""

    def __init__(
        self, layouts: tuple[Layout, ...], generator: torch.Generator, device: torch.device | str = "cpu", *, other_voices: bool = False
    ) -> None:
        """`other_voices`: what is heard is said by another voice each time (`timbre.py`)."""
        self.layouts = layouts
        self.generator, self.device, self.other_voices = generator, device, other_voices
        self.clips: list[ClipLatents] = []  # one each

    def add(self, shards: list[ClipLatents]) -> None:
        needed = max(layout.past + layout.settings.denoised for layout in self.layouts)
        if too_short := [shard.latents.shape[2] for shard in shards if shard.latents.shape[2] < needed]:
            raise ValueError(f"clips of {min(too_short)} latent frames are too short; the longest layout takes {needed}")
        self.clips += [shard[row : row + 1] for shard in shards for row in range(len(shard))]

    def batch(self, size: int, layout: Layout | None = None) -> Batch:
        """`size` samples in one layout, drawn by the layouts' shares unless it is given."""
        if layout is None:
            shares = torch.tensor([layout.share for layout in self.layouts])
            layout = self.layouts[int(torch.multinomial(shares, 1, generator=self.generator))]
        drawn = layout.settings.denoised
        rows = []
        for _ in range(size):
            clip = self.clips[self._integer(0, len(self.clips) - 1)]
            start = 0 if layout.is_first else self._integer(max(layout.past, 1), clip.latents.shape[2] - drawn)
            rows.append((clip, start))

        def there(parts):
            return to_device(torch.cat(parts), self.device, torch.float32)

        def window(name, axis):
            return there([getattr(clip, name).narrow(axis, start - layout.past, layout.past + drawn) for clip, start in rows])

        latents = window("latents", 2)
        past, clean = latents[:, :, : layout.past], latents[:, :, layout.past :]
        reference = there([clip.reference for clip, _ in rows])
        if layout.on_portrait:  # frame 0 holds one frame, encoded alone as a portrait is
            is_same = self._chance(size, SAME_FRAME_SHARE)[:, None, None, None, None]
            reference = torch.where(is_same, clean[:, :, :1], reference)
        return Batch(
            layout=layout,
            clean=clean,
            past=self._noised(past),
            reference=reference,
            knot=reference if layout.on_portrait else self._noised(clean[:, :, : layout.settings.knot_length]),
            knows_knot=self._chance(size, layout.known),
            anchor_position=self._anchor_positions(size, layout),
            driving=self._driving(
                layout,
                audio=self.heard(window("audio", 1)),
                pose=window("pose", 1) / 255,
                expression=window("expression", 1),
                motion=window("motion", 1),
            ),
            weights=window("weights", 1)[:, layout.past :],
            mouth=window("mouth", 1)[:, layout.past :],
        )

    def _anchor_positions(self, size: int, layout: Layout) -> Tensor:
        """Ahead of the last drawn frame, in a quarter of the samples behind the first: [b]."""
        last = layout.start + layout.settings.denoised - 1
        ahead = last + torch.randint(LEADS[0], LEADS[1] + 1, (size,), generator=self.generator)
        behind = layout.start - torch.randint(BEHIND[0], BEHIND[1] + 1, (size,), generator=self.generator)
        is_behind = torch.rand(size, generator=self.generator) < BEHIND_SHARE
        return torch.where(is_behind, behind, ahead).to(self.device)

    def _driving(self, layout: Layout, audio: Tensor, pose: Tensor, expression: Tensor, motion: Tensor) -> ChunkConditioning:
        """Each signal on or off by itself; the anchor's frame has none."""
        b, frames = audio.shape[:2]

        def chance(share):
            return self._chance(b, share)

        has_pose = chance(0.5)
        unseen = chance(0.1)[:, None] & (torch.arange(frames, device=self.device) >= self._integers(b, 0, frames - 1)[:, None])
        pose = pose * (~unseen)[..., None, None, None]  # the pose source ended: black frames at full strength

        values = expression.shape[-1]
        known = self._chance((b, values), 0.5)
        known = (known | chance(0.15)[:, None]) & ~chance(0.35)[:, None]
        begins = torch.where(chance(0.2), self._integers(b, 0, frames - 1), 0)
        known = known[:, None] & (torch.arange(frames, device=self.device) >= begins[:, None])[..., None]  # [b, f, values]
        flags = repeat(known, "b f v -> b f p v", p=expression.shape[2]).float()
        expression = torch.cat((expression * flags, flags), dim=-1).flatten(2)
        has_expression = known.flatten(1).any(1) | chance(0.5)  # nothing known and no signal mean the same

        signals = dict(
            audio=(audio, ~chance(0.15)),
            pose=(pose, has_pose),
            expression=(expression, has_expression),
            motion=(motion, chance(0.5)),
        )
        return ChunkConditioning(
            span=LatentSpan(layout.start - layout.past - 1, layout.start + layout.settings.denoised),
            **{name: self._signal(features, given) for name, (features, given) in signals.items()},
        )

    def _signal(self, features: Tensor, given: Tensor) -> Signal:
        return with_anchor(Signal(features, given.float()[:, None].expand(-1, features.shape[1])))

    def _noised(self, frames: Tensor) -> Tensor:
        """Half of the samples with a little noise, as frames the model made itself are a little wrong."""
        sigma = MOST_NOISE * torch.rand(len(frames), generator=self.generator).to(self.device) * self._chance(len(frames), NOISED_SHARE)
        noise = normal(frames.shape, self.generator, self.device)
        sigma = sigma[:, None, None, None, None]
        return (1 - sigma) * frames + sigma * noise

    def heard(self, audio: Tensor) -> Tensor:
        """What a sample hears of the sound [b, f, 1024] it was made with."""
        return as_other_voices(audio, self.generator) if self.other_voices else audio

    def times(self, size: int, schedule: Schedule, shift: float = 5.0) -> Tensor:
        """How noisy the current frames are, sigma [b]: mostly the steps that will be taken, else anywhere on the shifted clock."""
        base = torch.rand(size, generator=self.generator)
        anywhere = shift * base / (1 + (shift - 1) * base)
        taken = torch.tensor([sigma for sigma, _ in schedule])[torch.randint(len(schedule), (size,), generator=self.generator)]
        return torch.where(torch.rand(size, generator=self.generator) < 0.6, taken, anywhere).to(self.device)

    def noise_like(self, clean: Tensor) -> Tensor:
        return normal(clean.shape, self.generator, clean.device).to(clean)

    def _chance(self, shape, share: float) -> Tensor:
        return (torch.rand(shape, generator=self.generator) < share).to(self.device)

    def _integers(self, size: int, low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (size,), generator=self.generator).to(self.device)

    def _integer(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=self.generator))


def with_anchor(signal: Signal) -> Signal:
    """A signal over [past | current], strengths [b, f], with an empty place for the anchor in front."""

    def ahead(tensor):
        return torch.cat((torch.zeros_like(tensor[:, :1]), tensor), dim=1)

    return Signal(ahead(signal.features), ahead(signal.strength))
