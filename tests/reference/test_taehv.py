"""The tiny decoder equals its authors' own on random weights, whole and streamed.

Set KF_TAEHV to a checkout of github.com/madebyollin/taehv; without it the comparison is skipped with one loud line.
"""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kf_core.checkpoints.vaes import load_decoder
from kf_core.vae.streaming import DecoderState

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def theirs():
    place = Path(os.environ.get("KF_TAEHV", Path(__file__).parents[3] / "taehv")) / "taehv.py"
    if not place.exists():
        pytest.skip(f"NO TAEHV REFERENCE at {place}: set KF_TAEHV to a checkout of github.com/madebyollin/taehv")
    spec = importlib.util.spec_from_file_location("taehv_reference", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    tae = module.TAEHV(checkpoint_path=None).eval().requires_grad_(False)
    for parameter in tae.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))  # biases and skips must matter too
    last, drawn = tae.decoder[22], lambda: module.apply_model_with_memblocks(tae.decoder, torch.randn(1, 3, 16, 4, 6), True, False)
    last.weight *= 0.15 / drawn().std()  # round mid grey, so that little is cut off at black or white
    last.bias += 0.5 - drawn().mean()
    return tae


@pytest.mark.parametrize("is_parallel", [True, False])
def test_whole_and_streamed_equal_the_authors_decoder(is_parallel, theirs, tmp_path):
    save_file(theirs.state_dict(), tmp_path / "taew2_1.safetensors")
    ours, state = load_decoder(tmp_path / "taew2_1.safetensors", dtype=torch.float32), DecoderState()
    latents = torch.randn(2, 16, 5, 4, 6)
    expected = theirs.decode_video(latents.transpose(1, 2), parallel=is_parallel, show_progress_bar=False).transpose(1, 2)
    whole = ours.decode_latents(latents, DecoderState())
    streamed = torch.cat([ours.decode_latents(piece, state) for piece in latents.split([1, 3, 1], dim=2)], dim=2)
    assert expected.shape == (2, 3, 17, 32, 48) and expected.std() > 0.1
    assert (whole - expected).abs().max() < 1e-5 and (streamed - expected).abs().max() < 1e-5
