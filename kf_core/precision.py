"""In which precision this machine computes fast. The one place that asks its processor or card.

The environment variable KF_PRECISION (bf16, fp16 or fp32) says it instead, on every device and for all that is left to "auto": a user
whose bfloat16 is slow or wrong has float32 by it, and tests see on any processor what one with bfloat16 would see.
"""

import os
from functools import cache

import torch

from .errors import KnotForcingError

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}
VARIABLE = "KF_PRECISION"


def fast_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 where the device computes in it, float16 on older cards, else float32; or what KF_PRECISION says.

    Raises KnotForcingError when KF_PRECISION names none of them."""
    if said := os.environ.get(VARIABLE):
        if said not in PRECISIONS:
            raise KnotForcingError(f"{VARIABLE} is {said!r}. Set it to {', '.join(PRECISIONS)}, or leave it out.")
        return PRECISIONS[said]
    device = torch.device(device)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu":
        return torch.bfloat16 if has_bf16_products() else torch.float32
    return torch.float32


def has_bf16_products() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AVX512-bf16, AMX), and oneDNN may use it (ONEDNN_MAX_CPU_ISA)."""
    return torch.cpu._is_avx512_bf16_supported() and _may_onednn()


@cache  # asked before every product, and the same while the process lasts
def _may_onednn() -> bool:
    """oneDNN refuses products in bfloat16 below AVX-512; with ONEDNN_MAX_CPU_ISA=AVX2 it does so on every processor."""
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # not in builds without oneDNN
    return asked is not None and asked()
