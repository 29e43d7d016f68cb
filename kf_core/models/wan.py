"""Wan 2.1's transformer modules under Wan's own parameter names, at any size.

Modules only: how tokens flow through them is said in `causal.py`, which treats ComfyUI's module tree the same way.
Layer classes can be handed in, so that a host may bring its own (fp8, offloading).
Source: Wan 2.1, `wan/modules/model.py` (Apache-2.0); names as in its published checkpoints.
"""

import torch
from torch import nn

from .card import ModelCard
from .shapes import PATCH

EPS = 1e-6


class WanModel(nn.Module):
    """The weights of one generator. `layers` offers Linear, Conv3d, LayerNorm and RMSNorm, as `torch.nn` does."""

    def __init__(self, card: ModelCard, layers=nn) -> None:
        super().__init__()
        dim = card.dim
        self.dim, self.freq_dim, self.patch_size = dim, card.freq_dim, PATCH
        self.patch_embedding = layers.Conv3d(card.in_channels, dim, kernel_size=PATCH, stride=PATCH)
        self.text_embedding = nn.Sequential(layers.Linear(card.text.width, dim), nn.GELU(approximate="tanh"), layers.Linear(dim, dim))
        self.time_embedding = nn.Sequential(layers.Linear(card.freq_dim, dim), nn.SiLU(), layers.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), layers.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(WanBlock(dim, card.ffn_dim, card.heads, layers) for _ in range(card.layers))
        self.head = WanHead(dim, card.out_channels, layers)


class WanBlock(nn.Module):
    def __init__(self, dim: int, ffn_dim: int, heads: int, layers=nn) -> None:
        super().__init__()
        self.norm1 = layers.LayerNorm(dim, eps=EPS, elementwise_affine=False)
        self.self_attn = WanAttention(dim, heads, layers)
        self.norm3 = layers.LayerNorm(dim, eps=EPS, elementwise_affine=True)
        self.cross_attn = WanAttention(dim, heads, layers)
        self.norm2 = layers.LayerNorm(dim, eps=EPS, elementwise_affine=False)
        self.ffn = nn.Sequential(layers.Linear(dim, ffn_dim), nn.GELU(approximate="tanh"), layers.Linear(ffn_dim, dim))
        self.modulation = _modulation(6, dim)


class WanAttention(nn.Module):
    """The four projections of an attention. Queries and keys are normalised over all heads together."""

    def __init__(self, dim: int, heads: int, layers=nn) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, dim // heads
        self.q = layers.Linear(dim, dim)
        self.k = layers.Linear(dim, dim)
        self.v = layers.Linear(dim, dim)
        self.o = layers.Linear(dim, dim)
        self.norm_q = layers.RMSNorm(dim, eps=EPS)
        self.norm_k = layers.RMSNorm(dim, eps=EPS)


class WanHead(nn.Module):
    def __init__(self, dim: int, out_channels: int, layers=nn) -> None:
        super().__init__()
        self.norm = layers.LayerNorm(dim, eps=EPS, elementwise_affine=False)
        self.head = layers.Linear(dim, out_channels * PATCH[1] * PATCH[2])
        self.modulation = _modulation(2, dim)


def _modulation(count: int, dim: int) -> nn.Parameter:
    """Begins at random, as Wan's does: [1, count, dim]. Without numbers (on the meta device) nothing is sampled: PyTorch loads sympy and
    its compiler for that, which takes as long again as PyTorch itself."""
    made = torch.empty(1, count, dim)
    return nn.Parameter(made if made.is_meta else torch.randn(1, count, dim) / dim**0.5)
