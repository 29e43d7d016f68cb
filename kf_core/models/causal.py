"""The causal forward: segments of latent frames through a tree of Wan modules.

A *segment* is some frames at their positions, each with its own time t, the memory it may read, and the record it writes. Tokens of
all segments share the linear layers; attention is each segment's own. The module tree is called, its weights are never read, so ours
and ComfyUI's serve alike. Source: Wan 2.1, `WanModel.forward`; per-frame t as in Self-Forcing, arXiv 2506.08009.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from ..device import to_device
from ..types import ChunkConditioning, TextContext
from .adapters import Adapters, Additions, scaled
from .attention import sdpa
from .card import ModelCard
from .kv_cache import KVCache, KVCapture, KVView
from .protocol import Attention, AttentionModules, BlockModules, Module, WanModules
from .rope import Grid, Rotation, rotation
from .vace import Vace


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """Frames that are passed together and see each other (all of them, unless a mask says which)."""

    latents: Tensor  # [b, c, f, h, w]  c = the model's input channels
    positions: Tensor  # [f], or [b, f]: where the frames stand in time
    t: Tensor  # [f], or [b, f]: float, 0 = clean .. 1000 = noise
    driving: ChunkConditioning | None = None
    reads: KVView | None = None
    record: KVCapture | None = None  # takes the keys and values of this pass
    mask: Tensor | None = None  # bool [f, f], or [b, f, f]: may the row's frame see the column's?

    @property
    def frames(self) -> int:
        return self.latents.shape[2]


@dataclass(frozen=True, eq=False)
class TextKeys:
    """The keys and values of one prompt, per layer: they depend on nothing else, so they are made once."""

    context: TextContext | None
    keys: tuple[Tensor, ...]  # [1, n, l, d]
    values: tuple[Tensor, ...]
    branch: "TextKeys | None" = None  # those of a VACE module's blocks


class Generator:
    """Wan modules and adapters with the card that says how they want to be run. Holds weights only: streams may share one."""

    cache_class = KVCache

    def __init__(
        self,
        card: ModelCard,
        modules: WanModules,
        adapters: Adapters | None = None,
        *,
        vace: Vace | None = None,
        attention: Attention = sdpa,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.card, self.modules, self.adapters, self.vace, self.attention = card, modules, adapters, vace, attention
        self.dtype, self.device = dtype, torch.device(device)

    def with_vace(self, vace: Vace) -> "Generator":
        """The same generator with a VACE module beside it."""
        words = dict(attention=self.attention, dtype=self.dtype, device=self.device)
        return type(self)(self.card, self.modules, self.adapters, vace=vace, **words)

    def grid(self, height: int, width: int) -> Grid:
        """The patches of a latent frame of this size. Raises ValueError when it cannot be cut into patches."""
        _, p, q = self.modules.patch_size
        if height % p or width % q:
            raise ValueError(f"a latent of {height}x{width} cannot be cut into patches of {p}x{q}")
        return Grid(height // p, width // q)

    def new_cache(self, settings, batch: int, height: int, width: int) -> KVCache:
        """An empty cache for latents [batch, c, f, height, width]."""
        attention = self.modules.blocks[0].self_attn
        return self.cache_class(
            settings,
            batch=batch,
            layers=len(self.modules.blocks),
            heads=attention.num_heads,
            head_dim=attention.head_dim,
            grid=self.grid(height, width),
            dtype=self.dtype,
            device=self.device,
        )

    def encode_text(self, context: TextContext | None) -> TextKeys:
        """Keys and values of a prompt for every layer. None: the null context, one zero vector per token of the card."""
        if context is None:
            embedding = torch.zeros(1, self.card.text.tokens, self.card.text.width)
        else:
            embedding = context.embedding
        hidden = self.modules.text_embedding(to_device(embedding, self.device, self.dtype))
        branch = None if self.vace is None else TextKeys(context, *_text_keys(self.vace.vace_blocks, hidden))
        return TextKeys(context, *_text_keys(self.modules.blocks, hidden), branch)

    def forward(self, segments: Sequence[Segment], text: TextKeys) -> list[Tensor]:
        """The flow (noise - clean) of every segment: [b, 16, f, h, w] each, in float32 or better."""
        batch, _, _, height, width = segments[0].latents.shape
        grid = self.grid(height, width)
        counts = [s.frames for s in segments]
        additions = [self._additions(s, grid) for s in segments]

        time = self._embed_time(torch.cat([s.t.expand(batch, s.frames) for s in segments], dim=1), additions, counts)
        modulation = self.modules.time_projection(time).unflatten(2, (6, -1))  # [b, f, 6, dim]
        x = torch.cat(
            [self._embed_patches(s.latents, a and a.tokens) for s, a in zip(segments, additions, strict=True)], dim=1
        )  # [b, f, t, dim]

        injection_layers = self.vace.injection_layers(len(self.modules.blocks)) if self.vace is not None else ()
        hints = self._hints(segments, x, modulation, counts, grid, text)
        views = [_View(s, grid, self.modules.blocks[0].self_attn.head_dim, self.device) for s in segments]
        for layer, block in enumerate(self.modules.blocks):
            x = _add_per_layer(x, [a.layers.get(layer) if a else None for a in additions], counts)
            x = self._block(layer, block, x, modulation, views, counts, text)
            if layer in injection_layers:
                x = _add_per_layer(x, next(hints), counts)

        shift, scale = _chunk(self.modules.head.modulation, time[:, :, None], 2)
        x = self.modules.head.head(self.modules.head.norm(x) * (1 + scale) + shift)
        _, p, q = self.modules.patch_size
        flow = rearrange(x, "b f (h w) (p q c) -> b c f (h p) (w q)", h=grid.height, w=grid.width, p=p, q=q)
        return list(flow.to(torch.promote_types(flow.dtype, torch.float32)).split(counts, dim=2))

    def _block(
        self, layer: int, block: BlockModules, x: Tensor, modulation: Tensor, views: "list[_View]", counts: list[int], text: TextKeys
    ) -> Tensor:
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = _chunk(block.modulation, modulation, 6)  # [b, f, 1, dim] each
        attention = block.self_attn
        hidden = block.norm1(x) * (1 + scale_a) + shift_a
        q = _heads(attention.norm_q(attention.q(hidden)).flatten(1, 2), attention)
        k = _heads(attention.norm_k(attention.k(hidden)).flatten(1, 2), attention)
        v = _heads(attention.v(hidden).flatten(1, 2), attention)
        tokens = [count * x.shape[2] for count in counts]
        parts = zip(views, q.split(tokens, dim=2), k.split(tokens, dim=2), v.split(tokens, dim=2), strict=True)
        seen = torch.cat([view.attend(self.attention, layer, *qkv) for view, *qkv in parts], dim=2)
        x = x + attention.o(rearrange(seen, "b n (f t) d -> b f t (n d)", f=x.shape[1])) * gate_a

        x = x + cross_attend(self.attention, block, x, text.keys[layer], text.values[layer])

        return x + block.ffn(block.norm2(x) * (1 + scale_f) + shift_f) * gate_f

    def _hints(
        self, segments: Sequence[Segment], x: Tensor, modulation: Tensor, counts: list[int], grid: Grid, text: TextKeys
    ) -> Iterator[list[Tensor | None]]:
        """What control frames add to each segment's tokens after each tapped layer; None for segments without."""
        controls = [s.driving.control if s.driving is not None else None for s in segments]
        is_led = [control is not None for control in controls]
        if not any(is_led):
            while True:
                yield [None] * len(segments)

        def led(whole):
            return [part for part, leads in zip(whole.split(counts, dim=1), is_led, strict=True) if leads]

        own = [_alone(s) for s, leads in zip(segments, is_led, strict=True) if leads]
        own_counts = [s.frames for s in own]
        views = [_View(s, grid, self.modules.blocks[0].self_attn.head_dim, self.device) for s in own]
        start, modulation = torch.cat(led(x), dim=1), torch.cat(led(modulation), dim=1)
        c = torch.cat([self.vace.embed(control.features.to(self.device, self.dtype)) for control in controls if control], dim=1)
        for index, block in enumerate(self.vace.vace_blocks):
            c = self._block(index, block, block.before_proj(c) + start if index == 0 else c, modulation, views, own_counts, text.branch)
            hints = iter(block.after_proj(c).split(own_counts, dim=1))
            yield [None if control is None else scaled(next(hints), control) for control in controls]

    def _additions(self, segment: Segment, grid: Grid) -> Additions | None:
        if self.adapters is None or segment.driving is None:
            return None
        return self.adapters(segment.driving, grid, self.dtype)

    def _embed_patches(self, latents: Tensor, more: Tensor | None) -> Tensor:
        """[b, c, f, h, w], and what is added to their tokens -> [b, f, t, dim]."""
        patches = self.modules.patch_embedding(latents.to(self.device, self.dtype))
        tokens = rearrange(patches, "b d f h w -> b f (h w) d")
        return tokens if more is None else tokens + more

    def _embed_time(self, t: Tensor, additions: list[Additions | None], counts: list[int]) -> Tensor:
        """[b, f] -> [b, f, dim]. t stays a float: rounding it moves the result by 5e-2."""
        half = self.modules.freq_dim // 2
        frequencies = 10000 ** -(torch.arange(half, dtype=torch.float64) / half)
        angles = t.cpu().double()[..., None] * frequencies
        time = self.modules.time_embedding(to_device(torch.cat((angles.cos(), angles.sin()), dim=-1), self.device, self.dtype))
        extra = [a.time if a else None for a in additions]
        if all(e is None for e in extra):
            return time
        return torch.cat([p if e is None else p + e for p, e in zip(time.split(counts, dim=1), extra, strict=True)], dim=1)


