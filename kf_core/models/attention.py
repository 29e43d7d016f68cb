"""The attentions that can be handed in, by name: PyTorch's own, or a package that is installed and faster on its cards.

Each is `attention(q, k, v)` over [b, n, t, d]. A package that is missing is no error: `attention_called` gives PyTorch's own and says why.
"""

import importlib

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .protocol import Attention


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """PyTorch's own attention: [b, n, t, d] -> [b, n, t, d]."""
    return scaled_dot_product_attention(q, k, v, attn_mask=mask)


def flash() -> Attention:
    """FlashAttention's (package `flash_attn`). Raises ImportError where it is not installed."""
    attend = importlib.import_module("flash_attn").flash_attn_func

    def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None or q.dtype not in (torch.float16, torch.bfloat16):  # it knows neither
            return sdpa(q, k, v, mask)
        return attend(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

    return attention


def sage() -> Attention:
    """SageAttention's (package `sageattention`): 8-bit scores, so not the same numbers. Raises ImportError where it is not installed."""
    attend = importlib.import_module("sageattention").sageattn

    def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None or q.dtype not in (torch.float16, torch.bfloat16):
            return sdpa(q, k, v, mask)
        return attend(q, k, v, tensor_layout="HND", is_causal=False)

    return attention


PACKAGES = {"flash": flash, "sage": sage}
ATTENTIONS = ("sdpa", *PACKAGES)


def attention_called(name: str, device: torch.device | str) -> tuple[Attention, str | None]:
    """The attention of that name; where it cannot be, PyTorch's own and a sentence that says why."""
    if name not in PACKAGES:
        return sdpa, None
    if torch.device(device).type != "cuda":
        return sdpa, f"The attention '{name}' needs an NVIDIA or AMD card, and this runs on {device}: PyTorch's own is used."
    try:
        return PACKAGES[name](), None
    except (ImportError, AttributeError, OSError) as problem:
        return sdpa, f"The attention '{name}' cannot be used ({str(problem).splitlines()[0][:100]}): PyTorch's own is used."
