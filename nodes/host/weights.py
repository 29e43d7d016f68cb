"""A short name for the weights behind a MODEL or CLIP of the host, so that what was made with them is known again.

Nothing is copied and nothing is loaded: 256 values of each tensor are looked at where it lies, all over it and off any regular grid. So
a change is always seen that goes through a tensor, or through a hundredth of one in a row; a few changed numbers may not be. Knows
nothing of what the weights are for.
"""

from typing import Any

import torch
from torch import Tensor

from ...kf_core.content_id import SAMPLED_VALUES, fingerprint, places


def name_of_weights(patcher) -> str:
    """A name for a patcher's weights as they were before any LoRA."""
    digest = []
    for key, tensor in sorted(patcher.model.named_parameters()):
        before = patcher.backup[key].weight if key in patcher.backup else tensor
        data = getattr(before, "_qdata", before).detach().as_subclass(Tensor).reshape(-1)  # of packed weights, the packed bytes
        chosen = torch.tensor(places(SAMPLED_VALUES, data.numel()), dtype=torch.int64, device=data.device)
        digest.append((key, str(data.dtype), tuple(tensor.shape), data[chosen].view(torch.uint8)))
    return fingerprint(digest)


def patches_of(patcher) -> tuple:
    """The LoRAs on a patcher, as values."""

    def plain(part: Any) -> Any:
        if isinstance(part, Tensor) or part is None or isinstance(part, bool | int | float | str):
            return part
        if isinstance(part, list | tuple):
            return tuple(plain(inner) for inner in part)
        if hasattr(part, "weights"):
            return (type(part).__name__, plain(part.weights))
        return repr(type(part))

    return tuple((str(key), plain(patches)) for key, patches in sorted(patcher.patches.items(), key=lambda item: str(item[0])))


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """The shape that a weight stands for: GGUF keeps it beside the packed one."""
    return tuple(getattr(tensor, "tensor_shape", tensor.shape))
