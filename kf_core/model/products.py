"""Products of matrices on a CPU, asked of oneDNN directly.

PyTorch gives float32 products to MKL, which on processors that are not Intel's takes twice as long; its attention has no fast kernel for
bfloat16 without AMX; and its tanh GELU is slower than the layer before it. The operator that `torch.compile` uses for linear layers is
in every build that has oneDNN. Where it is not (Apple's, or another type than these two), PyTorch's own functions serve.
Without gradients. Sums are in another order than MKL's, so results differ by rounding: some 1e-6 in float32.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..precision import has_bf16_products
from .attention import sdpa

TILE_BYTES = 3 * 2**18  # of scores at a time: they stay in a core's own cache between the two products of an attention
TILE_ROWS = 32  # at least, however many keys there are: a product of fewer rows is slow


def has_onednn(x: Tensor) -> bool:
    """Is there the faster product for this tensor?"""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_grad_enabled() or not torch.backends.mkldnn.is_available():
        return False
    return x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and has_bf16_products())


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, then: str = "none") -> Tensor:
    """`x` [..., i] times `weight` [o, i] plus bias; `then` is "none" or "gelu" (by tanh)."""
    if has_onednn(x) and _operator is not None:
        return _operator(x, _dense(weight), bias, then, [], "tanh" if then == "gelu" else "")
    y = functional.linear(x, weight, bias)
    return functional.gelu(y, approximate="tanh") if then == "gelu" else y


def apply(layer: nn.Module, x: Tensor, then: str = "none") -> Tensor:
    """What `layer(x)` gives, by the faster product where the layer is PyTorch's own linear layer."""
    if type(layer) is nn.Linear:
        return linear(x, layer.weight, layer.bias, then)
    y = layer(x)
    return functional.gelu(y, approximate="tanh") if then == "gelu" else y


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """PyTorch's attention [b, n, t, d] as two products a head, in tiles. Scores and their softmax are float32, as there."""
    if mask is not None or _operator is None or not has_onednn(q):
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


def _found():
    try:
        return torch.ops.mkldnn._linear_pointwise
    except AttributeError:
        return None


_operator = _found()
