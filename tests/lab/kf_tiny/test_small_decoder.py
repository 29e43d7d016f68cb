"""A decoder of half the width on the latents of a finished autoencoder: it learns, goes on where it stood, and its file can be used."""

import pytest
import torch
from safetensors.torch import save_file

from kf_core.checkpoints.vaes import load_decoder, load_vae
from kf_core.errors import KnotForcingError
from kf_core.vae.streaming import DecoderState
from kf_core.vae.wan import WanVAE
from lab.kf_tiny.clip_training import in_half
from lab.kf_tiny.small_decoder import CONTINUING_STAGES, STAGES, SmallDecoderTraining, train_small_decoder
from lab.kf_tiny.vae_losses import initialise

SIZE = 32


def begun(seed=0):
    torch.manual_seed(7)
    return SmallDecoderTraining(initialise(WanVAE(4)).eval(), size=SIZE, seed=seed, dim=2)


def test_the_encoder_stays_and_the_decoder_learns():
    training = begun()
    encoder = {name: weight.clone() for name, weight in training.vae.state_dict().items()}
    losses = [training.learn(STAGES[0], 0.0)["loss"] for _ in range(12)]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert all(torch.equal(weight, encoder[name]) for name, weight in training.vae.state_dict().items())


def test_a_run_that_was_stopped_goes_on_exactly_where_it_stood(tmp_path):
    one = begun()
    one.learn(STAGES[1], 0.2)
    one.save(tmp_path / "checkpoint.pt")
    expected = one.learn(STAGES[1], 0.2)
    other = begun(seed=1)
    other.load(tmp_path / "checkpoint.pt")
    assert other.learn(STAGES[1], 0.2) == pytest.approx(expected, rel=1e-5) and other.step == 2


def test_its_file_decodes_the_latents_of_its_vae_only_and_does_not_pass_for_one(tmp_path):
    torch.manual_seed(7)
    vae = tmp_path / "kf-tiny-vae.safetensors"
    save_file({name: weight.contiguous() for name, weight in initialise(WanVAE(4)).state_dict().items()}, vae)
    file = train_small_decoder(tmp_path, vae, size=SIZE, minutes=0.01)
    decoder = load_decoder(file, beside=load_vae(vae), dtype=torch.float32)
    assert decoder.vae.dim == 2 and decoder.decode_latents(torch.zeros(1, 16, 3, 4, 4), DecoderState()).shape == (1, 3, 9, 32, 32)
    with pytest.raises(KnotForcingError, match="a decoder alone"):
        load_vae(file)
    with pytest.raises(KnotForcingError, match="latents of another VAE"):
        load_decoder(file, beside=load_vae())


def test_one_that_begins_with_a_finished_decoder_has_its_weights_and_gentler_rates(tmp_path):
    one = begun()
    one.learn(STAGES[0], 0.0)
    file = tmp_path / "finished.safetensors"
    save_file(in_half(one.mean), file)
    other = begun(seed=1)
    other.grow_from(file)
    assert all(torch.equal(weight.half(), other.decoder.state_dict()[name].half()) for name, weight in one.mean.state_dict().items())
    assert other.stages is CONTINUING_STAGES
    other.save(tmp_path / "checkpoint.pt")
    again = begun()
    again.load(tmp_path / "checkpoint.pt")
    assert again.stages is CONTINUING_STAGES
