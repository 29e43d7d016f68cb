"""ComfyUI's module tree satisfies WanModules: the causal forward gives the same on it as on ours."""

import pytest
import torch

from kf_core.models.causal import Generator
from kf_core.models.wan import WanModel
from kf_core.sampling.rollout import rollout

from ...host.place import enter_host
from ..tiny import CARD, Waves, noise, portrait
from .test_causal import segment


def host_modules():
    """ComfyUI's WanModel class and its plain layers."""
    enter_host("comfy.ldm.wan.model", "comfy.ops")
    import comfy.ldm.wan.model as wan
    import comfy.ops

    return wan.WanModel, comfy.ops.disable_weight_init


@pytest.mark.reference
def test_a_hosts_module_tree_serves_as_well_as_ours():
    host_model, layers = host_modules()
    torch.manual_seed(0)
    ours = WanModel(CARD)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, 0.5 if parameter.dim() == 1 else 0.0, 0.15)
    theirs = host_model(
        model_type="t2v",
        in_dim=CARD.in_channels,
        dim=CARD.dim,
        ffn_dim=CARD.ffn_dim,
        freq_dim=CARD.freq_dim,
        text_dim=CARD.text.width,
        out_dim=16,
        num_heads=CARD.heads,
        num_layers=CARD.layers,
        operations=layers,
        device="cpu",
        dtype=torch.float32,
    )
    theirs.load_state_dict(ours.state_dict(), strict=True)
    models = [Generator(CARD, tree) for tree in (ours, theirs)]
    with torch.no_grad():
        flows = [m.forward([segment(3, 4, driving=None)], m.encode_text(None))[0] for m in models]
    torch.testing.assert_close(flows[1], flows[0], rtol=1e-5, atol=1e-5)
    drawn = [next(rollout(m, portrait(torch.float32), Waves(), CARD.rollout, noise())).clean for m in models]
    torch.testing.assert_close(drawn[1], drawn[0], rtol=1e-4, atol=1e-4)
