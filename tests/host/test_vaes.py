"""The host's VAEs serve: Wan's in diffusers' layout, and the tiny decoders, each on the latents it was made for."""

import pytest
import torch

from kf_core.vae.streaming import DecoderState
from kf_core.vae.taehv import TinyDecoder, TinyVAE
from kf_core.vae.wan import to_model_space

from .conftest import also, talking


def decoding_by(name: str, is_loaded_by_the_host: bool, prefix: str) -> dict:
    """A short stream whose portrait a Wan VAE encodes and whose frames the VAE `name` makes; its latents beside them."""
    prompt = talking(
        seed=30,
        prefix=prefix,
        anchor={"vae": ["wan", 0]},
        decode={"vae": ["vae", 0] if is_loaded_by_the_host else ["load", 1]},
        load={} if is_loaded_by_the_host else {"vae_name": name},
        sampler={"seconds": 0.8},
    )
    prompt = also(prompt, wan=("VAELoader", {"vae_name": "tiny-vae.safetensors"}), latent=LATENT)
    return also(prompt, vae=("VAELoader", {"vae_name": name})) if is_loaded_by_the_host else prompt


LATENT = ("KnotForcingToLatent", {"stream": ["sampler", 0], "vae": ["wan", 0], "max_latents": 100})


@pytest.mark.parametrize("is_loaded_by_the_host", [False, True])
@pytest.mark.parametrize("name, space", [("taew2_1.safetensors", "model"), ("lighttaew2_1.safetensors", "raw")])
def test_a_tiny_decoder_makes_its_frames_of_its_own_latents(host, tiny, name, space, is_loaded_by_the_host):
    host.fresh()
    ran = host.run(decoding_by(name, is_loaded_by_the_host, f"tiny-{space}-{is_loaded_by_the_host}"), "decode", "latent")
    assert ran.succeeded, ran.messages[-1]
    frames, raw = ran.outputs["decode"][1], ran.outputs["latent"][0]["samples"]

    def error(of: str) -> float:
        own = TinyVAE(of).requires_grad_(False)
        own.load_state_dict(tiny.state_dict())
        expected = TinyDecoder(own).decode_latents(to_model_space(raw.float()), DecoderState())[0].movedim(0, -1)
        return ((frames - expected[: len(frames)]).norm() / (frames - frames.mean()).norm()).item()

    other = {"model": "raw", "raw": "model"}[space]
    assert error(space) < 0.05 and error(other) > 0.15  # the host computes in bfloat16 here


def test_wans_vae_in_diffusers_layout_makes_the_same_frames(host, tiny):
    host.fresh()
    plain = host.run(talking(seed=31, prefix="layout")).outputs["decode"][1]
    host.fresh()
    other = host.run(talking(seed=31, prefix="diffusers", load={"vae_name": "diffusers.safetensors"}))
    assert other.succeeded and torch.equal(other.outputs["decode"][1], plain)


def test_a_tiny_decoder_cannot_encode_and_another_models_is_refused(host, tiny):
    host.fresh()
    ran = host.run(talking(load={"vae_name": "taew2_1.safetensors"}))
    assert ran.error["node_id"] == "anchor" and "cannot encode the portrait" in ran.error["exception_message"]
    prompt = also(talking(decode={"vae": ["vae", 0]}), vae=("VAELoader", {"vae_name": "taehv.safetensors"}))
    ran = host.run(prompt)
    assert ran.error["node_id"] == "decode" and "another model than Wan 2.1" in ran.error["exception_message"]
