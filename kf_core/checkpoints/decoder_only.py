"""A decoder alone: faster than a VAE's own, on the same latents. It is refused beside a VAE that makes others.

    whole VAE   frames --encoder, conv1--> latents --conv2, decoder--> frames
    alone                                    latents --conv2, decoder--> frames    of another width

Latents are named after what makes them: encoder and `conv1`, which holds their statistics. A VAE whose own decoder was trained on keeps
that name, so what was made for its latents still belongs to it.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..content_id import fingerprint
from ..errors import KnotForcingError
from ..vae.streaming import prepare
from ..vae.wan import WanDecoder
from .decoder_card import DecoderCard
from .lazy_tensors import read_beside
from .load import bundled, fill
from .signatures import ENCODER_KEY, WAN_KEY

SMALL_FILE, VAE_FILE = "kf-tiny-decoder-small.safetensors", "kf-tiny-vae.safetensors"
MAKES_LATENTS = ("encoder.", "conv1.")


def encoder_name(vae: Mapping[str, Tensor]) -> str:
    """A name for the latents that a VAE of these weights (Wan's names) makes: 32 hexadecimal digits.

    Taken in bfloat16, so that a VAE whose file holds float16 has one name in whatever precision it is held."""
    return fingerprint({name: vae[name].bfloat16() for name in vae if name.startswith(MAKES_LATENTS)})


def is_alone(names: Collection[str]) -> bool:
    """Whether tensors of these names (Wan's) are a decoder without an encoder."""
    return WAN_KEY in names and ENCODER_KEY not in names


def load_alone(path: Path, vae: Mapping[str, Tensor], *, dtype: torch.dtype, device: torch.device | str = "cpu") -> WanDecoder:
    """The decoder in a file, for the latents of a VAE of these weights (Wan's names).

    Raises KnotForcingError for a damaged file, and for a decoder of other latents."""
    tensors = read_beside(path)
    refuse_other_latents(path.name, DecoderCard.of(tensors.metadata), vae)
    with torch.device("meta"):
        decoder = WanDecoder(dim=tensors.shapes[WAN_KEY][0])
    fill(path, {"decoder": decoder}, tensors, tensors.shapes, dtype)
    return prepare(decoder.eval().requires_grad_(False), dtype, device)


def refuse_other_latents(file_name: str, card: DecoderCard | None, vae: Mapping[str, Tensor]) -> None:
    """Raises KnotForcingError unless the decoder of this card was made for the latents of a VAE of these weights."""
    if card is None or not card.encoder:
        raise KnotForcingError(
            f"{file_name} is a decoder alone and does not say for which VAE's latents it was made. "
            f"Write it anew from its checkpoint (python -m lab small-decoder), or leave it out."
        )
    if card.encoder != encoder_name(vae):
        raise KnotForcingError(
            f"{file_name} was made for the latents of another VAE: of these it would make wrong frames. "
            f"Use it with the VAE that it belongs to, or leave it out and let the VAE make the frames."
        )


def small_decoder_file() -> Path:
    """kf-tiny's decoder of half the width. Raises KnotForcingError where the pack comes without it."""
    path = _small_path()
    if not path.exists():
        raise KnotForcingError(
            f"This pack comes without kf-tiny's small decoder, {SMALL_FILE}. Let the VAE make the frames, or train the decoder: "
            f"python -m lab small-decoder."
        )
    return path


def small_decoder_for(vae: Mapping[str, Tensor]) -> Path | None:
    """kf-tiny's small decoder, where it is there and was made for the latents of a VAE of these weights."""
    path = _small_path()
    card = DecoderCard.of(read_beside(path).metadata) if path.exists() else None
    return path if card is not None and card.encoder == encoder_name(vae) else None


def _small_path() -> Path:
    return bundled(VAE_FILE).parent / SMALL_FILE
