"""A VAE's file becomes the network that was saved, in whichever of its layouts, or a sentence says why not."""

import pytest
import torch
from safetensors.torch import save_file

from kf_core.checkpoints.signatures import space_of
from kf_core.checkpoints.vae_names import diffusers_name
from kf_core.checkpoints.vaes import load_decoder, load_vae
from kf_core.errors import KnotForcingError
from kf_core.vae.streaming import DecoderState, decode_latents
from kf_core.vae.taehv import TinyDecoder, TinyVAE
from kf_core.vae.wan import WanVAE

LATENTS = torch.randn(1, 16, 3, 2, 2, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def tiny() -> TinyVAE:
    torch.manual_seed(0)
    return TinyVAE("model", widths=(12, 8, 6, 4)).requires_grad_(False)


def published(tiny: TinyVAE, **changed: torch.Tensor) -> dict[str, torch.Tensor]:
    """As its file has it: with an encoder beside the decoder."""
    return {**tiny.state_dict(), "encoder.0.weight": torch.zeros(64, 3, 3, 3), "encoder.0.bias": torch.zeros(64), **changed}


@pytest.mark.parametrize("container", ["wan_2.1_vae.safetensors", "Wan2.1_VAE.pth", "diffusion_pytorch_model.safetensors"])
def test_every_published_layout_gives_the_same_network(container, tmp_path):
    torch.manual_seed(0)
    vae = WanVAE(4).requires_grad_(False)
    weights, path = vae.state_dict(), tmp_path / container
    if container.startswith("diffusion"):
        weights = {diffusers_name(name): tensor for name, tensor in weights.items()}
        assert len(weights) == len(vae.state_dict())
    torch.save(weights, path) if path.suffix == ".pth" else save_file(weights, path)
    loaded = load_vae(path, dtype=torch.float32)
    assert loaded.dim == 4 and all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in vae.state_dict().items())
    expected = decode_latents(loaded, LATENTS, DecoderState())
    assert torch.equal(load_decoder(path, dtype=torch.float32).decode_latents(LATENTS, DecoderState()), expected)


@pytest.mark.parametrize("name, space", [("taew2_1.safetensors", "model"), ("lighttaew2_1.safetensors", "raw")])
def test_a_tiny_decoder_is_read_with_the_space_of_its_latents(name, space, tiny, tmp_path):
    save_file(published(tiny), tmp_path / name)
    loaded = load_decoder(tmp_path / name, dtype=torch.float32)
    assert isinstance(loaded, TinyDecoder) and loaded.vae.space == space
    expected = TinyDecoder(TinyVAE(space, widths=(12, 8, 6, 4)))
    expected.vae.load_state_dict(tiny.state_dict())
    drawn = loaded.decode_latents(LATENTS, DecoderState())
    torch.testing.assert_close(drawn, expected.decode_latents(LATENTS, DecoderState()).detach(), rtol=0, atol=1e-5)


def test_a_nameless_file_is_told_by_the_precision_it_was_published_in():
    assert space_of("tiny.safetensors", is_half=True) == "model" and space_of("tiny.safetensors", is_half=False) == "raw"
    assert space_of("TAEW2_1.pth", is_half=False) == "model"


def test_a_file_that_could_make_more_frames_of_one_gives_its_last(tiny, tmp_path):
    wide = torch.cat((torch.randn(12, 12, 1, 1), tiny.state_dict()["decoder.7.conv.weight"]))
    save_file(published(tiny, **{"decoder.7.conv.weight": wide}), tmp_path / "taew2_1.safetensors")
    loaded = load_decoder(tmp_path / "taew2_1.safetensors", dtype=torch.float32)
    assert torch.equal(loaded.vae.decoder[7].conv.weight, tiny.decoder[7].conv.weight)


def test_what_does_not_serve_is_said_in_words(tiny, tmp_path):
    def saved(name, tensors):
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / name)
        return tmp_path / name

    with pytest.raises(KnotForcingError, match="cannot encode the portrait.*--decoder"):
        load_vae(saved("taew2_1.safetensors", published(tiny)))
    with pytest.raises(KnotForcingError, match="48 channels"):
        load_decoder(saved("taew2_2.safetensors", published(tiny, **{"decoder.1.weight": torch.zeros(12, 48, 3, 3)})))
    with pytest.raises(KnotForcingError, match="another model than Wan 2.1"):
        load_decoder(saved("taehv.safetensors", published(tiny)))
    with pytest.raises(KnotForcingError, match="1 missing.*decoder.4.conv.0.bias"):
        load_decoder(saved("taew2_1.pth", {key: t for key, t in published(tiny).items() if key != "decoder.4.conv.0.bias"}))
    with pytest.raises(KnotForcingError, match="not a Wan VAE"):
        load_decoder(saved("upscaler.safetensors", {"conv.weight": torch.zeros(3, 3)}))
    with pytest.raises(KnotForcingError, match="latents of 48 channels"):
        load_vae(saved("wan2.2_vae.safetensors", {**WanVAE(4).state_dict(), "conv2.weight": torch.zeros(48, 48, 1, 1, 1)}))
