"""Tiny real generators: the same code at small dims with random weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from kf_core.checkpoints.decoder_card import ALONE_KEY
from kf_core.checkpoints.decoder_only import encoder_name
from kf_core.conditioning.anchor import Anchor
from kf_core.models.adapters import Adapters
from kf_core.models.card import AudioSpec, ModelCard, PoseSpec, TextSpec
from kf_core.models.causal import Generator
from kf_core.models.wan import WanModel
from kf_core.sampling.noise import SeededNoise
from kf_core.sampling.rollout import rollout
from kf_core.schedule import warped
from kf_core.settings import Ahead, RolloutSettings
from kf_core.timeline import LatentSpan
from kf_core.types import ChunkConditioning, LatentChunk, Signal, TextContext
from kf_core.vae.wan import WanDecoder

HEIGHT, WIDTH = 4, 6
SETTINGS = RolloutSettings(schedule=warped((1000, 500)), anchor=Ahead(7, 5))

CARD = ModelCard(
    name="tiny",
    dim=48,
    ffn_dim=64,
    layers=3,
    heads=2,
    in_channels=33,
    freq_dim=32,
    text=TextSpec(kind="none", width=8, tokens=2),
    audio=AudioSpec(kind="log-mel", width=5, code=6, first_layer=1, last_layer=2),
    pose=PoseSpec(),
    expression=("smile", "brows", "gaze_x", "gaze_y", "blink"),
    motion_strength=True,
    rollout=SETTINGS,
)


def generator(card: ModelCard = CARD, dtype: torch.dtype = torch.float64, seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    modules, adapters = WanModel(card), Adapters(card)
    for parameter in (*modules.parameters(), *adapters.parameters()):
        torch.nn.init.normal_(parameter, std=0.15) if parameter.dim() > 1 else torch.nn.init.normal_(parameter, 0.5, 0.2)
    return Generator(card, modules.to(dtype), adapters.to(dtype), dtype=dtype)


def portrait(dtype: torch.dtype = torch.float64, seed: int = 1, batch: int = 1) -> Anchor:
    return Anchor(torch.randn(batch, 16, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)).to(dtype))


@dataclass(frozen=True, eq=False)
class Waves:
    """Driving that depends on the frame alone, so any cut of it agrees."""

    text: TextContext | None = None
    batch: int = 1

    def window(self, span: LatentSpan) -> ChunkConditioning:
        def features(width: int) -> Tensor:
            frames = torch.arange(span.start, span.stop, dtype=torch.float64)
            channel = torch.arange(width, dtype=torch.float64)
            return torch.sin(frames[:, None] * 0.7 + channel * 1.3).expand(self.batch, -1, -1)

        pose = features(12 * HEIGHT * WIDTH).unflatten(2, (12, HEIGHT, WIDTH)).abs()
        return ChunkConditioning(
            span=span,
            text=self.text,
            audio=Signal(features(20)),
            pose=Signal(pose, 0.8),
            expression=Signal(features(40), 1.2),
            motion=Signal(1 + features(1)),
        )


def write_decoder_alone(path: Path, vae: Mapping[str, Tensor], dim: int = 2, **said) -> Path:
    """A random decoder in a file, for the latents of a VAE of these weights. `said`: what its header says otherwise."""
    torch.manual_seed(9)
    about = {"encoder": encoder_name(vae), "steps": 1234, "minutes": 5.0, "psnr": 26.54, "psnr_mouth": 22.26} | said
    weights = {name: weight.half().contiguous() for name, weight in WanDecoder(dim).state_dict().items()}
    save_file(weights, path, metadata={"format": "pt", ALONE_KEY: json.dumps(about)})
    return path


def noise(seed: int = 0, batch: int = 1) -> SeededNoise:
    return SeededNoise(seed, (batch, 16, HEIGHT, WIDTH))


def frames(count: int, settings: RolloutSettings = SETTINGS, *, model=None, state=None, seed: int = 0, driving=None, anchor=None) -> Tensor:
    """The first `count` latent frames of a rollout: [b, c, f, h, w]."""
    return torch.cat(
        [c.latents for c in chunks(count, settings, model=model, state=state, seed=seed, driving=driving, anchor=anchor)], dim=2
    )[:, :, :count]


def chunks(
    count: int, settings: RolloutSettings = SETTINGS, *, model=None, state=None, seed: int = 0, driving=None, anchor=None
) -> list[LatentChunk]:
    model, made = model or generator(replace(CARD, rollout=settings)), []
    for out in rollout(model, anchor or portrait(), driving or Waves(), settings, noise(seed), state):
        if isinstance(out, LatentChunk):
            made.append(out)
            if sum(c.span.length for c in made) >= count:
                return made
