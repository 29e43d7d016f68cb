"""Small random files under the names, in the places and in the layouts of what the workflows want downloaded.

The generators are as wide as the real ones, because by their width they are recognised, but have few and narrow layers. wav2vec 2.0 has
its full size, because the host knows no other. UMT5-XXL is narrow, which the host's loader must be told: `NARROWING` is a custom node
that does, and leaves all else to the host.
"""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from kf_core.checkpoints import known_models as known
from kf_core.models.card import ModelCard
from kf_core.models.shapes import shapes_of
from kf_core.vae.wan import WanVAE

from ..kf_core.checkpoints import containers
from .encoders import NARROW, umt5_tensors, write_wav2vec2
from .shipped import LIVETALK_FILE, SELF_FORCING_FILE, UMT5, WAN_VAE, WAV2VEC2, ModelFile

LIVETALK = replace(known.livetalk(), layers=4, ffn_dim=256, audio=replace(known.WAV2VEC2, last_layer=3))
SELF_FORCING = replace(known.self_forcing(), layers=2, ffn_dim=256)
NARROWING = f"""
import comfy.sd

load_clip = comfy.sd.load_clip
narrow = {{"umt5xxl_model_config": {NARROW!r}}}
comfy.sd.load_clip = lambda *words, model_options, **more: load_clip(*words, model_options=model_options | narrow, **more)
NODE_CLASS_MAPPINGS = {{}}
"""


def write_downloads(folder: Path) -> None:
    """What the workflows for LiveTalk and for text to video want, and the custom node, into a host's own folder."""
    torch.manual_seed(0)
    save_file(random_weights(LIVETALK), place(folder, LIVETALK_FILE))
    wanted = place(folder, SELF_FORCING_FILE)
    containers.self_forcing(random_weights(SELF_FORCING), wanted.parent).rename(wanted)
    save_file(WanVAE(dim=4).state_dict(), place(folder, WAN_VAE))
    save_file(umt5_tensors(), place(folder, UMT5))
    write_wav2vec2(place(folder, WAV2VEC2))
    (folder / "custom_nodes" / "narrowing.py").write_text(NARROWING)


def place(folder: Path, file: ModelFile) -> Path:
    path = folder / "models" / file.directory / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def random_weights(card: ModelCard) -> dict[str, Tensor]:
    """Weights of which nothing grows or fades on its way."""

    def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
        if "norm" in name and name.endswith("weight"):
            return torch.ones(shape, dtype=torch.bfloat16)
        return (torch.randn(shape) * (torch.Size(shape[1:]).numel() ** -0.5 if len(shape) > 1 else 0.02)).bfloat16()

    return {name: drawn(name, shape) for name, shape in shapes_of(card).items()}