class _View:
    """One segment's attention: its places in time, its mask, its memory."""

    def __init__(self, segment: Segment, grid: Grid, head_dim: int, device: torch.device) -> None:
        self._segment = segment
        self._turn: Rotation = rotation(segment.positions, grid, head_dim, segment.latents.dtype, device)
        self._mask = None
        if segment.mask is not None:
            mask = segment.mask if segment.mask.dim() == 3 else segment.mask[None]
            self._mask = mask.repeat_interleave(grid.tokens, dim=1).repeat_interleave(grid.tokens, dim=2)[:, None].to(device)

    def attend(self, attention: Attention, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self._segment.record is not None:
            self._segment.record(k, v)
        q, k = self._turn(q), self._turn(k)
        if self._segment.reads is not None:
            k, v = self._segment.reads.read(layer, k, v)
        return attention(q, k, v) if self._mask is None else attention(q, k, v, self._mask)


def _call(module: Module, x: Tensor) -> Tensor:
    return module(x)


def cross_attend(
    attention: Attention, block: BlockModules, x: Tensor, keys: Tensor, values: Tensor, call: Callable[[Module, Tensor], Tensor] = _call
) -> Tensor:
    """What the tokens `x` [b, f, t, dim] take from the prompt: the same shape, or [1, 1, 1, dim] where it is one and the same for all."""
    reading = block.cross_attn
    if keys.shape[2] == 1:  # one word: whoever asks is answered with it whole, so nobody need ask
        return call(reading.o, rearrange(values, "b n t d -> b 1 t (n d)"))
    q = _heads(reading.norm_q(call(reading.q, block.norm3(x))).flatten(1, 2), reading)
    keys, values = (kv.expand(x.shape[0], -1, -1, -1) for kv in (keys, values))
    return call(reading.o, rearrange(attention(q, keys, values), "b n (f t) d -> b f t (n d)", f=x.shape[1]))


def _alone(segment: Segment) -> Segment:
    """The segment as a VACE module's branch sees it: without memory."""
    return replace(segment, reads=None, record=None)


def _text_keys(blocks: Sequence[BlockModules], hidden: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Keys and values of the embedded prompt for these blocks: [1, n, l, d] each."""
    reading = [block.cross_attn for block in blocks]
    keys = tuple(_heads(attention.norm_k(attention.k(hidden)), attention) for attention in reading)
    return keys, tuple(_heads(attention.v(hidden), attention) for attention in reading)


def _heads(x: Tensor, attention: AttentionModules) -> Tensor:
    return rearrange(x, "b t (n d) -> b n t d", n=attention.num_heads)


def _chunk(learned: Tensor, embedded: Tensor, parts: int) -> tuple[Tensor, ...]:
    """Learned modulation [1, parts, dim] plus the frame's [b, f, parts or 1, dim], apart: [b, f, 1, dim] each."""
    return (learned[:, None].to(embedded) + embedded).chunk(parts, dim=2)


def _add_per_layer(x: Tensor, additions: list[Tensor | None], counts: list[int]) -> Tensor:
    if all(a is None for a in additions):
        return x
    return torch.cat([p if a is None else p + a for p, a in zip(x.split(counts, dim=1), additions, strict=True)], dim=1)
