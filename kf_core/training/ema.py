"""The running mean of the weights, which is what is written: it follows the last steps, and is smoother than any of them.

It remembers 200 steps, or, where many more are made than a CPU makes, two of a hundred. In the first steps it remembers a tenth.
"""

import torch
from torch import nn

REMEMBERED_STEPS = 200
REMEMBERED_SHARE = 0.02  # of the steps that were made; more than the above after 10,000


def decay(step: int) -> float:
    """The share of the mean that is kept at this step, counted from 1."""
    remembered = max(REMEMBERED_STEPS, REMEMBERED_SHARE * step)
    return min(1 - 1 / remembered, (1 + step) / (10 + step))


@torch.no_grad()
def follow(mean: nn.Module, followed: nn.Module, step: int) -> None:
    """Move `mean` towards the weights of `followed`, a module of the same kind."""
    torch._foreach_lerp_(list(mean.parameters()), list(followed.parameters()), 1 - decay(step))
