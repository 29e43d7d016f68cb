"""A decoder alone belongs to the latents it was made for: it is known by them, and refused beside others."""

import pytest
import torch
from safetensors.torch import save_file

from kf_core.checkpoints import decoder_only as alone
from kf_core.checkpoints.decoder_only import encoder_name, load_alone, small_decoder_file, small_decoder_for
from kf_core.checkpoints.vaes import load_decoder, load_vae
from kf_core.cli.main import main
from kf_core.errors import KnotForcingError
from kf_core.vae.streaming import DecoderState
from kf_core.vae.wan import WanDecoder, WanVAE

from ..tiny import write_decoder_alone


def vae_in_half(seed: int = 0) -> WanVAE:
    """As a finished one is stored."""
    torch.manual_seed(seed)
    return WanVAE(dim=4).requires_grad_(False).half().float()


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    return vae_in_half()


@pytest.fixture
def file(vae, tmp_path):
    return write_decoder_alone(tmp_path / "small.safetensors", vae.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_latents_have_one_name_in_whatever_precision_the_vae_is_held(vae, dtype, tmp_path):
    save_file({name: weight.half() for name, weight in vae.state_dict().items()}, tmp_path / "vae.safetensors")
    assert encoder_name(load_vae(tmp_path / "vae.safetensors", dtype=dtype).state_dict()) == encoder_name(vae.state_dict())


def test_a_vae_whose_decoder_was_trained_on_keeps_the_name_and_another_encoder_has_another(vae):
    weights = vae.state_dict()
    other = vae_in_half(seed=1).state_dict()
    later = {name: other[name] if name.startswith(("decoder.", "conv2.")) else weights[name] for name in weights}
    assert encoder_name(later) == encoder_name(weights)
    for part in ("encoder.head.2.bias", "conv1.bias"):  # the latter holds the statistics
        assert encoder_name(weights | {part: weights[part] + 0.1}) != encoder_name(weights)


def test_it_makes_frames_of_the_latents_that_it_was_made_for(vae, file):
    loaded = load_decoder(file, beside=vae, dtype=torch.float32)
    assert isinstance(loaded.vae, WanDecoder) and loaded.vae.dim == 2
    assert loaded.decode_latents(torch.zeros(1, 16, 3, 4, 4), DecoderState()).shape == (1, 3, 9, 32, 32)


def test_beside_another_vae_it_is_refused_in_a_sentence(vae, file, tmp_path):
    with pytest.raises(KnotForcingError, match="small.safetensors was made for the latents of another VAE"):
        load_decoder(file, beside=vae_in_half(seed=1))
    with pytest.raises(KnotForcingError, match="Say by --vae whose latents"):
        load_decoder(file)
    unsaid = write_decoder_alone(tmp_path / "unsaid.safetensors", vae.state_dict(), encoder="")
    with pytest.raises(KnotForcingError, match="does not say for which VAE's latents"):
        load_decoder(unsaid, beside=vae)
    damaged = write_decoder_alone(tmp_path / "damaged.safetensors", vae.state_dict(), steps="many")
    with pytest.raises(KnotForcingError, match="cannot be read"):
        load_alone(damaged, vae.state_dict(), dtype=torch.float32)


def test_inspect_says_what_it_is_and_to_which_vae_it_belongs(vae, file, tmp_path, capsys):
    assert main(["inspect", str(file)]) == 0
    said = capsys.readouterr().out
    assert "a decoder alone 2 wide, for the latents of one VAE: 26.5 dB on held-out clips, 22.3 dB at the mouth, 1,234 steps" in said
    assert "belongs to   another VAE than the bundled kf-tiny-vae.safetensors" in said and "is           a Wan VAE" not in said
    write_decoder_alone(tmp_path / "own.safetensors", load_vae().state_dict())
    assert main(["inspect", str(tmp_path / "own.safetensors")]) == 0
    assert "belongs to   the bundled kf-tiny-vae.safetensors" in capsys.readouterr().out
    write_decoder_alone(tmp_path / "unsaid.safetensors", vae.state_dict(), encoder="")
    assert main(["inspect", str(tmp_path / "unsaid.safetensors")]) == 0
    assert "it does not say of which" in capsys.readouterr().out


def test_the_packs_own_is_offered_where_it_is_there_and_fits(vae, file, monkeypatch, tmp_path):
    monkeypatch.setattr(alone, "SMALL_FILE", str(tmp_path / "nowhere.safetensors"))
    assert small_decoder_for(vae.state_dict()) is None
    with pytest.raises(KnotForcingError, match="comes without kf-tiny's small decoder.*small-decoder"):
        small_decoder_file()
    monkeypatch.setattr(alone, "SMALL_FILE", str(file))
    assert small_decoder_for(vae.state_dict()) == small_decoder_file() == file
    assert small_decoder_for(vae_in_half(seed=1).state_dict()) is None
