"""Where each frame of a chunk looks: the attention's mass on the anchor, the past, and the frames drawn along.

The paper's reason for the knot is that the context of attention jumps where a chunk begins: its first frame looks back at finished frames,
the last one of the chunk before had nothing but noise ahead of it. Here that is measured. Every self-attention of the denoising steps is
computed once more, and its weights are summed by the frame they fall on; what the network computes is not touched. With a knot the first
frame of a chunk is drawn twice and averaged, so its context is the mean of both drawings.
Source: Knot Forcing, arXiv 2512.21734; the measure is our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from einops import rearrange
from torch import Tensor

from kf_core.metrics.line_plot import Panel, line_plot
from kf_core.models.causal import Generator
from kf_core.models.protocol import Attention
from kf_core.sampling.rollout import rollout
from kf_core.sampling.state import RolloutState
from kf_core.settings import RolloutSettings
from kf_core.timeline import latent_frames
from kf_core.types import LatentChunk, Step
from kf_core.vae.wan import WanVAE

from .batched_rollout import Sitter, begin

MASSES = ("anchor", "past", "earlier", "itself", "later")  # past: committed; earlier, later: frames of the same drawing
LOOK = "mean distance looked"  # latent frames, of all mass but the anchor's; below 0: back
CHUNKS_SHOWN = 3
Seen = dict[int | None, float]  # frame, counted from the first one drawn, None for the anchor -> share of the attention


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the frames of one chunk look at, by their place in what is drawn. Means over everything else."""

    seen: tuple[Seen, ...]  # for each drawn frame
    settings: RolloutSettings

    @property
    def output(self) -> list[Seen]:
        """What each *output* frame of a chunk was drawn from: where frames are drawn twice and fused, the mean of both drawings."""
        chunk, ties = self.settings.chunk, self.settings.knot_length if self.settings.fuse else 0
        before = [_moved(self.seen[chunk + place], -chunk) for place in range(ties)]  # as the knot of the chunk before
        return [_mean(self.seen[place], before[place]) if place < ties else self.seen[place] for place in range(chunk)]

    def masses(self, name: str) -> list[float]:
        """The share that falls on the anchor, the past, .., for each output frame."""
        return [sum(share for key, share in seen.items() if _kind(place, key) == name) for place, seen in enumerate(self.output)]

    @property
    def looked(self) -> list[float]:
        """How far each output frame looks on average: latent frames, below 0 back. The anchor has no distance."""
        return [_distance(place, seen) for place, seen in enumerate(self.output)]

    @property
    def overlap(self) -> list[float]:
        """The part of the attention that each output frame has in common with the next one; the last with the first of the next chunk.

        1: both look at the same frames with the same weight. The paper draws this for masks, as intersection over union."""
        output = self.output
        following = [*output[1:], _moved(output[0], self.settings.chunk)]
        return [sum(min(share, b.get(key, 0.0)) for key, share in a.items()) for a, b in zip(output, following, strict=True)]

    @property
    def jump(self) -> float:
        """How much the distance looked changes from the last output frame of a chunk to the first of the next."""
        return abs(self.looked[0] - self.looked[-1])

    @property
    def step(self) -> float:
        """The same between neighbours within a chunk: the mean."""
        return fmean(abs(b - a) for a, b in pairwise(self.looked)) if self.settings.chunk > 1 else 0.0

    def as_numbers(self) -> dict:
        return {
            "drawn": [{"anchor" if key is None else str(key): share for key, share in seen.items()} for seen in self.seen],
            "emitted": {name: self.masses(name) for name in MASSES} | {LOOK: self.looked},
            "overlap with the next frame": self.overlap,
            "jump of the distance looked": self.jump,
            "its steps within a chunk": self.step,
        }


def _moved(seen: Seen, by: int) -> Seen:
    return {None if key is None else key + by: share for key, share in seen.items()}


def _mean(a: Seen, b: Seen) -> Seen:
    return {key: (a.get(key, 0.0) + b.get(key, 0.0)) / 2 for key in {**a, **b}}


def _kind(place: int, key: int | None) -> str:
    if key is None:
        return "anchor"
    if key < 0:
        return "past"
    return "itself" if key == place else "earlier" if key < place else "later"


def _distance(place: int, seen: Seen) -> float:
    near = {key: share for key, share in seen.items() if key is not None}
    return sum(share * (key - place) for key, share in near.items()) / max(1e-9, sum(near.values()))


