"""Algorithm 1: chunk after chunk, for as long as the caller asks, at constant cost and constant memory.

Three ideas meet here, and each is a line of `rollout` below: an *anchor* that runs ahead of the frames being denoised, a *window* of
committed frames in a cache, and a *knot* that ties each chunk to the next. With knot and anchor None and an unlimited window this is
Self Forcing's rollout. One rollout serves training, evaluation, command line and nodes. Guidance is known to `guidance.py` alone.
Source: Knot Forcing, arXiv 2512.21734, Algorithm 1; few-step student as in Self Forcing, arXiv 2506.08009.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..conditioning.anchor import Anchor
from ..device import to_device
from ..models.causal import Generator, Segment, TextKeys
from ..models.image_channels import with_image_channels
from ..models.kv_cache import KVCache, KVView
from ..settings import Ahead, Behind, RolloutSettings
from ..timeline import LatentSpan
from ..types import ChunkConditioning, LatentChunk, Step
from .guidance import guided
from .knot import fuse_knot, inject_knot
from .noise import Noise


class BoundDriving(Protocol):
    def window(self, span: LatentSpan) -> ChunkConditioning:
        """What drives the frames of `span`. The same span gives the same values, also after others were asked for."""
        ...


@torch.no_grad()
def rollout(
    model: Generator,
    anchor: Anchor,
    driving: BoundDriving,
    settings: RolloutSettings,
    noise: Noise,
    state: "RolloutState | None" = None,
    *,
    exits: Callable[[int], int] | None = None,
) -> Iterator[Step | LatentChunk]:
    """Generate frames for ever; the caller stops. A `state` that is handed in is continued and changed in place.

    Between two yields nothing is half-done: stopping after a Step leaves the state as the last LatentChunk left it.
    `exits` is for training: chunk -> the step whose estimate leaves early, the only one that carries a gradient."""
    state = state or RolloutState.start(model, anchor, settings)
    model = guided(model, settings)
    while True:
        output = settings.output_span(state.chunk)
        denoised = LatentSpan(output.start, output.stop + settings.knot_length)
        conditioning = driving.window(denoised)
        state.read_prompt(model, anchor, conditioning)
        memory = state.cache.apply_rope(anchor_position(settings, denoised))

        for step in denoise(model, anchor, state, denoised, conditioning, memory, settings, noise, exits):
            yield step
        with torch.set_grad_enabled(exits is not None):
            clean = fuse_knot(step.clean, state.knot, settings.knot, settings.fuse)
            latents = clean[:, :, : output.length]

        commit(model, anchor, state, output, latents, driving.window(output), memory)
        state.knot = clean[:, :, output.length :].detach() if settings.knot else None
        state.chunk += 1
        yield LatentChunk(state.chunk - 1, output, latents, state.knot)


@torch.no_grad()
def replay(
    model: Generator, anchor: Anchor, driving: BoundDriving, settings: RolloutSettings, state: "RolloutState", chunk: LatentChunk
) -> None:
    """Take up the next chunk as it was denoised before, by the clean pass alone: the state is, bit for bit, as the rollout left it."""
    span = settings.output_span(state.chunk)
    if (chunk.index, chunk.span) != (state.chunk, span):
        raise ValueError(f"the state expects chunk {state.chunk} of frames {span}, got {chunk.index} of {chunk.span}")
    model, conditioning = guided(model, settings), driving.window(span)
    state.read_prompt(model, anchor, conditioning)
    memory = state.cache.apply_rope(anchor_position(settings, LatentSpan(span.start, span.stop + settings.knot_length)))
    commit(model, anchor, state, span, chunk.latents.to(anchor.latent), conditioning, memory)
    state.knot = None if chunk.knot is None else chunk.knot.to(anchor.latent)
    state.chunk += 1


def anchor_position(settings: RolloutSettings, denoised: LatentSpan) -> int | None:
    """Where the portrait stands while `denoised` is denoised: running ahead of every frame, unless an ablation says otherwise."""
    match settings.anchor:
        case None:
            return None
        case Ahead() as rule:
            return rule.position(denoised.stop)
        case Behind() as rule:
            return rule.position(denoised.start)
        case fixed:
            return fixed.position


def denoise(
    model: Generator,
    anchor: Anchor,
    state: "RolloutState",
    denoised: LatentSpan,
    conditioning: ChunkConditioning,
    memory: KVView,
    settings: RolloutSettings,
    noise: Noise,
    exits: Callable[[int], int] | None,
) -> Iterator[Step]:
    """Denoise `denoised` from noise in a few steps, each with its estimate of the clean frames. Reads the cache, never commits to it."""
    schedule = settings.steps(state.chunk)
    last = len(schedule) - 1 if exits is None else min(exits(state.chunk), len(schedule) - 1)
    entered = range(last + 1) if settings.renoise else range(1)
    noises = to_device(torch.stack([noise(denoised, step) for step in entered]), anchor.latent.device, anchor.latent.dtype)
    clean = flow = None
    for index, (sigma, t) in enumerate(schedule[: last + 1]):
        fresh = noises[index if settings.renoise else 0]
        there = fresh if clean is None or settings.renoise else clean + flow.to(clean)  # the noise the flow sees: an Euler step
        noisy = there if clean is None else (1 - sigma) * clean + sigma * there
        noisy = inject_knot(noisy, state.knot, settings.knot, sigma, fresh)
        noisy = pin_portrait(noisy, anchor, settings, denoised)
        with torch.set_grad_enabled(exits is not None and index == last):
            segment = segment_of(model, anchor, noisy, denoised, t, state.knot, settings, conditioning, memory)
            (flow,) = model.forward([segment], state.text)
            clean = pin_portrait(noisy - sigma * flow.to(noisy), anchor, settings, denoised)
        yield Step(denoised, index, last + 1, clean)


def commit(
    model: Generator,
    anchor: Anchor,
    state: "RolloutState",
    span: LatentSpan,
    latents: Tensor,
    conditioning: ChunkConditioning,
    memory: KVView,
) -> None:
    """Write the keys and values of finished frames: one pass at t = 0 over the same past, without the knot."""
    conditioning = conditioning.of_clean_pass()
    segment = segment_of(model, anchor, latents.detach(), span, 0.0, None, state.cache.settings, conditioning, memory)
    with state.cache.commit(span) as record:
        model.forward([_recorded(segment, record)], state.text)


def prefill(model: Generator, anchor: Anchor, driving: BoundDriving, settings: RolloutSettings, latents: Tensor) -> "RolloutState":
    """A state in which the given frames [b, c, f, h, w] were already output and committed, chunk by chunk, tied to no portrait."""
    state = RolloutState.start(model, anchor, settings)
    while (span := settings.output_span(state.chunk)).stop <= latents.shape[2]:
        replay(model, anchor, driving, settings, state, LatentChunk(state.chunk, span, latents[:, :, span.start : span.stop]))
    if state.cache.next_frame != latents.shape[2]:
        raise ValueError(f"{latents.shape[2]} frames are not a whole number of chunks; {state.cache.next_frame} would fit")
    return state


@dataclass(eq=False)
class RolloutState:
    """All that changes while a stream runs. Made by the rollout, or restored from what was saved."""

    cache: KVCache
    chunk: int = 0  # the next one to be denoised
    knot: Tensor | None = None  # [b, c, k, h, w] denoised by the last chunk, not yet output; at the start it may be the portrait
    text: TextKeys | None = None  # keys of the current prompt: made from the driving, not saved

    @classmethod
    def start(cls, model: Generator, anchor: Anchor, settings: RolloutSettings) -> "RolloutState":
        batch, _, _, height, width = anchor.latent.shape
        cache = guided(model, settings).new_cache(settings, batch, height, width)
        return cls(cache, knot=anchor.latent if settings.begins_on_portrait else None)

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], model: Generator, anchor: Anchor, settings: RolloutSettings) -> "RolloutState":
        """The state that `tensors()` described, for the same model, portrait and settings."""
        state = cls.start(model, anchor, settings)
        state.cache.restore({name.removeprefix("cache."): t for name, t in tensors.items() if name.startswith("cache.")})
        state.chunk, state.knot = int(tensors["chunk"]), tensors.get("knot")
        if state.knot is not None:
            state.knot = state.knot.to(anchor.latent)
        return state

    def tensors(self) -> dict[str, Tensor]:
        """The state as tensors, ready for a file."""
        tensors = {f"cache.{name}": t for name, t in self.cache.tensors().items()} | {"chunk": torch.tensor(self.chunk)}
        return tensors if self.knot is None else tensors | {"knot": self.knot.contiguous()}

    def read_prompt(self, model: Generator, anchor: Anchor, conditioning: ChunkConditioning) -> None:
        """Make the prompt's keys when it is a new one; the anchor saw the old prompt, so it is encoded again."""
        if self.text is not None and self.text.context is conditioning.text:
            return
        self.text = model.encode_text(conditioning.text)
        if self.cache.settings.anchor is not None:
            segment = anchor_segment(model, anchor)
            with self.cache.set_anchor() as record:
                model.forward([_recorded(segment, record)], self.text)


