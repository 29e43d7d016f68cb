"""Several sitters in one rollout: a batch in which each has its own portrait, driving and noise.

A *sitter* is a clip whose truth is known: who sits beside whom changes nothing but rounding. All begin with the first chunk of the truth,
given as if it had been drawn, so that a rollout without an anchor knows whom it draws. Knows nothing of how sitters are made.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from kf_core.conditioning.anchor import Anchor
from kf_core.conditioning.driving import Driving
from kf_core.conditioning.pose import PoseSource
from kf_core.models.causal import Generator
from kf_core.sampling.noise import SeededNoise
from kf_core.sampling.rollout import BoundDriving, prefill, rollout
from kf_core.sampling.state import RolloutState
from kf_core.settings import RolloutSettings
from kf_core.timeline import LatentSpan, PixelSpan, pixels
from kf_core.types import AudioSource, ChunkConditioning, LatentChunk, Signal
from kf_core.vae.streaming import DecoderState, EncoderState, decode_latents, encode_clip, encode_frames
from kf_core.vae.wan import SPATIAL_STRIDE, WanVAE

Played = tuple[PixelSpan, Tensor]  # frames of all sitters for one span: [b, f, h, w, 3] RGB 0..1; none where nobody asked for them

RUN_UP = 39  # latent frames: further back no frame sees in Wan's decoder, so a decoder that begins there has forgotten nothing


class Sitter(Protocol):
    """One clip whose truth is known; a pure function of its seed and length."""

    seed: int
    num_frames: int
    opening: Tensor  # [f] 0..1, of the mouth
    voice: str  # whose it is

    @property
    def sound(self) -> AudioSource: ...

    @property
    def pose(self) -> PoseSource: ...

    def frames(self, span: PixelSpan) -> Tensor:
        """The truth: [f, h, w, 3] RGB 0..1."""
        ...


def play(
    model: Generator,
    vae: WanVAE,
    sitters: Sequence[Sitter],
    settings: RolloutSettings,
    *,
    with_pose: bool = True,
    idle: float = 0.0,
    only: Sequence[PixelSpan] | None = None,
) -> Iterator[Played]:
    """What the model makes of the sitters, chunk after chunk; the first chunk is the truth through the autoencoder.

    Sitters of one batch are equally long. `idle`: idle life 0..1 of those without a pose, each by its own seed. `only`: chunks that meet
    none of these are drawn, not decoded, and come without frames. Frames are handed on and not kept."""
    state, anchor, driving, noise = begin(model, vae, sitters, settings, with_pose=with_pose, idle=idle)
    count, given = sitters[0].num_frames, settings.output_span(0)
    screen = _Screen(vae, (PixelSpan(0, count),) if only is None else tuple(only))
    yield pixels(given), screen.show(given, _true_latents(vae, sitters, given))
    for item in rollout(model, anchor, driving, settings, noise, state):
        if isinstance(item, LatentChunk):
            span = pixels(item.span)
            yield _cut(span, screen.show(item.span, item.latents.to(anchor.latent)), count)
            if span.stop >= count:
                return


class _Screen:
    """Decodes what is wanted of a stream, and before it as much as it takes for frames that are what they would have been."""

    def __init__(self, vae: WanVAE, wanted: Sequence[PixelSpan]) -> None:
        self._vae, self._wanted, self._decoders = vae, wanted, _Decoders()

    def show(self, span: LatentSpan, latents: Tensor) -> Tensor:
        """[b, 16, f, h, w] -> [b, pf, 8h, 8w, 3], or none of them; spans come in order."""
        if not self._is_wanted(pixels(LatentSpan(span.start, span.stop + RUN_UP))):
            self._decoders = _Decoders()
        else:
            frames = self._decoders.frames(self._vae, latents)
            if self._is_wanted(pixels(span)):
                return frames
        b, _, _, h, w = latents.shape
        return torch.zeros(b, 0, SPATIAL_STRIDE * h, SPATIAL_STRIDE * w, 3)

    def _is_wanted(self, span: PixelSpan) -> bool:
        return any(max(span.start, wanted.start) < min(span.stop, wanted.stop) for wanted in self._wanted)


class _Decoders:
    """One a sitter on CPUs, where a batch takes 1.3 times as long, because what is in between grows beyond what memory is kept for; else
    one for all."""

    def __init__(self) -> None:
        self._states: list[DecoderState] = []

    @torch.no_grad()
    def frames(self, vae: WanVAE, latents: Tensor) -> Tensor:
        """[b, 16, f, h, w] -> [b, pf, 8h, 8w, 3] RGB 0..1 on the CPU."""
        rows = latents.split(1 if latents.device.type == "cpu" else len(latents))
        self._states = self._states or [DecoderState() for _ in rows]
        decoded = [decode_latents(vae, row, state) for row, state in zip(rows, self._states, strict=True)]
        return rearrange(torch.cat(decoded).float().cpu(), "b c f h w -> b f h w c").contiguous()


@torch.no_grad()
def begin(
    model: Generator, vae: WanVAE, sitters: Sequence[Sitter], settings: RolloutSettings, *, with_pose: bool, idle: float = 0.0
) -> tuple[RolloutState, Anchor, "DrivingOfEach", "NoiseOfEach"]:
    """All that a rollout of the sitters takes, its first chunk done: (state, portraits, driving, noise)."""
    portraits = torch.stack([sitter.frames(PixelSpan(0, 1)) for sitter in sitters]).to(model.device)
    anchor = Anchor(encode_clip(vae, rearrange(portraits, "b f h w c -> b c f h w")))
    b, c, _, h, w = anchor.latent.shape
    driving = DrivingOfEach(tuple(_bound(sitter, model, h, w, with_pose, idle) for sitter in sitters))
    noise = NoiseOfEach(tuple(sitter.seed for sitter in sitters), (c, h, w))
    state = prefill(model, anchor, driving, settings, _true_latents(vae, sitters, settings.output_span(0)))
    return state, anchor, driving, noise


@torch.no_grad()
def through_codec(vae: WanVAE, sitters: Sequence[Sitter], chunk: int = 15) -> Iterator[Played]:
    """The truth through the autoencoder and back, in the same form: the best that any generator on it could do."""
    encoder, decoders, count, done = EncoderState(), _Decoders(), sitters[0].num_frames, 0
    while (span := pixels(LatentSpan(done, done + chunk))).start < count:
        inside = PixelSpan(span.start, min(span.stop, count))
        truth = torch.stack([sitter.frames(inside) for sitter in sitters]).to(vae.conv1.weight.device)
        truth = torch.cat((truth, truth[:, -1:].expand(-1, span.length - inside.length, -1, -1, -1)), dim=1)  # whole latent frames
        latents = encode_frames(vae, rearrange(truth, "b f h w c -> b c f h w"), encoder)
        yield _cut(span, decoders.frames(vae, latents), count)
        done += chunk


@dataclass(frozen=True)
class NoiseOfEach:
    """Each row its own seed's noise, whoever stands in the rows beside it."""

    seeds: tuple[int, ...]
    shape: tuple[int, int, int]  # c, h, w

    def __call__(self, span: LatentSpan, step: int) -> Tensor:
        return torch.cat([SeededNoise(seed, (1, *self.shape))(span, step) for seed in self.seeds])


