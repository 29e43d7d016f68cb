"""A VACE module's file becomes the module, for a backbone of its own size."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from kf_core.checkpoints.known_models import livetalk, self_forcing
from kf_core.checkpoints.vace import load_vace, vace_of
from kf_core.errors import KnotForcingError
from kf_core.models.vace import Vace

from ..tiny import CARD


def module() -> Vace:
    torch.manual_seed(0)
    return Vace(dim=CARD.dim, ffn_dim=CARD.ffn_dim, heads=CARD.heads, blocks=2)


def saved(tensors, path):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


@pytest.mark.parametrize("prefix, beside", [("", {}), ("model.diffusion_model.", {"blocks.0.norm3.weight": torch.zeros(3)})])
def test_a_module_alone_or_in_a_whole_model_is_read(prefix, beside, tmp_path):
    ours = module()
    tensors = {prefix + name: tensor for name, tensor in {**ours.state_dict(), **beside}.items()}
    loaded = load_vace(saved(tensors, tmp_path / "Wan2_1-VACE_module.safetensors"), CARD, dtype=torch.float32)
    assert loaded.injection_layers(3) == (0, 1)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("card", [self_forcing(), livetalk()])
def test_the_published_module_fits_the_published_backbones(card):
    """By the names and sizes of Wan2_1-VACE_module_1_3B_bf16.safetensors, on the meta device."""
    with torch.device("meta"):
        published = Vace(dim=1536, ffn_dim=8960, heads=12, blocks=15).state_dict()
        ours = vace_of(None, {name: tuple(tensor.shape) for name, tensor in published.items()}, card.heads)
    assert ours.injection_layers(card.layers) == tuple(range(0, 30, 2)) and ours.state_dict().keys() == published.keys()


def test_what_does_not_fit_is_said_in_words(tmp_path):
    path = saved(module().state_dict(), tmp_path / "vace.safetensors")
    with pytest.raises(KnotForcingError, match="48 wide with 2 blocks, and wide is 96 wide"):
        load_vace(path, replace(CARD, name="wide", dim=96))
    with pytest.raises(KnotForcingError, match="other.safetensors is no VACE module"):
        load_vace(saved({"conv.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors"), CARD)
    cut = {name: tensor for name, tensor in module().state_dict().items() if name != "vace_blocks.1.after_proj.bias"}
    with pytest.raises(KnotForcingError, match="1 missing.*vace_blocks.1.after_proj.bias"):
        load_vace(saved(cut, tmp_path / "cut.safetensors"), CARD)
