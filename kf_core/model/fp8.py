"""Linear layers whose weights are 8-bit floats: half of bfloat16's memory, and twice its speed on cards that multiply them.

A weight is float8 (e4m3, the largest is 448) with one float32 scale for each row; what it is multiplied with is scaled for each token as
it comes. Where no card multiplies such numbers, both are turned back and multiplied as they were: the same rounding, so its error can be
measured anywhere. Only the large layers of the blocks are kept so, and of a VACE module's blocks; embeddings, modulation, norms, the head
and what driving signals add stay as they are. Source: the OCP 8-bit floating point specification; scales by row and token as in Llama 3,
arXiv 2407.21783, section 6.2.
"""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from .causal import Generator

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
STEP = 16  # sides that cards multiply are multiples of this
CAPABLE = (8, 9)  # the first NVIDIA cards that multiply 8-bit floats: Ada; then Hopper and Blackwell


class Float8Linear(nn.Module):
    """A linear layer made from one of PyTorch's own. Knows no gradients."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight, scale = rounded(layer.weight.detach())
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = nn.Parameter(weight, requires_grad=False)  # [o, i]
        self.scale = nn.Parameter(scale, requires_grad=False)  # [o, 1]
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.scale, self.bias)


def with_float8(generator: Generator) -> str:
    """Keeps the blocks' large layers in 8-bit floats from now on. A sentence says what that does on the generator's device."""
    for parent, name, layer in list(_large(generator)):
        setattr(parent, name, Float8Linear(layer))
    if multiplies(generator.device):
        return "Weights of the blocks are 8-bit floats, and this card multiplies them."
    return (
        f"Weights of the blocks are 8-bit floats, and {generator.device.type} does not multiply them here (an NVIDIA card from the RTX 40 "
        f"series on does): they take half of bf16's memory and are turned back for each product, so this is slower, not faster."
    )


def rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of `x` [.., i] as 8-bit floats, and the float32 scale [.., 1] that each must be multiplied with to be itself again."""
    scale = x.abs().amax(dim=-1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (x / scale.to(torch.promote_types(x.dtype, torch.float32))).clamp(-LARGEST, LARGEST).to(FLOAT8), scale


def linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """`x` [.., i] times the rounded `weight` [o, i] with its `scale` [o, 1], plus bias: in x's type, [.., o]."""
    rows, scales = rounded(x.flatten(0, -2))
    product = multiplied if multiplies(x.device) else turned_back
    return product(rows, scales, weight, scale, bias, x.dtype).unflatten(0, x.shape[:-1])


def multiplied(rows: Tensor, scales: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """By the device's own product of 8-bit floats, which knows rows' scales for results in bfloat16 alone."""
    bias = None if bias is None else bias.to(torch.bfloat16)
    words = dict(scale_a=scales, scale_b=scale.t(), bias=bias, out_dtype=torch.bfloat16)
    return torch._scaled_mm(rows, weight.t(), **words).to(dtype)


def turned_back(rows: Tensor, scales: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """By a product in `dtype`: numbers of 8 bits are exact in it, and scales are put on afterwards."""
    wide = torch.promote_types(dtype, torch.float32)
    sums = functional.linear(rows.to(dtype), weight.to(dtype)).to(wide) * scales * scale.t()
    return (sums if bias is None else sums + bias).to(dtype)


def multiplies(device: torch.device) -> bool:
    """Does this device multiply 8-bit floats, with scales by row, in this PyTorch? It is asked once, by a small product.

    Never traced: who compiles marks it as a constant (`compiled.py`). A decorator here would load the compiler, 1.8 s, for everybody."""
    return _multiplies(device)


@lru_cache
def _multiplies(device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) < CAPABLE:
        return False
    rows, scales = rounded(torch.ones(STEP, STEP, device=device))
    try:
        multiplied(rows, scales, rows, scales, None, torch.bfloat16)
    except (RuntimeError, ValueError):
        return False
    return True


def _large(generator: Generator) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """The blocks' own linear layers: of both attentions, of what follows them, and those that tie a VACE module's blocks to the others.

    A host's layers are its own affair."""
    for block in (*generator.modules.blocks, *(generator.vace.vace_blocks if generator.vace is not None else ())):
        for parent in (block.self_attn, block.cross_attn, block.ffn, block):
            for name, layer in parent.named_children():
                if type(layer) is nn.Linear and layer.in_features % STEP == layer.out_features % STEP == 0:
                    yield parent, name, layer
