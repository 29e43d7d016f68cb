"""Reads the recordings of the reference implementations: random weights and every tensor of a rollout.

They lie in `../shared/parity`, or where KF_PARITY says. Without them the tests that need them are skipped with one loud line.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors import safe_open
from torch import Tensor

from kf_core.sampling.noise import NoiseTape

FOLDER = Path(os.environ.get("KF_PARITY", Path(__file__).parents[3] / "shared" / "parity"))


@dataclass(frozen=True)
class Recording:
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    @classmethod
    def read(cls, name: str) -> "Recording":
        path = FOLDER / f"{name}.safetensors"
        if not path.exists():
            pytest.skip(f"NO PARITY RECORDING at {path}: set KF_PARITY to the folder that holds {path.name}")
        with safe_open(path, "pt") as file:
            return cls({key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {})

    @property
    def config(self) -> dict:
        return json.loads(self.metadata["cfg"])

    @property
    def calls(self) -> list[dict]:
        return json.loads(self.metadata["calls"])

    def latents(self, name: str) -> Tensor:
        """[b, f, c, h, w] as recorded -> [b, c, f, h, w]."""
        return rearrange(self.tensors[name], "b f c h w -> b c f h w")

    def tape(self, steps: int, chunk: int, first_frame: int = 0) -> NoiseTape:
        noise = self.latents("in.noise")
        count = sum(1 for key in self.tensors if key.startswith("eps."))
        renoise = [rearrange(self.tensors[f"eps.{i}"], "(b f) c h w -> b c f h w", b=noise.shape[0]) for i in range(count)]
        return NoiseTape(noise, renoise, steps, chunk, first_frame)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def take(rollout, frames: int) -> Tensor:
    """The first `frames` emitted latent frames."""
    from kf_core.types import LatentChunk

    chunks = []
    for out in rollout:
        if isinstance(out, LatentChunk):
            chunks.append(out.latents)
            if sum(c.shape[2] for c in chunks) >= frames:
                return torch.cat(chunks, dim=2)
