"""Our streamed autoencoder against diffusers' whole-clip one, on small random weights."""

import pytest
import torch

from kf_core.vae.streaming import DecoderState, EncoderState, decode_latents, encode_pictures, prepare
from kf_core.vae.wan import RES_BLOCKS, WanVAE, from_model_space, to_model_space

pytestmark = pytest.mark.reference

DIM = 8
BLOCK = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2", "shortcut": "conv_shortcut"}
PARTS = {
    "encoder.conv1": "encoder.conv_in",
    "decoder.conv1": "decoder.conv_in",
    "encoder.head.0": "encoder.norm_out",
    "encoder.head.2": "encoder.conv_out",
    "decoder.head.0": "decoder.norm_out",
    "decoder.head.2": "decoder.conv_out",
    "encoder.middle.0": "encoder.mid_block.resnets.0",
    "encoder.middle.1": "encoder.mid_block.attentions.0",
    "encoder.middle.2": "encoder.mid_block.resnets.1",
    "decoder.middle.0": "decoder.mid_block.resnets.0",
    "decoder.middle.1": "decoder.mid_block.attentions.0",
    "decoder.middle.2": "decoder.mid_block.resnets.1",
    "conv1": "quant_conv",
    "conv2": "post_quant_conv",
}


def diffusers_name(name: str) -> str:
    """Wan's parameter name -> diffusers'."""
    part, rest = name, ""
    for ours, theirs in BLOCK.items():
        if f".{ours}." in name:
            part, rest = name.split(f".{ours}.")[0], f".{theirs}." + name.split(f".{ours}.")[1]
    if part.startswith("encoder.downsamples."):
        return part.replace("downsamples", "down_blocks") + rest
    if part.startswith("decoder.upsamples."):
        level, place = divmod(int(part.split(".")[2]), RES_BLOCKS + 2)
        inside = f"resnets.{place}" if place <= RES_BLOCKS else "upsamplers.0"
        return ".".join(["decoder.up_blocks", str(level), inside, *part.split(".")[3:]]) + rest
    key = next(key for key in sorted(PARTS, key=len, reverse=True) if part == key or part.startswith(key + "."))
    return PARTS[key] + part[len(key) :] + rest


@pytest.fixture(scope="module")
def pair():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKLWan(base_dim=DIM).requires_grad_(False).eval()
    for parameter in theirs.parameters():  # gains and biases must matter too
        parameter.add_(0.1 * torch.randn_like(parameter))
    named = theirs.state_dict()
    ours = WanVAE(DIM)
    ours.load_state_dict({name: named.pop(diffusers_name(name)) for name in ours.state_dict()})
    assert not named, f"left over: {list(named)}"
    return prepare(ours, torch.float32).requires_grad_(False), theirs


def test_streamed_encoding_equals_diffusers_whole_clip(pair):
    ours, theirs = pair
    pictures, state = torch.rand(1, 3, 13, 16, 24), EncoderState()
    streamed = torch.cat([encode_pictures(ours, piece, state) for piece in pictures.split([1, 4, 8], dim=2)], dim=2)
    whole = theirs.encode(pictures * 2 - 1).latent_dist.mean
    assert whole.std() > 0.01 and (streamed - to_model_space(whole)).abs().max() < 1e-5


def test_streamed_decoding_equals_diffusers_whole_clip(pair):
    ours, theirs = pair
    latents, state = torch.randn(1, 16, 4, 2, 3), DecoderState()
    streamed = torch.cat([decode_latents(ours, piece, state) for piece in latents.split(1, dim=2)], dim=2)
    whole = theirs.decode(from_model_space(latents)).sample / 2 + 0.5
    assert whole.std() > 0.01 and (streamed - whole.clamp(0, 1)).abs().max() < 1e-5
