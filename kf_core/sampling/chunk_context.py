"""What the passes of one chunk have in common, and how its frames are shown to the network.

Knows no loop: `rollout.py` says when which pass is run.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..conditioning.anchor import Anchor
from ..models.causal import Generator, Segment
from ..models.image_channels import with_image_channels
from ..models.kv_cache import KVView
from ..settings import RolloutSettings
from ..timeline import LatentSpan
from ..types import ChunkConditioning


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkContext:
    """The frames of `span`, what drives them, and what they may see of the past."""

    model: Generator
    anchor: Anchor
    settings: RolloutSettings
    span: LatentSpan
    driving: ChunkConditioning
    knot: Tensor | None  # [b, c, k, h, w] that the last chunk left; None: none, or not shown
    past: KVView | None

    def segment(self, latents: Tensor, t: float) -> Segment:
        """Latents [b, c, f, h, w] at time `t` as the network sees them, image and mask channels filled."""
        known = torch.zeros(self.span.length, dtype=torch.bool, device=latents.device)
        shows_portrait = self.model.card.image_channels == "portrait"
        image = self.anchor.latent.expand_as(latents) if shows_portrait else torch.zeros_like(latents)
        if self.settings.first_frame == "pin" and self.span.start == 0:
            known[0] = True
        if self.knot is not None and self.settings.knot in ("inpaint", "pin"):
            known[: self.knot.shape[2]] = True
            image = torch.cat((self.knot.to(image), image[:, :, self.knot.shape[2] :]), dim=2)
        return Segment(
            latents=with_image_channels(latents, image, known, self.model.card.in_channels),
            positions=torch.arange(self.span.start, self.span.stop, dtype=torch.float64),
            t=torch.full((self.span.length,), t, dtype=torch.float64),
            driving=self.driving,
            reads=self.past,
        )

    def pin_portrait(self, latents: Tensor) -> Tensor:
        """Frame 0 is the portrait itself, for models that were trained so (LiveTalk)."""
        if self.settings.first_frame != "pin" or self.span.start > 0:
            return latents
        return torch.cat((self.anchor.latent.to(latents), latents[:, :, 1:]), dim=2)


def anchor_segment(model: Generator, anchor: Anchor) -> Segment:
    """The portrait alone: it attends only to itself, nothing drives it, and its position does not matter yet."""
    known = torch.ones(1, dtype=torch.bool, device=anchor.latent.device)
    zero = torch.zeros(1, dtype=torch.float64)
    return Segment(latents=with_image_channels(anchor.latent, anchor.latent, known, model.card.in_channels), positions=zero, t=zero)
