"""Noise of training, drawn where it is used: on a CPU by the generator that is handed in, elsewhere by the device from its word.

The generator on the CPU is therefore all of chance that a checkpoint holds. Numbers drawn elsewhere are as good, and others: what must be
the same on every machine, a stream or a probe, uses `SeededNoise`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..sampling.noise import Noise, SeededNoise
from ..timeline import LatentSpan

DRAWS_ITSELF = ("cuda", "xpu", "mps")  # devices with generators of their own


def normal(shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str) -> Tensor:
    """Standard normal numbers on the device, float32."""
    if torch.device(device).type not in DRAWS_ITSELF:
        return torch.randn(shape, generator=generator).to(device)
    return _drawn_there(shape, int(torch.randint(2**62, (), generator=generator)), device)


def noise_of_rollouts(seed: int, shape: tuple[int, int, int, int], device: torch.device | str) -> Noise:
    """The noise of a rollout that is learned from, b, c, h, w."""
    return NoiseThere(seed, shape, device) if torch.device(device).type in DRAWS_ITSELF else SeededNoise(seed, shape)


@dataclass(frozen=True)
class NoiseThere:
    """The same numbers for the same seed, frame and step on devices of one kind, where they are drawn."""

    seed: int
    shape: tuple[int, int, int, int]  # b, c, h, w
    device: torch.device | str

    def __call__(self, span: LatentSpan, step: int) -> Tensor:
        return torch.stack([_drawn_there(self.shape, self._seed(frame, step), self.device) for frame in span], dim=2)

    def _seed(self, frame: int, step: int) -> int:
        return (self.seed + 1_000_003 * frame + 7_919 * step) % 2**62


def _drawn_there(shape: tuple[int, ...], seed: int, device: torch.device | str) -> Tensor:
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)
