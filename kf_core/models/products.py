"""Products of matrices on a CPU, by the faster of PyTorch's two libraries.

PyTorch gives float32 products to MKL, which on AMD processors with AVX-512 takes twice as long as oneDNN. On Intel's MKL is the faster, and
with AVX2 alone both are alike while PyTorch's own attention is faster than products by tiles. In bfloat16 oneDNN is faster where the
processor computes in it, and so are tiles unless it has AMX, for which PyTorch's attention has a kernel. Everywhere else PyTorch's
own functions serve. So the choice follows from the kind of processor, never from a clock: a stream that goes on in another process must
get the same kernels. KF_PRODUCTS (onednn or pytorch) overrules it, for measuring.

The operator for oneDNN is what `torch.compile` uses for linear layers. Without gradients. Sums are in another order than MKL's, so
results differ by rounding: some 1e-6 in float32.
"""

import os
import platform
from dataclasses import dataclass
from functools import cache
from math import pi, sqrt
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..precision import has_bf16_products
from .attention import sdpa

VARIABLE = "KF_PRODUCTS"
TILE_BYTES = 3 * 2**18  # of scores at a time: they stay in a core's own cache between the two products of an attention
TILE_ROWS = 32  # at least, however many keys there are: a product of fewer rows is slow


@dataclass(frozen=True)
class Processor:
    """What decides which library is the faster."""

    is_intel: bool
    avx512: bool
    bf16: bool  # multiplied in hardware, by oneDNN
    amx: bool

    def prefers_onednn(self, dtype: torch.dtype, attention: bool = False) -> bool:
        """For products of this type; or for attention as two products, against PyTorch's own kernel."""
        if dtype == torch.float32:
            return self.avx512 and not self.is_intel
        return dtype == torch.bfloat16 and self.bf16 and not (attention and self.amx)

    @classmethod
    def here(cls) -> "Processor":
        return cls(_is_intel(), torch.cpu._is_avx512_supported(), has_bf16_products(), torch.cpu._is_amx_tile_supported())


def by_onednn(x: Tensor, attention: bool = False) -> bool:
    """Does oneDNN multiply this tensor, rather than PyTorch's own function?"""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16) or _operator is None:
        return False
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or not torch.backends.mkldnn.is_available():
        return False
    processor, said = Processor.here(), os.environ.get(VARIABLE)
    if said in ("onednn", "pytorch"):
        return said == "onednn" and (x.dtype == torch.float32 or processor.bf16)
    return processor.prefers_onednn(x.dtype, attention)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, then: str = "none") -> Tensor:
    """`x` [..., i] times `weight` [o, i] plus bias; `then` is "none" or "gelu" (by tanh)."""
    if by_onednn(x):
        return _operator(x, _dense(weight), bias, then, [], "tanh" if then == "gelu" else "")
    y = functional.linear(x, weight, bias)
    return gelu(y) if then == "gelu" else y


def apply(layer: nn.Module, x: Tensor, then: str = "none") -> Tensor:
    """What `layer(x)` gives, by the faster product where the layer is PyTorch's own linear layer."""
    if type(layer) is nn.Linear:
        return linear(x, layer.weight, layer.bias, then)
    y = layer(x)
    return gelu(y) if then == "gelu" else y


def gelu(x: Tensor) -> Tensor:
    """GELU by tanh: as x times a sigmoid, since PyTorch's on a CPU takes three times as long."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or torch.is_grad_enabled():
        return functional.gelu(x, approximate="tanh")
    inner = torch.mul(x, x).mul_(2 * sqrt(2 / pi) * 0.044715).add_(2 * sqrt(2 / pi)).mul_(x)
    return inner.sigmoid_().mul_(x)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """PyTorch's attention [b, n, t, d]; or two products a head, in tiles. Scores and their softmax are float32, as there."""
    if mask is not None or not by_onednn(q, attention=True):
        return sdpa(q, k, v, mask)
    q, k = q.float() * q.shape[-1] ** -0.5, k.float()
    rows = max(TILE_ROWS, TILE_BYTES // (4 * k.shape[2]))
    out = v.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2)  # heads side by side, as the next layer wants them
    for sample in range(q.shape[0]):
        for head in range(q.shape[1]):
            keys, values = _dense(k[sample, head]), _dense(v[sample, head]).t()
            for queries, seen in zip(q[sample, head].split(rows), out[sample, head].split(rows), strict=True):
                seen.copy_(linear(linear(queries, keys, None).softmax(dim=-1).to(v.dtype), values, None))
    return out


def _dense(weight: Tensor) -> Tensor:
    """The weight without gaps between its rows or columns: for others oneDNN has no kernel but its reference, 1,000 times slower."""
    return weight if weight.is_contiguous() or weight.t().is_contiguous() else weight.contiguous()


@cache
def _is_intel() -> bool:
    """By what the system says of its first processor; where it says nothing, no."""
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        facts = " ".join((os.environ.get("PROCESSOR_IDENTIFIER", ""), platform.processor()))
    return "GenuineIntel" in facts


def _found():
    try:
        return torch.ops.mkldnn._linear_pointwise
    except AttributeError:
        return None


_operator = _found()
