"""A decoder alone in the nodes: one VAE wire encodes the portrait by kf-tiny's VAE and makes the frames by the decoder."""

import sys

import pytest
import torch

from kf_core.checkpoints.decoder_only import load_alone
from kf_core.checkpoints.vaes import load_vae
from kf_core.precision import fast_dtype
from kf_core.vae.streaming import DecoderState, VideoDecoder
from kf_core.vae.wan import WanVAE, to_model_space

from ..kf_core.tiny import write_decoder_alone
from .conftest import also, talking
from .test_vaes import LATENT

BUNDLED, SMALL = "kf-tiny (bundled)", "kf-tiny, small decoder (bundled)"


def speaking(prefix: str, vae: str, **changed) -> dict:
    """Half a second of kf-tiny, as it comes with the pack."""
    return talking(seed=60, prefix=prefix, load={"model_name": BUNDLED, "vae_name": vae}, sampler={"seconds": 0.5} | changed)


@pytest.fixture(scope="module")
def own(host):
    """A random decoder for the latents of the bundled VAE, in models/vae."""
    return write_decoder_alone(host.folder / "models" / "vae" / "own.safetensors", load_vae(dtype=torch.float32).state_dict(), dim=4)


@pytest.fixture
def packs(host, own, monkeypatch):
    """The same file as if it were the pack's small decoder."""
    monkeypatch.setattr(sys.modules[host.of_pack("host.small_decoder").load_alone.__module__], "SMALL_FILE", str(own))


def made(host, prompt):
    host.fresh()
    ran = host.run(prompt, "decode", "anchor", *(["latent"] if "latent" in prompt else []))
    assert ran.succeeded, ran.messages[-1]
    return ran


def test_it_makes_the_film_and_kf_tinys_vae_encodes_the_portrait(host, own):
    plain = made(host, speaking("small", BUNDLED))
    prompt = also(speaking("small", "own.safetensors"), latent=(LATENT[0], LATENT[1] | {"vae": ["load", 1]}))
    ran = made(host, prompt)
    video, frames = ran.outputs["decode"]
    assert torch.equal(ran.outputs["anchor"][0].latent, plain.outputs["anchor"][0].latent)
    assert video.get_stream_source() != plain.outputs["decode"][0].get_stream_source()  # another film of the same stream

    decoder, state = VideoDecoder(load_alone(own, load_vae().state_dict(), dtype=fast_dtype("cpu"))), DecoderState()
    latents = to_model_space(ran.outputs["latent"][0]["samples"].float())
    expected = torch.cat([decoder.decode_latents(part, state) for part in latents.split((1, 2), dim=2)], dim=2)  # as a stream pushes them
    # latents go out in the host's space and come back: where a CPU computes in float32 that rounding is seen
    assert torch.allclose(frames, expected[0].movedim(0, -1)[: len(frames)], atol=1e-4)
    assert (frames - plain.outputs["decode"][1]).abs().mean() > 0.05


def test_the_packs_own_is_a_choice_beside_the_vae_and_missing_it_is_said(host, own, packs, monkeypatch):
    assert host.of_pack("host.folders").vae_files()[:2] == [BUNDLED, SMALL]
    small = made(host, speaking("chosen", SMALL)).outputs["decode"][1]
    assert torch.equal(small, made(host, speaking("own", "own.safetensors")).outputs["decode"][1])
    monkeypatch.setattr(sys.modules[host.of_pack("host.small_decoder").load_alone.__module__], "SMALL_FILE", str(own.with_name("nowhere")))
    host.fresh()
    ran = host.run(speaking("missing", SMALL))
    assert ran.error["node_id"] == "load" and "comes without kf-tiny's small decoder" in ran.error["exception_message"]


def test_the_cpu_preset_takes_it_and_auto_does_not(host, packs):
    chosen = made(host, speaking("preset", BUNDLED, tune="cpu"))
    assert "Preset cpu: the small decoder makes the frames, faster and softer." in chosen.said("decode")[-1]
    kept = made(host, speaking("auto", BUNDLED, tune="auto"))
    assert not torch.equal(kept.outputs["decode"][1], chosen.outputs["decode"][1]) and "small" not in kept.said("decode")[-1]
    assert torch.equal(chosen.outputs["decode"][1], made(host, speaking("named", SMALL)).outputs["decode"][1])


def test_other_latents_and_other_models_are_refused_in_a_sentence(host, own):
    torch.manual_seed(4)
    write_decoder_alone(own.with_name("of-another.safetensors"), WanVAE(4).state_dict())
    for model, vae, said in (
        (BUNDLED, "of-another.safetensors", "latents of another VAE"),
        ("tiny.safetensors", "own.safetensors", "was made for Wan 2.1's own VAE, and kf-tiny's was chosen"),
    ):
        host.fresh()
        ran = host.run(talking(load={"model_name": model, "vae_name": vae}))
        assert ran.error["node_id"] == "load" and said in ran.error["exception_message"]
