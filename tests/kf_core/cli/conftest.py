"""The folder that every test of the command line begins with."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data

from kf_core.models.card import CARD_KEY
from kf_core.vae.wan import WanVAE

from .. import tiny
from .commands import CARD, Files, write_voice


@pytest.fixture(scope="session")
def networks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    model = tiny.generator(CARD, torch.float32)
    weights = {**model.modules.state_dict(), **model.adapters.state_dict()}
    save_file(weights, folder / "tiny.safetensors", metadata={CARD_KEY: CARD.to_json()})
    torch.manual_seed(5)
    save_file(WanVAE(dim=4).state_dict(), folder / "tiny-vae.safetensors")
    return folder


@pytest.fixture
def files(networks, tmp_path) -> Files:
    for name in ("tiny.safetensors", "tiny-vae.safetensors"):
        (tmp_path / name).symlink_to(networks / name)
    Image.fromarray(data.astronaut()[:256, 100:356]).save(tmp_path / "portrait.png")
    write_voice(tmp_path / "voice.wav", 1.5)
    return Files(tmp_path)
