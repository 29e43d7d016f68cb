"""A decoder alone beside the host's VAE: one wire that encodes the portrait with the VAE and makes the frames with the decoder.

The host has no VAE whose decoder is of another width than its encoder, so its own VAE stays whole, and the decoder hangs on its patcher.
Nodes of the host (VAE Decode) see the VAE alone and decode by that.
"""

import copy
from pathlib import Path

import torch

from ...kf_core.checkpoints.decoder_only import load_alone, small_decoder_for
from ...kf_core.vae.wan import WanDecoder

KEY = "knot_forcing_decoder"


def with_decoder(vae, path: Path):
    """The host's VAE with the decoder in a file beside it; the VAE that was given stays as it is.

    Raises KnotForcingError for a decoder of other latents."""
    decoder = load_alone(path, vae.first_stage_model.state_dict(), dtype=torch.float32)
    both = copy.copy(vae)
    both.patcher = vae.patcher.clone()
    both.patcher.set_attachments(KEY, decoder)
    return both


def with_small_decoder(vae):
    """The host's VAE with kf-tiny's small decoder beside it; None where that is not there, or made for other latents."""
    path = small_decoder_for(vae.first_stage_model.state_dict())
    return None if path is None else with_decoder(vae, path)


def decoder_beside(vae) -> WanDecoder | None:
    """The decoder that makes frames for this VAE, where it is not its own; in float32, on the CPU."""
    return vae.patcher.get_attachment(KEY)
