"""Our streamed autoencoder against diffusers' whole-clip one, on small random weights."""

import pytest
import torch
from safetensors.torch import save_file

from kf_core.checkpoints.vaes import load_vae
from kf_core.vae.streaming import DecoderState, EncoderState, decode_latents, encode_frames
from kf_core.vae.wan import from_model_space, to_model_space

pytestmark = pytest.mark.reference

DIM = 8


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Our VAE, read from the file as diffusers publishes it, and diffusers' own."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKLWan(base_dim=DIM).requires_grad_(False).eval()
    for parameter in theirs.parameters():  # gains and biases must matter too
        parameter.add_(0.1 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("vae") / "diffusion_pytorch_model.safetensors"
    save_file(theirs.state_dict(), path)
    return load_vae(path, dtype=torch.float32), theirs


def test_streamed_encoding_equals_diffusers_whole_clip(pair):
    ours, theirs = pair
    frames, state = torch.rand(1, 3, 13, 16, 24), EncoderState()
    streamed = torch.cat([encode_frames(ours, piece, state) for piece in frames.split([1, 4, 8], dim=2)], dim=2)
    whole = theirs.encode(frames * 2 - 1).latent_dist.mean
    assert whole.std() > 0.01 and (streamed - to_model_space(whole)).abs().max() < 1e-5


def test_streamed_decoding_equals_diffusers_whole_clip(pair):
    ours, theirs = pair
    latents, state = torch.randn(1, 16, 4, 2, 3), DecoderState()
    streamed = torch.cat([decode_latents(ours, piece, state) for piece in latents.split(1, dim=2)], dim=2)
    whole = theirs.decode(from_model_space(latents)).sample / 2 + 0.5
    assert whole.std() > 0.01 and (streamed - whole.clamp(0, 1)).abs().max() < 1e-5