def segment_of(
    model: Generator,
    anchor: Anchor,
    latents: Tensor,
    span: LatentSpan,
    t: float,
    knot: Tensor | None,
    settings: RolloutSettings,
    conditioning: ChunkConditioning,
    memory: KVView | None,
) -> Segment:
    """Frames of `span` as the network sees them, its image and mask channels filled."""
    known = torch.zeros(span.length, dtype=torch.bool, device=latents.device)
    frame = anchor.latent.expand_as(latents) if model.card.image_channels == "portrait" else torch.zeros_like(latents)
    if settings.first_frame == "pin" and span.start == 0:
        known[0] = True
    if knot is not None and settings.knot in ("inpaint", "pin"):
        known[: knot.shape[2]] = True
        frame = torch.cat((knot.to(frame), frame[:, :, knot.shape[2] :]), dim=2)
    return Segment(
        latents=with_image_channels(latents, frame, known, model.card.in_channels),
        positions=torch.arange(span.start, span.stop, dtype=torch.float64),
        t=torch.full((span.length,), t, dtype=torch.float64),
        driving=conditioning,
        reads=memory,
    )


def anchor_segment(model: Generator, anchor: Anchor) -> Segment:
    """The portrait alone: it attends only to itself, nothing drives it, and its position does not matter yet."""
    known = torch.ones(1, dtype=torch.bool, device=anchor.latent.device)
    zero = torch.zeros(1, dtype=torch.float64)
    return Segment(latents=with_image_channels(anchor.latent, anchor.latent, known, model.card.in_channels), positions=zero, t=zero)


def pin_portrait(latents: Tensor, anchor: Anchor, settings: RolloutSettings, span: LatentSpan) -> Tensor:
    """Frame 0 is the portrait itself, for models that were trained so (LiveTalk)."""
    if settings.first_frame != "pin" or span.start > 0:
        return latents
    return torch.cat((anchor.latent.to(latents), latents[:, :, 1:]), dim=2)


def _recorded(segment: Segment, record) -> Segment:
    return replace(segment, record=record)
