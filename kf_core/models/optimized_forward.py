"""The optimized forward: the plain forward's numbers for less work, on a stream under way.

Most of what a pass needs beside its latents is the same in all passes of a chunk, or of a stream, and is made once: what driving signals
add, modulations of the few times, angles, the answer of a prompt of one word. It is kept with the stream, not with the network: the cache
that `new_cache` makes holds what lasts a stream, and the memory that it places what lasts a chunk. So `rollout` reads as it does
with the plain forward, and two streams still share a model.
A pass that is not a stream's own (an anchor, several segments, a mask, gradients, control frames) takes the plain forward.
"""

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from einops import rearrange
from torch import Tensor

from . import products
from .adapters import Additions
from .attention import sdpa
from .causal import Generator, Segment, TextKeys, cross_attend
from .fused_block import FusedBlock, KVSlot
from .kv_cache import KVCache, KVView
from .rope import Grid, rotation

Made = TypeVar("Made")
Keep = Callable[[Tensor, Tensor], object]  # takes the keys and values of a layer, in the order of the layers


@dataclass(frozen=True, eq=False)
class PassInputs:
    """What a pass reads beside the weights and the stream's buffers."""

    latents: Tensor  # [b, c, f, h, w], where and as the model computes
    additions: Additions  # of driving signals; those to the time are in the modulations already
    modulations: Tensor  # [layer, b or 1, f or 1, 6, 1, dim]: shift, 1 + scale and gate, twice
    ending: Tensor  # [2, b or 1, f or 1, 1, dim]: shift and 1 + scale of the head
    turn: Tensor  # [t, 1, 1, d/2, 2] cosines and sines
    words: list[tuple[Tensor, ...]]  # per layer: the prompt's keys and values, or of a single word the answer itself


NOTHING = Additions({}, None, None)


class StreamView(KVView):
    """A chunk's memory, and what its passes have in common."""

    def __init__(self, *parts) -> None:
        super().__init__(*parts)
        self._made: dict[Hashable, object] = {}

    @property
    def cache(self) -> "StreamCache":
        return self._cache

    def once(self, make: Callable[[], Made], *name: Hashable) -> Made:
        """What was made under this name for this chunk; made now when it was not."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def kv_slots(self, tokens: int) -> list[KVSlot]:
        """Each layer's buffers for a pass over `tokens`. Raises ValueError when the cache was placed anew since."""
        self.refuse_stale()
        end = self._used + tokens
        views = zip(self._rotated_keys[:, :, :, :end], self._values[:, :, :, :end], strict=True)
        return self.once(lambda: [KVSlot(keys, values, self._used) for keys, values in views], "rooms", tokens)


class StreamCache(KVCache):
    """A stream's memory, and what all of its chunks have in common."""

    def __init__(self, *args, **settings) -> None:
        super().__init__(*args, **settings)
        self._made: dict[Hashable, object] = {}

    def once(self, make: Callable[[], Made], kind: str, name: Hashable = None, *, only_latest: bool = False) -> Made:
        """What was made under this name for this stream; made now when it was not. `only_latest`: the one before is let go."""
        found = self._made.setdefault(kind, {})
        if name not in found:
            if only_latest:
                found.clear()
            found[name] = make()
        return found[name]

    def _view(self, used: int) -> StreamView:
        return StreamView(self, self._rotated_keys, self._values, used)


