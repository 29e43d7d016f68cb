"""The weights of an opened checkpoint, made whole one at a time: scaled where they are fp8, corrected where there is a LoRA.

So a model of this pack computes in bf16 or float32; a host that computes in fp8 takes its weights as they lie in the file (`as_stored`).
"""

import torch
from torch import Tensor

from ..models.shapes import shapes_of
from .checkpoint import Checkpoint
from .key_maps import wan_name


def whole(opened: Checkpoint, name: str, dtype: torch.dtype) -> Tensor:
    """One of Wan's tensors, in memory of its own."""
    file, parts = opened.file, opened.parts[name]
    tensor = file.read(parts.stored)
    corrections = [(file, parts.lora)] if parts.lora else []
    if opened.lora is not None and name in opened.lora.parts:
        corrections.append((opened.lora.file, opened.lora.parts[name].lora))
    if not parts.scale and not corrections:
        return tensor.to(dtype, copy=file.is_mapped(parts.stored))
    tensor = tensor.to(torch.promote_types(dtype, torch.float32), copy=True)
    if parts.scale:
        tensor *= _broadcast(file.read(parts.scale), tensor)
    for source, lora in corrections:
        down, up = (source.read(side).to(tensor.dtype) for side in (lora.down, lora.up))
        rank = down.shape[0]
        unused_fields = _alpha(opened, rank) if source is opened.file else rank  # what is known of a model holds for its own corrections
        alpha = source.read(lora.alpha).item() if lora.alpha else unused_fields
        tensor += alpha / rank * (up @ down)
    return tensor.to(dtype)


def as_stored(opened: Checkpoint) -> dict[str, Tensor]:
    """All tensors under Wan's names, mapped and as they lie in the file (fp8 with its scales), for a host's own loader.

    With a LoRA the corrected weights are made whole, in bf16. Raises KnotForcingError when it does not fit."""
    if opened.has_lora:
        opened.refuse_misfit(shapes_of(opened.card))
    beside = {} if opened.lora is None else opened.lora.parts
    prefix, found = f"{opened.entry}." if opened.entry else "", {}

    def plain(stored):
        return wan_name(stored.removeprefix(prefix)).replace(".base_layer.", ".")

    for stored, tensor in opened.file.mapped().items():
        if stored.startswith(prefix):
            found[plain(stored)] = tensor
    for name, parts in opened.parts.items():
        if parts.lora is not None or name in beside:
            for part in filter(None, (parts.stored, parts.scale, *vars(parts.lora or beside[name].lora).values())):
                found.pop(plain(part), None)
            found[name] = whole(opened, name, torch.bfloat16)
    return found


def _alpha(opened: Checkpoint, rank: int) -> float:
    row = opened.recognised.row
    return rank if row is None or row.lora_alpha is None else row.lora_alpha


def _broadcast(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.to(weight.dtype).reshape(-1, *(1,) * (weight.dim() - 1)) if scale.numel() > 1 else scale.to(weight.dtype).reshape(())
