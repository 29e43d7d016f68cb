"""A second public reference: diffusers' Wan transformer on random small weights."""

from dataclasses import dataclass, replace
from itertools import islice

import pytest
import torch

from kf_core.conditioning.anchor import Anchor
from kf_core.models.card import ModelCard, TextSpec
from kf_core.models.causal import Generator, Segment
from kf_core.models.wan import WanModel
from kf_core.sampling.rollout import rollout
from kf_core.schedule import warped
from kf_core.settings import RolloutSettings
from kf_core.timeline import LatentSpan
from kf_core.types import ChunkConditioning, LatentChunk, TextContext

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


def a_small_one(in_channels: int):
    """Diffusers' transformer with random weights, and ours with the same."""
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
    return theirs, Generator(card, modules)


@pytest.mark.parametrize("in_channels", [16, 36])
def test_one_pass_over_a_whole_clip_equals_diffusers(in_channels):
    theirs, model = a_small_one(in_channels)
    latents, text = torch.randn(2, in_channels, 5, 4, 6), torch.randn(1, 7, 20)
    with torch.no_grad():
        expected = theirs(latents, torch.tensor([625.0, 625.0]), text.expand(2, -1, -1)).sample
        segment = Segment(latents=latents, positions=torch.arange(5), t=torch.full((5,), 625.0))
        (flow,) = model.forward([segment], model.encode_text(TextContext(text)))
    assert relative_error(flow, expected) < 1e-5


def test_a_guided_clip_in_many_steps_equals_diffusers_whole_pipeline():
    """Plain Wan 2.1 as one chunk that remembers nothing: the same prompts, noise, scale, and Euler steps at the same sigmas."""
    theirs, model = a_small_one(16)
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=8.0)
    pipe = diffusers.WanPipeline(tokenizer=None, text_encoder=None, transformer=theirs, vae=None, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    toward, against, noise = torch.randn(1, 7, 20), torch.randn(1, 7, 20), torch.randn(1, 16, 5, 4, 6)
    words = dict(prompt_embeds=toward, negative_prompt_embeds=against, guidance_scale=6.0, num_inference_steps=50)
    expected = pipe(**words, latents=noise, height=32, width=48, num_frames=17, output_type="latent").frames

    schedule = tuple(zip(scheduler.sigmas[:-1].tolist(), scheduler.timesteps.tolist(), strict=True))
    settings = RolloutSettings(
        chunk=5, knot=None, fuse=False, anchor=None, window=None, max_frames=5, schedule=schedule, renoise=False, guidance=6.0
    )
    text = TextContext(toward, against=TextContext(against))
    stream = rollout(model, Anchor(torch.zeros(1, 16, 1, 4, 6)), Prompted(text), settings, lambda span, step: noise)
    (drawn,) = (out.latents for out in islice(stream, 51) if isinstance(out, LatentChunk))
    assert relative_error(drawn, expected) < 1e-5
    once = rollout(model, Anchor(torch.zeros(1, 16, 1, 4, 6)), Prompted(text), replace(settings, guidance=5.9), lambda span, step: noise)
    (other,) = (out.latents for out in islice(once, 51) if isinstance(out, LatentChunk))
    assert relative_error(other, expected) > 1e-3  # a mistake would be seen


@dataclass(frozen=True)
class Prompted:
    """Nothing but words."""

    text: TextContext

    def window(self, span: LatentSpan) -> ChunkConditioning:
        return ChunkConditioning(span=span, text=self.text)