@dataclass(frozen=True, eq=False)
class DrivingOfEach:
    """Each row its own driving; all give the same signals."""

    rows: tuple[BoundDriving, ...]

    def window(self, span: LatentSpan) -> ChunkConditioning:
        rows = [row.window(span) for row in self.rows]
        signals = {name: _joined([getattr(row, name) for row in rows]) for name in ("audio", "pose", "expression", "motion")}
        return ChunkConditioning(span=span, **signals)


def _joined(rows: list[Signal | None]) -> Signal | None:
    if all(row is None for row in rows):
        return None
    return Signal(torch.cat([row.features for row in rows]), rows[0].strength)


def _bound(sitter: Sitter, model: Generator, height: int, width: int, with_pose: bool, idle: float) -> BoundDriving:
    driving = Driving(audio=sitter.sound, pose=sitter.pose if with_pose else None, idle=idle)
    return driving.bind(model.card, latent_height=height, latent_width=width, device=model.device, seed=sitter.seed)


def _true_latents(vae: WanVAE, sitters: Sequence[Sitter], span: LatentSpan) -> Tensor:
    """The truth of the first frames in model space: [b, 16, f, h, w]."""
    truth = torch.stack([sitter.frames(pixels(span)) for sitter in sitters]).to(vae.conv1.weight.device)
    return encode_frames(vae, rearrange(truth, "b f h w c -> b c f h w"), EncoderState())


def _cut(span: PixelSpan, frames: Tensor, count: int) -> Played:
    stop = min(span.stop, count)
    return PixelSpan(span.start, stop), frames[:, : stop - span.start]
