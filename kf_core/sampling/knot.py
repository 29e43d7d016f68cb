"""The temporal knot: each chunk denoises a little more than it outputs, and the next chunk starts on it.

The handed-over frames must be *predicted again*, or there is nothing to average. How they enter depends on what the model was trained on:

- `inpaint`: image channels hold the knot and the mask says known; the noisy latent stays ordinary noise and is denoised again.
- `blend`: at every step the noisy latent is the knot, noised to the chunk's sigma (plain 16-channel students).
- `pin`: the latent is the clean knot at every step, and the result is replaced by it (models that only saw a pinned known frame).

Source: Knot Forcing, arXiv 2512.21734, Eq. 5: weight 1/2, once, after the last step.
"""

import torch
from torch import Tensor

from ..settings import KnotForm


def inject_knot(noisy: Tensor, knot: Tensor | None, form: KnotForm | None, sigma: float, noise: Tensor) -> Tensor:
    """`noisy` [b, c, f, h, w] with the knot let in at its first frames, as the form says."""
    if knot is None or form in (None, "inpaint"):
        return noisy
    k = knot.shape[2]
    first = knot if form == "pin" else (1 - sigma) * knot + sigma * noise[:, :, :k]
    return torch.cat((first.to(noisy), noisy[:, :, k:]), dim=2)


def fuse_knot(clean: Tensor, knot: Tensor | None, form: KnotForm | None, fuse: bool) -> Tensor:
    """The finished frames with their beginning tied to the knot: averaged, replaced (`pin`), or left as they are."""
    if knot is None or (form != "pin" and not fuse):
        return clean
    k = knot.shape[2]
    first = knot if form == "pin" else (knot + clean[:, :, :k]) / 2
    return torch.cat((first.to(clean), clean[:, :, k:]), dim=2)
