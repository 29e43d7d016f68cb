"""What goes beside a generator says what it is."""

import pytest
import torch
from safetensors.torch import save_file

from kf_core.checkpoints.auxiliary import beside
from kf_core.checkpoints.read import read_header
from kf_core.checkpoints.vae_names import diffusers_name
from kf_core.models.vace import Vace
from kf_core.vae.taehv import TinyVAE
from kf_core.vae.wan import WanVAE

VAE, TINY = WanVAE(4).state_dict(), TinyVAE("model", widths=(12, 8, 6, 4)).state_dict()
T5 = {"shared.weight": torch.zeros(9, 7), "encoder.block.0.layer.0.SelfAttention.q.weight": torch.zeros(4, 7)}
FILES = {
    "wan_2.1_vae.safetensors": (VAE, "a Wan VAE 4 wide, in Wan's own names (--vae)"),
    "diffusion_pytorch_model.safetensors": (
        {diffusers_name(n): t for n, t in VAE.items()},
        "a Wan VAE 4 wide, in diffusers' names (--vae)",
    ),
    "taew2_1.safetensors": (TINY, "a tiny decoder: decodes what the generator draws, as taew2_1 (--decoder)"),
    "lighttaew2_1.safetensors": (TINY, "a tiny decoder: decodes Wan's raw latents, as lighttaew2_1 (--decoder)"),
    "taehv.safetensors": (TINY, "a tiny decoder of another model than Wan 2.1"),
    "taew2_2.safetensors": ({**TINY, "decoder.1.weight": torch.zeros(12, 48, 3, 3)}, "another model than Wan 2.1 (48 channels)"),
    "vace.safetensors": (Vace(dim=24, ffn_dim=32, heads=1, blocks=3).state_dict(), "a VACE module 24 wide, 3 blocks (--control-module)"),
    "umt5_xxl_fp16.safetensors": (
        {**T5, "spiece_model": torch.zeros(3, dtype=torch.uint8)},
        "a T5 text encoder 7 wide, its tokenizer inside",
    ),
    "wav2vec2.safetensors": ({"wav2vec2.feature_extractor.conv_layers.0.conv.weight": torch.zeros(4, 1, 10)}, "a wav2vec 2.0 encoder"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_goes_beside_a_generator_says_what_it_is(name, tmp_path):
    tensors, said = FILES[name]
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / name)
    assert said in beside(read_header(tmp_path / name).tensors, name)


def test_anything_else_is_nothing_of_that(tmp_path):
    save_file({"conv.weight": torch.zeros(3, 3)}, tmp_path / "upscaler.safetensors")
    assert beside(read_header(tmp_path / "upscaler.safetensors").tensors, "upscaler.safetensors") is None
