"""Networks of published sizes with random weights: what they cost does not depend on what they have learnt."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..checkpoints.known_models import WAN_1_3B
from ..models.adapters import Adapters
from ..models.attention import sdpa
from ..models.card import ModelCard, TextSpec
from ..models.optimized_forward import OptimizedGenerator
from ..models.protocol import Attention
from ..models.wan import WanModel
from ..schedule import warped
from ..settings import Ahead, RolloutSettings
from ..vae.streaming import VideoDecoder, prepare
from ..vae.taehv import TinyDecoder, TinyVAE
from ..vae.wan import WanVAE


def knot_forcing(name: str, width: int, height: int, **dims: int) -> ModelCard:
    """A generator as the paper has it, at these dims: 33 channels, 4 steps, chunks of 3 and a knot, an anchor that runs ahead."""
    return ModelCard(
        name=name,
        **dims,
        in_channels=33,
        text=TextSpec(kind="umt5"),
        rollout=RolloutSettings(schedule=warped(), anchor=Ahead()),
        width=width,
        height=height,
        source="random weights",
    )


@dataclass(frozen=True)
class Preset:
    card: ModelCard
    vae_dim: int


PRESETS = {
    "wan-1.3b": Preset(knot_forcing("Knot Forcing 1.3B, random weights", 832, 480, **WAN_1_3B), vae_dim=96),
    "small": Preset(knot_forcing("Knot Forcing small, random weights", 128, 128, dim=256, ffn_dim=1024, layers=8, heads=2), vae_dim=16),
}


@torch.no_grad()
def random_generator(
    card: ModelCard, *, dtype: torch.dtype, device: torch.device | str = "cpu", attention: Attention = sdpa
) -> OptimizedGenerator:
    """A generator of this card whose hidden states neither grow nor fade."""
    with torch.device("meta"):
        modules, adapters = WanModel(card), Adapters(card)
    modules, adapters = (_filled(network, dtype, device) for network in (modules, adapters))
    return OptimizedGenerator(card, modules, adapters, attention=attention, dtype=dtype, device=device)


@torch.no_grad()
def random_decoder(*, tiny: bool, dim: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> VideoDecoder:
    """Wan's decoder at width `dim`, or the tiny one at its published width."""
    make: Callable[[], nn.Module] = (lambda: TinyVAE("model")) if tiny else (lambda: WanVAE(dim))
    with torch.device("meta"):
        network = make()
    network = _filled(network, dtype, device)
    return TinyDecoder(network) if tiny else VideoDecoder(prepare(network, dtype, device))


def _filled(network: nn.Module, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    """The network from the meta device, tensor by tensor in its own precision, so that no second copy is ever held."""
    network = network.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in network.parameters():
        if parameter.dim() > 1 and parameter.shape[0] < parameter.numel():
            parameter.normal_(0, (parameter.numel() / parameter.shape[0]) ** -0.5, generator=generator)
        else:
            parameter.fill_(1.0 if parameter.dim() > 1 else 0.0)
    for module in network.modules():
        if isinstance(module, nn.LayerNorm | nn.RMSNorm) and module.weight is not None:
            module.weight.fill_(1.0)
    return network.eval().requires_grad_(False)
