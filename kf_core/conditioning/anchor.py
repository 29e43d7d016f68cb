"""The anchor: the portrait as one latent, which the generator keeps in view for ever.

Source: Knot Forcing, arXiv 2512.21734: the reference image is encoded *alone*; a latent from within a clip would mix time.
"""

from dataclasses import dataclass

from torch import Tensor

from ..content_id import frozen_names


@frozen_names("portrait", latent="latent")
@dataclass(frozen=True, eq=False)
class Anchor:
    """The portrait in model space."""

    latent: Tensor  # [b, c, 1, h, w]
