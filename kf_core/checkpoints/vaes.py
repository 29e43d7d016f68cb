"""A file of a VAE becomes the network that was saved: Wan's own in its three layouts, and the decoders that have no encoder.

Which one a file holds is told by its names, its widths by their shapes. Only the space of a tiny decoder's latents cannot be seen in
them; see `marks.py`.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import KnotForcingError
from ..precision import fast_dtype
from ..vae.latents import Z_DIM, Space
from ..vae.streaming import VideoDecoder, prepare
from ..vae.taehv import TinyDecoder, TinyVAE
from ..vae.wan import WanVAE
from .decoder_only import is_alone, load_alone
from .lazy_tensors import StoredTensors, read_beside
from .load import bundled, fill
from .signatures import DIFFUSERS_KEY, ENCODER_KEY, LEVELS, TINY_KEY, WAN_KEY, space_of
from .vae_names import diffusers_name

LEVELS_IN_TIME = tuple(f"decoder.{place}.conv.weight" for place in (7, 13, 19))


def load_vae(path: Path | str | None = None, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> WanVAE:
    """A Wan VAE, encoder and decoder, in Wan's own, ComfyUI's or diffusers' names; None: kf-tiny's. Raises KnotForcingError."""
    path = Path(path) if path else bundled("kf-tiny-vae.safetensors")
    tensors = read_beside(path)
    if TINY_KEY in tensors:
        raise KnotForcingError(
            f"{path.name} is a tiny decoder: it cannot encode the portrait. "
            f"Give wan_2.1_vae.safetensors as the VAE, and this one by --decoder."
        )
    if is_alone(tensors):
        raise KnotForcingError(
            f"{path.name} is a decoder alone: it cannot encode the portrait. "
            f"Give the VAE that it belongs to by --vae, and this one by --decoder."
        )
    return _wan_vae(path, tensors, dtype or fast_dtype(device), device)


def load_decoder(
    path: Path | str, *, beside: WanVAE | None = None, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> VideoDecoder:
    """Whatever turns latents into frames: a Wan VAE, a tiny decoder, or a decoder alone (kf-tiny's small one).

    `beside`: the VAE whose latents they are; a decoder alone is loaded for those only. Raises KnotForcingError."""
    path = Path(path)
    tensors, dtype = read_beside(path), dtype or fast_dtype(device)
    if is_alone(tensors):
        if beside is None:
            raise KnotForcingError(f"{path.name} is a decoder alone. Say by --vae whose latents it is to make frames of.")
        return VideoDecoder(load_alone(path, beside.state_dict(), dtype=dtype, device=device))
    if TINY_KEY not in tensors:
        return VideoDecoder(_wan_vae(path, tensors, dtype, device))
    space = space_of(path.name, is_half=LEVELS[0] in tensors and tensors.facts[LEVELS[0]].dtype == "F16")
    return TinyDecoder(tiny_vae(path, tensors, space, dtype, device))


def tiny_vae(path: Path, tensors: Mapping[str, Tensor], space: Space, dtype: torch.dtype, device: torch.device | str) -> TinyVAE:
    """The tiny decoder of these tensors; their encoder is left aside. `path` is only named in errors."""
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("encoder.")}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    channels = shapes[LEVELS[0]][1] if LEVELS[0] in shapes else 0
    if channels != Z_DIM or not all(level in shapes for level in LEVELS):
        raise KnotForcingError(
            f"{path.name} is a tiny decoder of another model ({channels or 'unknown'} channels; Wan 2.1 has {Z_DIM}). "
            f"Use taew2_1.safetensors or lighttaew2_1.safetensors."
        )
    with torch.device("meta"):
        tiny = TinyVAE(space, widths=tuple(shapes[level][0] for level in LEVELS))
    for name in LEVELS_IN_TIME:  # where a file can make more frames of one, the last of them count, as in its authors' loader
        wanted = tiny.state_dict()[name].shape[0]
        if name in tensors and shapes[name][0] > wanted:
            tensors[name], shapes[name] = tensors[name][-wanted:], (wanted, *shapes[name][1:])
    fill(path, {"tiny decoder": tiny}, tensors, shapes, dtype)
    return tiny.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)


def wans_names(names: Collection[str]) -> dict[str, str]:
    """A VAE's names -> Wan's, where they are diffusers'; else themselves."""
    if DIFFUSERS_KEY not in names:
        return {name: name for name in names}
    with torch.device("meta"):
        named = {diffusers_name(name): name for name in WanVAE(dim=1).state_dict()}
    return {name: named.get(name, name) for name in names}


def _wan_vae(path: Path, tensors: StoredTensors, dtype: torch.dtype, device: torch.device | str) -> WanVAE:
    tensors = tensors.renamed(wans_names(tensors).__getitem__)
    shapes = tensors.shapes
    if WAN_KEY not in shapes or ENCODER_KEY not in shapes:
        raise KnotForcingError(f"{path.name} is not a Wan VAE: it has no `{WAN_KEY}`. Use kf-tiny's, or wan_2.1_vae.safetensors.")
    channels = shapes.get("conv2.weight", (Z_DIM,))[0]
    if channels != Z_DIM:
        raise KnotForcingError(f"{path.name} has latents of {channels} channels, Wan 2.1's have {Z_DIM}. Use wan_2.1_vae.safetensors.")
    with torch.device("meta"):
        vae = WanVAE(dim=shapes[WAN_KEY][0])
    fill(path, {"VAE": vae}, tensors, shapes, dtype)
    return prepare(vae.eval().requires_grad_(False), dtype, device)
