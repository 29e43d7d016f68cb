"""A VACE module in the host: its own patcher beside the MODEL's, so that loading and offloading are the host's business.

What the module does is `kf_core/models/vace.py`'s. Its file is read once, when the node runs; nothing is kept here.
"""

from dataclasses import dataclass

import comfy.model_management as management
import comfy.model_patcher
import comfy.ops
import torch

from ...kf_core.checkpoints.load import fill
from ...kf_core.checkpoints.signatures import VACE_KEY
from ...kf_core.checkpoints.vace import module_tensors, refuse_other_size, vace_of
from ...kf_core.models.card import ModelCard
from ...kf_core.models.vace import Vace
from ..wires import Driver
from .folders import vace_path


@dataclass(frozen=True, eq=False)
class VaceModule:
    """A module and the name of its file."""

    name: str
    patcher: comfy.model_patcher.ModelPatcher

    @property
    def network(self) -> Vace:
        return self.patcher.model


def require_vace(card: ModelCard, driver: Driver) -> None:
    """Raises KnotForcingError when the connected VACE module is of another size than the model."""
    if driver.vace is not None:
        refuse_other_size(driver.vace.name, driver.vace.network, card)


def load_vace(name: str) -> VaceModule:
    """A file's module, its weights as they lie in the file. Raises KnotForcingError."""
    path = vace_path(name)
    tensors = module_tensors(path)
    shapes = tensors.shapes
    with torch.device("meta"):
        vace = vace_of(path, shapes, layers=comfy.ops.manual_cast)
    fill(path, {"VACE module": vace}, tensors, shapes, tensors[VACE_KEY].dtype)
    device, offload = management.get_torch_device(), management.unet_offload_device()
    vace.eval().requires_grad_(False)
    return VaceModule(path.name, comfy.model_patcher.ModelPatcher(vace, load_device=device, offload_device=offload))
