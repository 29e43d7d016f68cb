"""What a driving signal adds to the hidden states: audio, pose, expression, motion strength.

Each signal is scaled by its strength and adds nothing at strength 0, which is also how an absent signal was trained.
Audio is LiveTalk's (arXiv 2512.23576): four steps -> a small code -> one projection per layer, added to every token of the frame.
Where no speech encoder hears for the model, an ear of its own does first, step by step: kf-tiny's was trained on speech alone.
Pose is patched like the latents and added to their tokens; expression and motion strength join the time embedding of their frame.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn

from ..timeline import PIXELS_PER_LATENT
from ..types import ChunkConditioning, Signal
from .card import AudioSpec, ModelCard
from .rope import Grid
from .shapes import MOTION_FREQUENCIES


@dataclass(frozen=True)
class Additions:
    """What one segment's driving adds, ready to be added."""

    layers: dict[int, Tensor]  # layer -> [b, f, 1, dim], added to all tokens of the frame
    tokens: Tensor | None  # [b, f, t, dim], added to the embedded patches
    time: Tensor | None  # [b, f, dim], added to the time embedding


class Adapters(nn.Module):
    """The weights that a card's driving signals need; parameter names of the audio part are LiveTalk's."""

    def __init__(self, card: ModelCard, layers=nn) -> None:
        super().__init__()
        self.card = card
        dim = card.dim
        if card.audio is not None:
            self.audio_proj = AudioProjection(card.audio, layers)
            count = card.audio.last_layer - card.audio.first_layer + 1
            self.audio_cond_projs = nn.ModuleList(layers.Linear(card.audio.code, dim) for _ in range(count))
        if card.pose is not None:
            patched = 4 * PIXELS_PER_LATENT * card.pose.channels  # 2 x 2 latent cells, four frames
            self.pose_embedding = nn.Sequential(layers.Linear(patched, dim), nn.SiLU(), layers.Linear(dim, dim))
        if card.expression:
            steps = PIXELS_PER_LATENT * 2 * len(card.expression)  # a value and whether it is known
            self.expression_embedding = nn.Sequential(layers.Linear(steps, dim), nn.SiLU(), layers.Linear(dim, dim))
        if card.motion_strength:
            self.motion_embedding = nn.Sequential(layers.Linear(MOTION_FREQUENCIES, dim), nn.SiLU(), layers.Linear(dim, dim))

    def forward(self, driving: ChunkConditioning, grid: Grid, dtype: torch.dtype) -> Additions:
        """Signals the card does not know are ignored here; `Driving.bind` tells the user about them."""
        layers: dict[int, Tensor] = {}
        tokens, time = None, None
        if self.card.audio is not None and driving.audio is not None:
            code = self.audio_proj(driving.audio.features.to(dtype))
            for index, projection in enumerate(self.audio_cond_projs):
                layers[self.card.audio.first_layer + index] = scaled(projection(code)[:, :, None], driving.audio)
        if self.card.pose is not None and driving.pose is not None:
            patches = rearrange(driving.pose.features.to(dtype), "b f c (h p) (w q) -> b f (h w) (c p q)", h=grid.height, w=grid.width)
            tokens = scaled(self.pose_embedding(patches), driving.pose)
        if self.card.expression and driving.expression is not None:
            time = scaled(self.expression_embedding(driving.expression.features.to(dtype)), driving.expression)
        if self.card.motion_strength and driving.motion is not None:
            motion = scaled(self.motion_embedding(_waves(driving.motion.features[..., 0]).to(dtype)), driving.motion)
            time = motion if time is None else time + motion
        return Additions(layers, tokens, time)


class AudioProjection(nn.Module):
    """Four driving steps [b, f, 4 * width] -> code [b, f, code]. The ear listens to each step by itself, and is empty for most models."""

    def __init__(self, spec: AudioSpec, layers=nn) -> None:
        super().__init__()
        self.ear = make_ear(spec, layers)
        self.proj = layers.Linear(PIXELS_PER_LATENT * spec.features_width, spec.code)
        self.norm_out = layers.LayerNorm(spec.code)

    def forward(self, features: Tensor) -> Tensor:
        heard = self.ear(features.unflatten(-1, (PIXELS_PER_LATENT, -1)))
        return self.norm_out(self.proj(heard.flatten(-2)))


def make_ear(spec: AudioSpec, layers=nn) -> nn.Sequential:
    """Layers of the widths that `spec` tells, a bend between two, or none: one frame's numbers [..., width] -> [..., heard]."""
    linears = [layers.Linear(*widths) for widths in pairwise((spec.width, *spec.ear))]
    return nn.Sequential(*[part for linear in linears for part in (linear, nn.SiLU())][:-1])


def scaled(x: Tensor, signal: Signal) -> Tensor:
    """`x` [b, f, ...] times the signal's strength."""
    if not isinstance(signal.strength, Tensor):
        return x * signal.strength
    return x * signal.strength.to(x).reshape(*signal.strength.shape, *(1,) * (x.dim() - 2))


def _waves(values: Tensor) -> Tensor:
    """Motion strength [b, f] 0..2 as sines and cosines [b, f, MOTION_FREQUENCIES], one octave apart."""
    octaves = torch.arange(MOTION_FREQUENCIES // 2, device=values.device, dtype=torch.float32)
    angles = values.float()[..., None] * math.pi / 4 * 2 ** (octaves / 4)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)