class WatchedAttention:
    """An attention that notes where the mass falls, while it is told what the keys are; otherwise it only attends."""

    def __init__(self, attention: Attention, tokens: int) -> None:
        self._attention, self._tokens = attention, tokens
        self._keys: list[int | None] | None = None  # as in Seen; None: not watching
        self._num_denoised = 0
        self._seen: list[Seen] = []  # sums
        self._count = 0

    def watch(self, has_anchor: bool, past: Sequence[int], drawn: range) -> None:
        """From now on keys are those of the anchor, of these past frames in this order, and of the frames being drawn."""
        self._keys = [*([None] * has_anchor), *(frame - drawn.start for frame in (*past, *drawn))]
        self._num_denoised = len(drawn)

    def rest(self) -> None:
        self._keys = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        if self._keys is not None and k.shape[2] == len(self._keys) * self._tokens and q.shape[2] == self._num_denoised * self._tokens:
            self._note(q, k)
        return self._attention(q, k, v) if mask is None else self._attention(q, k, v, mask)

    def result(self, settings: RolloutSettings) -> Context:
        if not self._count:
            raise ValueError("no attention was watched")
        return Context(seen=tuple({key: share / self._count for key, share in seen.items()} for seen in self._seen), settings=settings)

    def _note(self, q: Tensor, k: Tensor) -> None:
        weights = (q.float() @ k.float().transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        by_frame = rearrange(weights, "b n (f t) (g s) -> b n t f g s", t=self._tokens, s=self._tokens).sum(-1).mean((0, 1, 2))
        self._seen = self._seen or [{} for _ in range(self._num_denoised)]
        for seen, row in zip(self._seen, by_frame.tolist(), strict=True):
            for key, share in zip(self._keys, row, strict=True):
                seen[key] = seen.get(key, 0.0) + share
        self._count += 1


def watch(
    model: Generator, vae: WanVAE, sitters: Sequence[Sitter], settings: RolloutSettings, *, with_pose: bool, chunks: int | None = None
) -> Context:
    """What a rollout of these sitters looks at, over all layers, heads, steps and chunks whose window is full; frames are not made."""
    last = settings.chunk_of(latent_frames(sitters[0].num_frames) - 1) if chunks is None else chunks
    state, anchor, driving, noise = begin(model, vae, sitters, settings, with_pose=with_pose)
    watched = WatchedAttention(model.attention, state.cache.grid.tokens)
    seeing = Generator(model.card, model.modules, model.adapters, attention=watched, dtype=model.dtype, device=model.device)
    _expect(watched, state, settings)
    for item in rollout(seeing, anchor, driving, settings, noise, state):
        match item:
            case Step(index=index, total=total) if index == total - 1:
                watched.rest()  # the clean pass comes next, which is not asked about
            case LatentChunk(index=index):
                if index >= last:
                    break
                _expect(watched, state, settings)
    return watched.result(settings)


def _expect(watched: WatchedAttention, state: RolloutState, settings: RolloutSettings) -> None:
    """Tell what the next chunk's keys are, once it has a knot and as much past as it will ever have."""
    output = settings.output_span(state.chunk)
    past = state.cache.frames
    is_settled = (state.knot is not None or settings.knot is None) and (len(past) >= settings.past or settings.window is None)
    if is_settled:
        watched.watch(settings.anchor is not None, past, range(output.start, output.stop + settings.knot_length))


def plot(contexts: dict[str, Context]) -> str:
    """The mean chunk of each, three times in a row: where its output frames look. SVG."""
    panels = [
        _panel(f"{name}: share of the attention", {mass: context.masses(mass) for mass in MASSES}, context.settings.chunk)
        for name, context in contexts.items()
    ]
    chunk = next(iter(contexts.values())).settings.chunk
    panels.append(_panel("mean distance looked, latent frames (below 0: back)", {n: c.looked for n, c in contexts.items()}, chunk))
    panels.append(_panel("attention in common with the next frame", {n: c.overlap for n, c in contexts.items()}, chunk))
    return line_plot(panels)


def _panel(title: str, lines: dict[str, list[float]], chunk: int) -> Panel:
    repeated = {name: line * CHUNKS_SHOWN for name, line in lines.items()}
    marks = [chunk * k - 0.5 for k in range(1, CHUNKS_SHOWN)]
    return Panel(title, repeated, 0, CHUNKS_SHOWN * chunk - 1, "output latent frame of three chunks; dashed: a chunk begins", marks)
