"""A file of a VACE module becomes the module: `Wan2_1-VACE_module_1_3B_bf16.safetensors`, or a whole VACE model that holds one.

Its sizes are told by its shapes; whether it fits a backbone, by the backbone's card.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import KnotForcingError
from ..model.card import ModelCard
from ..model.vace import CONTEXT_CHANNELS, Vace
from .key_maps import unpacked, wan_name
from .load import fast_dtype, fill
from .read import read_tensors

MARK = "vace_patch_embedding.weight"
GET = "Use Wan2_1-VACE_module_1_3B_bf16.safetensors."


def load_vace(
    path: Path | str, card: ModelCard, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu", layers=nn
) -> Vace:
    """The module in a file, for the backbone of `card`. Raises KnotForcingError."""
    path = Path(path)
    tensors = {wan_name(name): tensor for name, tensor in unpacked(read_tensors(path)[0]).items() if isinstance(tensor, Tensor)}
    tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("vace_")}  # a whole model has a backbone beside it
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    with torch.device("meta"):
        vace = vace_of(path, shapes, card, layers)
    fill(path, {"VACE module": vace}, tensors, shapes, dtype or fast_dtype(device))
    return vace.eval().requires_grad_(False).to(device)


def vace_of(path: Path, shapes: dict[str, tuple[int, ...]], card: ModelCard, layers=nn) -> Vace:
    """The empty module that these tensors would fill. Raises KnotForcingError where it is none, or of another size than the backbone."""
    patches, ffn = shapes.get(MARK, ()), shapes.get("vace_blocks.0.ffn.0.weight", ())
    if len(patches) != 5 or len(ffn) != 2 or patches[1] != CONTEXT_CHANNELS:
        raise KnotForcingError(f"{path.name} is no VACE module: it has no `{MARK}` for {CONTEXT_CHANNELS} channels. {GET}")
    blocks = len({name.split(".")[1] for name in shapes if name.startswith("vace_blocks.")})
    if patches[0] != card.dim or ffn[0] != card.ffn_dim or not 0 < blocks <= card.layers:
        raise KnotForcingError(
            f"{path.name} is a VACE module {patches[0]} wide with {blocks} blocks, and {card.name} is {card.dim} wide with {card.layers} "
            f"layers. They must be of one size: the 1.3B module for 1.3B models."
        )
    return Vace(dim=card.dim, ffn_dim=card.ffn_dim, heads=card.heads, blocks=blocks, backbone_layers=card.layers, layers=layers)
