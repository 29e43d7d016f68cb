"""WanModules: what the causal forward needs of a module tree, ours or ComfyUI's.

Modules are called, their weights are never read: a host may quantise, patch or offload them as it likes.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

Module = Callable[[Tensor], Tensor]


class AttentionModules(Protocol):
    num_heads: int
    head_dim: int
    q: Module
    k: Module
    v: Module
    o: Module
    norm_q: Module
    norm_k: Module


class BlockModules(Protocol):
    norm1: Module
    self_attn: AttentionModules
    norm3: Module
    cross_attn: AttentionModules
    norm2: Module
    ffn: Module
    modulation: Tensor  # [1, 6, dim]


class HeadModules(Protocol):
    norm: Module
    head: Module
    modulation: Tensor  # [1, 2, dim]


class WanModules(Protocol):
    """Wan 2.1's transformer as a tree of modules."""

    freq_dim: int
    patch_size: Sequence[int]
    patch_embedding: Module
    text_embedding: Module
    time_embedding: Module
    time_projection: Module
    blocks: Sequence[BlockModules]
    head: HeadModules


class Attention(Protocol):
    """`attention(q, k, v)`: [b, n, t, d] each, keys as many as there are; an optional mask [.., t, t] is True where a query may look."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor: ...
