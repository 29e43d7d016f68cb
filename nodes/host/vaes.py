"""The host's VAE as kf_core's encoder and decoder: Wan 2.1's at any width, a tiny decoder, or kf-tiny's small one beside its own."""

import copy
from pathlib import Path

import comfy.ldm.wan.vae
import comfy.sd
import comfy.taesd.taehv
import comfy.utils
import torch
from torch import Tensor

from ...kf_core.checkpoints.decoder_only import is_alone, small_decoder_file
from ...kf_core.checkpoints.load import bundled
from ...kf_core.checkpoints.signatures import space_of
from ...kf_core.checkpoints.vaes import tiny_vae, wans_names
from ...kf_core.conditioning.anchor import Anchor
from ...kf_core.errors import KnotForcingError
from ...kf_core.planning.memory import DecoderKind
from ...kf_core.planning.presets import TINY
from ...kf_core.vae.latents import Space
from ...kf_core.vae.streaming import VideoDecoder, prepare
from ...kf_core.vae.taehv import TinyDecoder
from ...kf_core.vae.wan import WanVAE, to_model_space
from .folders import BUNDLED, BUNDLED_SMALL, vae_path
from .small_decoder import decoder_beside, with_decoder

BUNDLED_FILE = "kf-tiny-vae.safetensors"


def load_vae(name: str):
    """A VAE's file, or a tiny decoder's, as the host's VAE; a decoder alone beside kf-tiny's. Raises KnotForcingError."""
    if name == BUNDLED_SMALL:
        return with_decoder(load_vae(BUNDLED), small_decoder_file())
    path = bundled(BUNDLED_FILE) if name == BUNDLED else vae_path(name)
    weights, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
    wans = wans_names(weights)
    if is_alone(wans.values()):
        return with_decoder(load_vae(BUNDLED), path)
    vae = comfy.sd.VAE(sd={wans[key]: tensor for key, tensor in weights.items()}, metadata=metadata)
    vae.throw_exception_if_invalid()
    vae.patcher.cached_patcher_init = (comfy.sd.load_vae_patcher, (str(path), metadata, None))  # as the host's own loader sets it
    refuse_undecodable(vae)
    return vae


def is_kf_tinys(vae_name: str, vae) -> bool:
    """Whether a VAE was chosen that makes frames of kf-tiny's latents only."""
    return vae_name == BUNDLED or decoder_beside(vae) is not None


def refuse_undecodable(vae) -> None:
    """Raises KnotForcingError unless the VAE makes frames of Wan 2.1's latents."""
    if _is_tiny(vae):
        _space(vae)
    else:
        refuse_other_vae(vae)


def refuse_other_vae(vae) -> None:
    """Raises KnotForcingError unless the VAE is Wan 2.1's, at any width, with its encoder."""
    network = vae.first_stage_model
    if _is_tiny(vae):
        raise KnotForcingError(
            "The connected VAE is a tiny decoder: it makes frames in Streaming Decode, but cannot encode the portrait. "
            "Load wan_2.1_vae.safetensors with Load VAE and connect that one here."
        )
    if not isinstance(network, comfy.ldm.wan.vae.WanVAE) or vae.latent_channels != 16:
        raise KnotForcingError(
            f"The connected VAE is a {type(network).__name__} of {vae.latent_channels} channels, and the generator makes Wan 2.1 latents "
            f"of 16. Connect the VAE of Load KF Model, or load wan_2.1_vae.safetensors."
        )


def decoder_kind(vae) -> DecoderKind:
    """What makes the frames, as its memory is computed."""
    if _is_tiny(vae):
        return TINY
    beside = decoder_beside(vae)
    return DecoderKind(dim=_width(vae.first_stage_model.state_dict())) if beside is None else DecoderKind.of(beside)


def encode_portrait(vae, prepared: Tensor) -> Anchor:
    """A prepared portrait [1, 3, 1, h, w] as anchor, through the host's VAE."""
    refuse_other_vae(vae)
    raw = vae.encode(prepared[0, :, 0].movedim(0, -1)[None])
    return Anchor(to_model_space(raw.float().cpu().reshape(1, 16, 1, *raw.shape[-2:])))


def decoder_of(vae, dtype: torch.dtype, device: torch.device, at_once: int | None) -> VideoDecoder:
    """kf_core's decoder with the weights of the host's VAE: it keeps its past outside itself, so streams do not disturb each other.

    Where another decoder hangs beside the VAE, that one."""
    weights = vae.first_stage_model.state_dict()
    if _is_tiny(vae):
        return TinyDecoder(tiny_vae(Path("the VAE"), weights, _space(vae), dtype, device), at_once)
    if (beside := decoder_beside(vae)) is not None:
        return VideoDecoder(prepare(copy.deepcopy(beside), dtype, device), at_once)
    return VideoDecoder(wan_vae(vae, dtype, device), at_once)


def wan_vae(vae, dtype: torch.dtype, device: torch.device) -> WanVAE:
    weights = vae.first_stage_model.state_dict()
    with torch.device("meta"):
        ours = WanVAE(dim=_width(weights))
    ours.load_state_dict({key: weights[key].to(device=device, dtype=dtype) for key in ours.state_dict()}, strict=True, assign=True)
    return prepare(ours.eval().requires_grad_(False), dtype, device)


def _is_tiny(vae) -> bool:
    return isinstance(vae.first_stage_model, comfy.taesd.taehv.TAEHV) and vae.latent_channels == 16


def _space(vae) -> Space:
    """Which latents a tiny decoder wants. The host says float16 files from others by the scaling it gives them (a wrong one for Wan)."""
    _, known_file = getattr(vae.patcher, "cached_patcher_init", None) or (None, ("",))
    was_half = vae.first_stage_model.latent_format is not None
    return space_of(Path(known_file[0] or "").name, is_half=was_half)


def _width(weights: dict[str, Tensor]) -> int:
    return weights["decoder.head.0.gamma"].shape[0]
