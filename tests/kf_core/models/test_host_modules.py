"""ComfyUI's module tree satisfies WanModules: both forwards give the same on it as on ours."""

import pytest
import torch

from kf_core.models.causal import Generator
from kf_core.models.optimized_forward import OptimizedGenerator
from kf_core.models.wan import WanModel
from kf_core.sampling.rollout import rollout
from kf_core.types import LatentChunk

from ...host.place import enter_host
from ..tiny import CARD, Waves, noise, portrait
from .test_causal import segment

CHUNKS = 4  # compared: more than fill the window


def host_tree(layers: str, dtype: torch.dtype = torch.float32):
    """ComfyUI's WanModel with the layers of this name out of `comfy.ops`."""
    enter_host("comfy.ldm.wan.model", "comfy.ops")
    import comfy.ldm.wan.model as wan
    import comfy.ops

    return wan.WanModel(
        model_type="t2v",
        in_dim=CARD.in_channels,
        dim=CARD.dim,
        ffn_dim=CARD.ffn_dim,
        freq_dim=CARD.freq_dim,
        text_dim=CARD.text.width,
        out_dim=16,
        num_heads=CARD.heads,
        num_layers=CARD.layers,
        operations=getattr(comfy.ops, layers),
        device="cpu",
        dtype=dtype,
    )


def filled_model() -> WanModel:
    torch.manual_seed(0)
    ours = WanModel(CARD)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, 0.5 if parameter.dim() == 1 else 0.0, 0.15)
    return ours


def latents_of(model) -> torch.Tensor:
    made = []
    for item in rollout(model, portrait(torch.float32), Waves(), CARD.rollout, noise()):
        made += [item.latents] if isinstance(item, LatentChunk) else []
        if len(made) == CHUNKS:
            return torch.cat(made, dim=2)


@pytest.mark.reference
def test_a_hosts_module_tree_serves_as_well_as_ours():
    ours, theirs = filled_model(), host_tree("disable_weight_init")
    theirs.load_state_dict(ours.state_dict(), strict=True)
    models = [Generator(CARD, tree) for tree in (ours, theirs)]
    with torch.no_grad():
        flows = [m.forward([segment(3, 4, driving=None)], m.encode_text(None))[0] for m in models]
    torch.testing.assert_close(flows[1], flows[0], rtol=1e-5, atol=1e-5)
    drawn = [next(rollout(m, portrait(torch.float32), Waves(), CARD.rollout, noise())).clean for m in models]
    torch.testing.assert_close(drawn[1], drawn[0], rtol=1e-4, atol=1e-4)


@pytest.mark.reference
@pytest.mark.parametrize("layers", ["disable_weight_init", "manual_cast"])
def test_the_optimized_forward_over_a_hosts_modules_gives_what_the_plain_one_gives(layers):
    """Weights kept in half precision are cast when they are called; weights that change between streams are seen by the next stream."""
    kept = torch.float16 if layers == "manual_cast" else torch.float32
    theirs = host_tree(layers, kept)
    theirs.load_state_dict(filled_model().state_dict(), strict=True)
    plain, optimized = Generator(CARD, theirs), OptimizedGenerator(CARD, theirs)
    before = latents_of(plain)
    assert relative_error(latents_of(optimized), before) < 1e-5
    with torch.no_grad():  # as the host patches a LoRA in: other tensors in the same modules
        for block in theirs.blocks:
            block.self_attn.q.weight = torch.nn.Parameter(block.self_attn.q.weight * 1.5)
            block.modulation.mul_(0.5)
    after = latents_of(plain)
    assert relative_error(latents_of(optimized), after) < 1e-5 and relative_error(after, before) > 1e-3


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())
