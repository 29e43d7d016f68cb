"""What the file of a decoder alone says of itself in its header: whose latents it is for, and what it reached. Takes no PyTorch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import KnotForcingError

ALONE_KEY = "kf_tiny_decoder"  # the entry of the header


@dataclass(frozen=True, kw_only=True)
class DecoderCard:
    """Decibels are on held-out clips, behind the encoder of the VAE that it is for."""

    encoder: str  # the name of what makes its latents (`alone.encoder_name`); empty: not said
    steps: int
    minutes: float
    psnr: float
    psnr_mouth: float

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> "DecoderCard | None":
        """From a file's header; None where it has no such card. Raises KnotForcingError for one that cannot be read."""
        if ALONE_KEY not in metadata:
            return None
        try:
            said = json.loads(metadata[ALONE_KEY])
            numbers = {name: float(said[name]) for name in ("minutes", "psnr", "psnr_mouth")}
            return cls(encoder=str(said.get("encoder", "")), steps=int(said["steps"]), **numbers)
        except (ValueError, TypeError, KeyError, AttributeError) as problem:
            raise KnotForcingError("What the decoder's header says cannot be read. The file is damaged; download it again.") from problem
