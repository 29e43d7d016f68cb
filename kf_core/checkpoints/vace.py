"""A file of a VACE module becomes the module: `Wan2_1-VACE_module_1_3B_bf16.safetensors`, or a whole VACE model that holds one.

Its sizes are told by its shapes; whether it fits a backbone, by the backbone's card.
"""

from pathlib import Path

import torch
from torch import nn

from ..errors import KnotForcingError
from ..models.card import ModelCard
from ..models.shapes import CONTEXT_CHANNELS
from ..models.vace import Vace
from ..precision import fast_dtype
from .lazy_tensors import StoredTensors, read_beside
from .load import fill
from .signatures import VACE_KEY

HEAD_DIM = 128  # of every published Wan model; nothing in the tensors tells it
GET = "Use Wan2_1-VACE_module_1_3B_bf16.safetensors."


def load_vace(
    path: Path | str, card: ModelCard, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu", layers=nn
) -> Vace:
    """The module in a file, for the backbone of `card`. Raises KnotForcingError."""
    path = Path(path)
    tensors = module_tensors(path)
    shapes = tensors.shapes
    with torch.device("meta"):
        vace = vace_of(path, shapes, card.heads, layers)
    refuse_other_size(path.name, vace, card)
    fill(path, {"VACE module": vace}, tensors, shapes, dtype or fast_dtype(device))
    return vace.eval().requires_grad_(False).to(device)


def module_tensors(path: Path) -> StoredTensors:
    """The module's tensors in a file; of a whole VACE model, its backbone is left aside."""
    return read_beside(path).where(lambda name: name.startswith("vace_"))


def vace_of(path: Path, shapes: dict[str, tuple[int, ...]], heads: int | None = None, layers=nn) -> Vace:
    """The empty module that these tensors would fill; None: heads as wide as every Wan's. Raises KnotForcingError where it is none."""
    patches, ffn = shapes.get(VACE_KEY, ()), shapes.get("vace_blocks.0.ffn.0.weight", ())
    if len(patches) != 5 or len(ffn) != 2 or patches[1] != CONTEXT_CHANNELS:
        raise KnotForcingError(f"{path.name} is no VACE module: it has no `{VACE_KEY}` for {CONTEXT_CHANNELS} channels. {GET}")
    blocks = len({name.split(".")[1] for name in shapes if name.startswith("vace_blocks.")})
    return Vace(dim=patches[0], ffn_dim=ffn[0], heads=heads or max(1, patches[0] // HEAD_DIM), blocks=blocks, layers=layers)


def refuse_other_size(name: str, vace: Vace, card: ModelCard) -> None:
    """Raises KnotForcingError unless the module is of the backbone's size."""
    width, blocks = vace.vace_patch_embedding.weight.shape[0], len(vace.vace_blocks)
    if width != card.dim or blocks > card.layers:
        raise KnotForcingError(
            f"{name} is a VACE module {width} wide with {blocks} blocks, and {card.name} is {card.dim} wide with {card.layers} layers. "
            f"They must be of one size: the 1.3B module for 1.3B models."
        )
