"""How numbers that the host makes reach a device: without the host waiting for it.

A plain `.to("cuda")` waits until all that was asked of the card before is done, and the card then waits for the host to think of more.
Out of pinned memory the copy takes its turn on the card, and the host goes on.
"""

import torch
from torch import Tensor

# Elsewhere the copy is waited for. Apple reads ordinary memory later, when it may be another's: github.com/pytorch/pytorch/issues/189690.
GOES_ON = ("cuda", "meta")  # the latter copies nothing; on it tests see that nobody waits


def to_device(tensor: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """The tensor there, in that type. The host does not wait for a GPU to take it, so what was asked of it before may still be running."""
    tensor, device = tensor.to(dtype), torch.device(device)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type in GOES_ON)
