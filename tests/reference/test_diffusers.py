"""A second public reference: diffusers' Wan transformer on random small weights."""

import pytest
import torch

from kf_core.chunks import TextContext
from kf_core.model.card import ModelCard, TextSpec
from kf_core.model.causal import Generator, Segment
from kf_core.model.wan import WanModel
from kf_core.schedule import warped
from kf_core.settings import RolloutSettings

from .recordings import relative_error

pytestmark = pytest.mark.reference

RENAMED = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "scale_shift_table": "modulation",
    "attn1": "self_attn",
    "attn2": "cross_attn",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "o",
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "proj_out": "head.head",
}


def ours(name: str) -> str:
    for theirs, wan in RENAMED.items():
        name = name.replace(theirs, wan)
    return "head.modulation" if name == "modulation" else name


@pytest.mark.parametrize("in_channels", [16, 36])
def test_one_pass_over_a_whole_clip_equals_diffusers(in_channels):
    transformer = pytest.importorskip("diffusers", reason="diffusers is not installed").WanTransformer3DModel
    torch.manual_seed(0)
    theirs = transformer(
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=in_channels,
        out_channels=16,
        text_dim=20,
        freq_dim=32,
        ffn_dim=64,
        num_layers=3,
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, 0.1 if parameter.dim() == 1 else 0.0, 0.2)
    card = ModelCard(
        name="diffusers",
        dim=48,
        ffn_dim=64,
        layers=3,
        heads=2,
        in_channels=in_channels,
        freq_dim=32,
        text=TextSpec(kind="umt5", width=20, tokens=7),
        rollout=RolloutSettings(schedule=warped()),
    )
    modules = WanModel(card)
    modules.load_state_dict({ours(name): tensor for name, tensor in theirs.state_dict().items()})
    latents, text = torch.randn(2, in_channels, 5, 4, 6), torch.randn(1, 7, 20)
    model = Generator(card, modules)
    with torch.no_grad():
        expected = theirs(latents, torch.tensor([625.0, 625.0]), text.expand(2, -1, -1)).sample
        segment = Segment(latents=latents, positions=torch.arange(5), t=torch.full((5,), 625.0))
        (flow,) = model.forward([segment], model.read_text(TextContext(text)))
    assert relative_error(flow, expected) < 1e-5