class OptimizedGenerator(Generator):
    """A generator over any module tree; over one of PyTorch's own modules it also fuses what is fused best."""

    cache_class = StreamCache
    around: Callable[[], AbstractContextManager] = nullcontext  # what holds while a pass runs

    def __init__(self, *args, **words) -> None:
        super().__init__(*args, **words)
        attention = products.attention if self.attention is sdpa else self.attention
        self.blocks = [FusedBlock(block, attention) for block in self.modules.blocks]

    def plain(self) -> Generator:
        """The same weights under the plain forward."""
        words = dict(vace=self.vace, attention=self.attention, dtype=self.dtype, device=self.device)
        return Generator(self.card, self.modules, self.adapters, **words)

    def new_cache(self, settings, batch: int, height: int, width: int) -> StreamCache:
        for block in self.blocks:
            block.refresh()
        return super().new_cache(settings, batch, height, width)

    def forward(self, segments: Sequence[Segment], text: TextKeys) -> list[Tensor]:
        if len(segments) > 1 or torch.is_grad_enabled() or not _is_under_way(segments[0]):
            return super().forward(segments, text)
        (segment,) = segments
        inputs = self._pass_inputs(segment, text)
        keep = None
        if segment.record is not None:

            def keep(keys, values):
                return segment.record(keys.to(self.dtype).contiguous(), values.contiguous())

        return [self._pass(inputs, self._kv_slots(segment), keep)]

    def _pass_inputs(self, segment: Segment, text: TextKeys) -> PassInputs:
        grid, memory = self.grid(*segment.latents.shape[-2:]), segment.reads
        additions = memory.once(lambda: self._additions(segment, grid), "additions", segment.driving) or NOTHING
        modulations, ending = self._modulations(segment, additions)
        words = memory.cache.once(lambda: self._words(text), "words", text, only_latest=True)
        turn = memory.once(lambda: self._turn(segment, grid), "turn", *segment.positions.tolist())
        return PassInputs(segment.latents.to(self.device, self.dtype), additions, modulations, ending, turn, words)

    def _pass(self, inputs: PassInputs, kv_slots: list[KVSlot], keep: Keep | None) -> Tensor:
        """The flow [b, 16, f, h, w], in float32 or better."""
        grid = self.grid(*inputs.latents.shape[-2:])
        x = self._embed_patches(inputs.latents, inputs.additions.tokens).contiguous()
        with self.around():
            for layer, (block, slot) in enumerate(zip(self.blocks, kv_slots, strict=True)):
                if layer in inputs.additions.layers:
                    x += inputs.additions.layers[layer]
                words = inputs.words[layer]
                x, keys, values = block(x, inputs.modulations[layer], inputs.turn, slot.keys, slot.values, slot.remembered, words)
                if keep is not None:
                    keep(keys, values)
        x = self.modules.head.head(torch.addcmul(inputs.ending[0], self.modules.head.norm(x), inputs.ending[1]))
        _, p, q = self.modules.patch_size
        flow = rearrange(x, "b f (h w) (p q c) -> b c f (h p) (w q)", h=grid.height, w=grid.width, p=p, q=q)
        return flow.to(torch.promote_types(flow.dtype, torch.float32))

    def _kv_slots(self, segment: Segment) -> list[KVSlot]:
        return segment.reads.kv_slots(segment.frames * segment.reads.cache.grid.tokens)

    def _modulations(self, segment: Segment, additions: Additions) -> tuple[Tensor, Tensor]:
        """Shift, 1 + scale and gate of every layer [layer, b, f, 6, 1, dim], shift and 1 + scale of the head [2, b, f, 1, dim].

        One for all frames, and made once in a stream, unless driving signals join the time of their frames."""
        memory, times = segment.reads, tuple(segment.t.tolist())
        if len(set(times)) == 1:
            times = times[:1]
        time = memory.cache.once(lambda: self._embed_time(torch.tensor([times], dtype=torch.float64), [None], [len(times)]), "time", times)
        if additions.time is None:
            return memory.cache.once(lambda: self._modulated(time, memory.cache), "modulation", times)
        return memory.once(lambda: self._modulated(time + additions.time, memory.cache), "modulation", times, segment.driving)

    def _modulated(self, time: Tensor, cache: StreamCache) -> tuple[Tensor, Tensor]:
        learned = cache.once(lambda: torch.stack([block.modulation.to(time) for block in self.modules.blocks]), "learned")
        layers = learned[:, :, None] + self.modules.time_projection(time).unflatten(2, (6, -1))  # [layer, b, f, 6, dim]
        layers[..., 1::3, :] += 1
        shift, scale = (self.modules.head.modulation[:, None].to(time) + time[:, :, None]).chunk(2, dim=2)
        return layers.unsqueeze(-2), torch.stack((shift, 1 + scale))

    def _words(self, text: TextKeys) -> list[tuple[Tensor, ...]]:
        """What each layer reads of the prompt: its keys and values, or of a single word the answer itself."""
        pairs = [(keys.contiguous(), values.contiguous()) for keys, values in zip(text.keys, text.values, strict=True)]
        if text.keys[0].shape[2] > 1:
            return pairs
        nobody = torch.empty(1, 0, 0, self.card.dim, dtype=self.dtype, device=self.device)
        return [(cross_attend(self.attention, block, nobody, *pair),) for block, pair in zip(self.modules.blocks, pairs, strict=True)]

    def _turn(self, segment: Segment, grid: Grid) -> Tensor:
        """Cosines and sines of the segment's tokens: [t, 1, 1, d/2, 2]."""
        angles = rotation(segment.positions, grid, self.modules.blocks[0].self_attn.head_dim, segment.latents.dtype, self.device)
        return torch.stack((angles.cos, angles.sin), dim=-1)[:, None, None].contiguous()


def _is_under_way(segment: Segment) -> bool:
    """Does the segment belong to a stream of ours, and does nothing about it need the plain forward?"""
    is_led = segment.driving is not None and segment.driving.control is not None
    return isinstance(segment.reads, StreamView) and segment.mask is None and not is_led and segment.t.dim() == segment.positions.dim() == 1
