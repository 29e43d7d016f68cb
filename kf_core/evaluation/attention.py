"""Where each frame of a chunk looks: the attention's mass on the anchor, the past, and the frames drawn along.

The paper's reason for the knot is that the context of attention jumps where a chunk begins: its first frame looks back at finished frames,
the last one of the chunk before had nothing but noise ahead of it. Here that is measured. Every self-attention of the denoising steps is
computed once more, and its weights are summed by the frame they fall on; what the network computes is not touched. With a knot the first
frame of a chunk is drawn twice and averaged, so its context is the mean of both drawings.
Source: Knot Forcing, arXiv 2512.21734; the measure is our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..chunks import LatentChunk, Step
from ..model.causal import Generator
from ..model.protocol import Attention
from ..sampling.rollout import RolloutState, rollout
from ..settings import RolloutSettings
from ..timeline import latent_frames
from ..vae.wan import WanVAE
from .line_plot import Panel, line_plot
from .sitting import Sitter, begin

MASSES = ("anchor", "past", "earlier", "itself", "later")  # past: committed; earlier, later: frames of the same drawing
LOOK = "mean distance looked"  # latent frames, of all mass but the anchor's; below 0: back
CHUNKS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the frames of one chunk look at, by their place in what is drawn. Means over everything else."""

    masses: dict[str, tuple[float, ...]]  # share of the attention, one number for each drawn frame
    looked: tuple[float, ...]  # latent frames, below 0: back
    settings: RolloutSettings

    def emitted(self, values: Sequence[float]) -> list[float]:
        """One number for each *emitted* frame of a chunk: where frames are drawn twice and fused, the mean of both drawings."""
        chunk, ties = self.settings.chunk, self.settings.knot_length if self.settings.fuse else 0
        return [(values[place] + values[chunk + place]) / 2 if place < ties else values[place] for place in range(chunk)]

    def jump(self, values: Sequence[float]) -> float:
        """How much `values` change from the last emitted frame of a chunk to the first of the next."""
        emitted = self.emitted(values)
        return abs(emitted[0] - emitted[-1])

    def step(self, values: Sequence[float]) -> float:
        """The same between neighbours within a chunk: the mean."""
        emitted = self.emitted(values)
        return sum(abs(b - a) for a, b in zip(emitted, emitted[1:], strict=False)) / max(1, len(emitted) - 1)

    def as_numbers(self) -> dict:
        emitted = {name: self.emitted(values) for name, values in self.masses.items()} | {LOOK: self.emitted(self.looked)}
        return {
            "drawn": {**self.masses, LOOK: self.looked},
            "emitted": emitted,
            "jump of the distance looked": self.jump(self.looked),
            "its steps within a chunk": self.step(self.looked),
            "jump of the mass on the past": self.jump(self.masses["past"]),
        }


class WatchedAttention:
    """An attention that notes where the mass falls, while it is told what the keys are; otherwise it only attends."""

    def __init__(self, attention: Attention, tokens: int) -> None:
        self._attention, self._tokens = attention, tokens
        self._keys: list[int | None] | None = None  # frames of the keys, None for the anchor; None: not watching
        self._drawn: range = range(0)
        self._sums: Tensor | None = None  # [drawn, masses + 1]
        self._count = 0

    def watch(self, has_anchor: bool, past: Sequence[int], drawn: range) -> None:
        self._keys, self._drawn = [*([None] * has_anchor), *past, *drawn], drawn

    def rest(self) -> None:
        self._keys = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        if self._keys is not None and k.shape[2] == len(self._keys) * self._tokens and q.shape[2] == len(self._drawn) * self._tokens:
            self._note(q, k)
        return self._attention(q, k, v) if mask is None else self._attention(q, k, v, mask)

    def result(self, settings: RolloutSettings) -> Context:
        if self._sums is None:
            raise ValueError("no attention was watched")
        means = self._sums / self._count
        masses = {name: tuple(means[:, index].tolist()) for index, name in enumerate(MASSES)}
        return Context(masses=masses, looked=tuple(means[:, -1].tolist()), settings=settings)

    def _note(self, q: Tensor, k: Tensor) -> None:
        weights = (q.float() @ k.float().transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        by_frame = rearrange(weights, "b n (f t) (g s) -> b n t f g s", t=self._tokens, s=self._tokens).sum(-1).mean((0, 1, 2)).double()
        rows = []
        for frame, row in zip(self._drawn, by_frame.cpu(), strict=True):
            kinds = [self._kind(frame, key) for key in self._keys]
            mass = {name: sum(share.item() for share, kind in zip(row, kinds, strict=True) if kind == name) for name in MASSES}
            distance = sum(share.item() * (key - frame) for share, key in zip(row, self._keys, strict=True) if key is not None)
            rows.append([*mass.values(), distance / max(1e-9, 1 - mass["anchor"])])
        rows = torch.tensor(rows, dtype=torch.float64)
        self._sums = rows if self._sums is None else self._sums + rows
        self._count += 1

    def _kind(self, frame: int, key: int | None) -> str:
        if key is None:
            return "anchor"
        if key < self._drawn.start:
            return "past"
        return "itself" if key == frame else "earlier" if key < frame else "later"


def watch(
    model: Generator, vae: WanVAE, sitters: Sequence[Sitter], settings: RolloutSettings, *, with_pose: bool, chunks: int | None = None
) -> Context:
    """What a rollout of these sitters looks at, over all layers, heads, steps and chunks whose window is full; pictures are not made."""
    last = settings.chunk_of(latent_frames(sitters[0].num_pictures) - 1) if chunks is None else chunks
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
    emitted = settings.emitted(state.chunk)
    past = state.cache.frames
    is_settled = (state.knot is not None or settings.knot is None) and (len(past) >= settings.past or settings.window is None)
    if is_settled:
        watched.watch(settings.anchor is not None, past, range(emitted.start, emitted.stop + settings.knot_length))


def plot(contexts: dict[str, Context]) -> str:
    """The mean chunk of each, three times in a row: where its emitted frames look. SVG."""
    panels = []
    repeated = lambda context, values: context.emitted(values) * CHUNKS_SHOWN
    for name, context in contexts.items():
        lines = {mass: repeated(context, context.masses[mass]) for mass in MASSES}
        panels.append(_panel(f"{name}: share of the attention", lines, context.settings.chunk))
    chunk = next(iter(contexts.values())).settings.chunk
    lines = {name: repeated(context, context.looked) for name, context in contexts.items()}
    panels.append(_panel("mean distance looked, latent frames (below 0: back)", lines, chunk))
    return line_plot(panels)


def _panel(title: str, lines: dict[str, list[float]], chunk: int) -> Panel:
    marks = [chunk * k - 0.5 for k in range(1, CHUNKS_SHOWN)]
    return Panel(title, lines, 0, CHUNKS_SHOWN * chunk - 1, "emitted latent frame of three chunks; dashed: a chunk begins", marks)
