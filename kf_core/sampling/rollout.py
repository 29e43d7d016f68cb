"""Algorithm 1: chunk after chunk, for as long as the caller asks, at constant cost and constant memory.

Three ideas meet here, and each is a line of `rollout` below: an *anchor* that runs ahead of the frames being denoised, a *window* of
committed frames in a cache, and a *knot* that ties each chunk to the next. With knot and anchor None and an unlimited window this is
Self Forcing's rollout. One rollout serves training, evaluation, command line and nodes. Guidance is known to `guidance.py` alone.
Source: Knot Forcing, arXiv 2512.21734, Algorithm 1; few-step student as in Self Forcing, arXiv 2506.08009.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from ..conditioning.anchor import Anchor
from ..device import to_device
from ..models.causal import Generator
from ..settings import Ahead, Behind, RolloutSettings
from ..timeline import LatentSpan
from ..types import ChunkConditioning, LatentChunk, Step
from .chunk_context import ChunkContext
from .guidance import guided
from .knot import fuse_knot, inject_knot
from .noise import Noise
from .state import RolloutState


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
    state: RolloutState | None = None,
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
        chunk = open_chunk(model, anchor, driving, settings, state)  # the anchor runs ahead of `output` and the knot beyond it

        for step in denoise(chunk, state, noise, exits):  # from noise, on the knot, over window and anchor
            yield step
        with torch.set_grad_enabled(exits is not None):
            clean = fuse_knot(step.clean, state.knot, settings.knot, settings.fuse)  # Eq. 5: the frames denoised twice, averaged
            latents = clean[:, :, : output.length]

        commit(replace(chunk, span=output, driving=driving.window(output)), state, latents)  # the window slides on
        state.knot = clean[:, :, output.length :].detach() if settings.knot else None  # the next chunk starts on it
        state.chunk += 1
        yield LatentChunk(state.chunk - 1, output, latents, state.knot)


def open_chunk(
    model: Generator, anchor: Anchor, driving: BoundDriving, settings: RolloutSettings, state: RolloutState, *, is_replayed: bool = False
) -> ChunkContext:
    """The next chunk, its knot included, over the past with the anchor at its place. A replayed one has its output frames alone."""
    output = settings.output_span(state.chunk)
    denoised = LatentSpan(output.start, output.stop + settings.knot_length)
    span = output if is_replayed else denoised
    conditioning = driving.window(span)
    state.read_prompt(model, anchor, conditioning)
    past = state.cache.apply_rope(anchor_position(settings, denoised))
    return ChunkContext(model=model, anchor=anchor, settings=settings, span=span, driving=conditioning, knot=state.knot, past=past)


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


def denoise(chunk: ChunkContext, state: RolloutState, noise: Noise, exits: Callable[[int], int] | None) -> Iterator[Step]:
    """Denoise the chunk in a few steps, each with its estimate of the clean frames. Reads the cache, never commits to it."""
    settings, like = chunk.settings, chunk.anchor.latent
    schedule = settings.steps(state.chunk)
    last = len(schedule) - 1 if exits is None else min(exits(state.chunk), len(schedule) - 1)
    entered = range(last + 1) if settings.renoise else range(1)
    noises = to_device(torch.stack([noise(chunk.span, step) for step in entered]), like.device, like.dtype)
    clean = flow = None
    for index, (sigma, t) in enumerate(schedule[: last + 1]):
        fresh = noises[index if settings.renoise else 0]
        there = fresh if clean is None or settings.renoise else clean + flow.to(clean)  # the noise the flow sees: an Euler step
        noisy = there if clean is None else (1 - sigma) * clean + sigma * there
        noisy = chunk.pin_portrait(inject_knot(noisy, chunk.knot, settings.knot, sigma, fresh))
        with torch.set_grad_enabled(exits is not None and index == last):
            (flow,) = chunk.model.forward([chunk.segment(noisy, t)], state.text)
            clean = chunk.pin_portrait(noisy - sigma * flow.to(noisy))
        yield Step(chunk.span, index, last + 1, clean)


def commit(chunk: ChunkContext, state: RolloutState, latents: Tensor) -> None:
    """Write the keys and values of finished frames: one pass at t = 0 over the same past, without the knot."""
    clean = replace(chunk, driving=chunk.driving.of_clean_pass(), knot=None)
    with state.cache.commit(chunk.span) as capture:
        chunk.model.forward([replace(clean.segment(latents.detach(), 0.0), record=capture)], state.text)


@torch.no_grad()
def replay(
    model: Generator, anchor: Anchor, driving: BoundDriving, settings: RolloutSettings, state: RolloutState, made: LatentChunk
) -> None:
    """Take up the next chunk as it was denoised before, by the clean pass alone: the state is, bit for bit, as the rollout left it."""
    span = settings.output_span(state.chunk)
    if (made.index, made.span) != (state.chunk, span):
        raise ValueError(f"the state expects chunk {state.chunk} of frames {span}, got {made.index} of {made.span}")
    commit(open_chunk(guided(model, settings), anchor, driving, settings, state, is_replayed=True), state, made.latents.to(anchor.latent))
    state.knot = None if made.knot is None else made.knot.to(anchor.latent)
    state.chunk += 1


def prefill(model: Generator, anchor: Anchor, driving: BoundDriving, settings: RolloutSettings, latents: Tensor) -> RolloutState:
    """A state in which the given frames [b, c, f, h, w] were already output and committed, chunk by chunk, tied to no portrait."""
    state = RolloutState.start(model, anchor, settings)
    while (span := settings.output_span(state.chunk)).stop <= latents.shape[2]:
        replay(model, anchor, driving, settings, state, LatentChunk(state.chunk, span, latents[:, :, span.start : span.stop]))
    if state.cache.next_frame != latents.shape[2]:
        raise ValueError(f"{latents.shape[2]} frames are not a whole number of chunks; {state.cache.next_frame} would fit")
    return state
