"""What a chunk must cost: floating-point work and bytes to move, counted from a card and its settings; and how near a machine comes.

One chunk is its denoising steps over chunk + knot, and the clean pass over the chunk. Counted are the products of matrices, which is
where the work is, and as bytes the weights once per forward and what attention reads from the cache: what no implementation can avoid.
The VAE is not part of it. Knows no weights. A test holds the count to PyTorch's own.
"""

from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

import torch

from ..models import products
from ..models.adapters import MOTION_FREQUENCIES
from ..models.card import ModelCard
from ..models.wan import PATCH
from ..settings import RolloutSettings
from ..timeline import PIXELS_PER_LATENT
from ..vae.wan import SPATIAL_STRIDE


@dataclass(frozen=True, kw_only=True)
class Work:
    """The generator's part of one chunk of a stream that is under way. Operations: a multiplication and an addition are two."""

    linear: float  # operations in linear layers
    attention: float  # operations in self-attention
    reading: float  # operations in cross-attention to the prompt, without its linear layers
    weight_bytes: float
    cache_bytes: float
    frames: int  # that the chunk makes

    @property
    def operations(self) -> float:
        return self.linear + self.attention + self.reading

    @property
    def num_bytes(self) -> float:
        return self.weight_bytes + self.cache_bytes

    def seconds_at(self, limits: "Limits") -> float:
        """The least time: the larger of computing and moving, if each ran at its limit beside the other."""
        return max(self.operations / limits.operations_per_second, self.num_bytes / limits.bytes_per_second)

    def summary(self) -> str:
        return (
            f"a chunk of {self.frames} frames: {self.operations / 1e12:.4g} TFLOP "
            f"({self.linear / self.operations:.0%} linear layers, {self.attention / self.operations:.0%} attention), "
            f"{self.num_bytes / 1e9:.3g} GB of weights and cache"
        )


@dataclass(frozen=True)
class Limits:
    """What a machine reaches at its best, measured."""

    operations_per_second: float
    bytes_per_second: float


def chunk_work(card: ModelCard, settings: RolloutSettings, *, width: int, height: int, bytes_per_value: int = 2) -> Work:
    """The work of one chunk at `width` x `height` pixels, once the window is full. An unlimited window is counted as full, too."""
    tokens = (height // SPATIAL_STRIDE // PATCH[1]) * (width // SPATIAL_STRIDE // PATCH[2])  # per latent frame
    remembered = settings.past + settings.pinned + (settings.anchor is not None)
    steps = [settings.denoised] * len(settings.schedule) + [settings.chunk]  # frames of each forward; the last is the clean pass
    steps *= 2 if settings.is_guided else 1
    frames = sum(steps)
    dim, layers = card.dim, card.layers

    block = 2 * (6 * dim * dim + 2 * dim * card.ffn_dim)  # q k v o, then q o: the prompt's k v are kept
    text = card.text.tokens
    if text == 1:  # one word is not asked for: it is its own answer, once per forward
        block -= 2 * 2 * dim * dim
    outer = 2 * dim * PATCH[1] * PATCH[2] * (card.in_channels + card.out_channels)
    linear = frames * tokens * (layers * block + outer)
    linear += frames * 2 * (card.freq_dim * dim + 7 * dim * dim)  # time embedding and its projection
    linear += _adapters(card, frames, tokens)
    if text == 1:
        linear += len(steps) * layers * 2 * dim * dim
    attention = sum(4 * dim * layers * f * tokens * (remembered + f) * tokens for f in steps)
    reading = 4 * dim * layers * frames * tokens * text if text > 1 else 0

    weights = layers * block // 2 + 7 * dim * dim
    cache = len(steps) * 2 * layers * remembered * tokens * dim
    return Work(
        linear=linear,
        attention=attention,
        reading=reading,
        weight_bytes=bytes_per_value * weights * len(steps),
        cache_bytes=bytes_per_value * cache,
        frames=PIXELS_PER_LATENT * settings.chunk,
    )


def _adapters(card: ModelCard, frames: int, tokens: int) -> float:
    """Operations of what driving signals add, with every signal that the card knows."""
    dim, operations = card.dim, 0.0
    if card.audio is not None:
        projections = card.audio.last_layer - card.audio.first_layer + 1
        operations += frames * 2 * card.audio.code * (PIXELS_PER_LATENT * card.audio.features_width + projections * dim)
        ear = sum(inward * outward for inward, outward in pairwise((card.audio.width, *card.audio.ear)))
        operations += frames * 2 * PIXELS_PER_LATENT * ear
    if card.pose is not None:
        operations += frames * tokens * 2 * dim * (4 * PIXELS_PER_LATENT * card.pose.channels + dim)
    if card.expression:
        operations += frames * 2 * dim * (PIXELS_PER_LATENT * 2 * len(card.expression) + dim)
    if card.motion_strength:
        operations += frames * 2 * dim * (MOTION_FREQUENCIES + dim)
    return operations


def measure_limits(device: torch.device | str, dtype: torch.dtype, rounds: int = 5) -> Limits:
    """What this machine reaches: the best of some products of large matrices, and of some copies. About a second."""
    device = torch.device(device)
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(2**28 if device.type == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with torch.no_grad():
        product = _best(lambda: products.linear(a, b, None), device, rounds)
    copy = _best(lambda: target.copy_(source), device, rounds)
    return Limits(2 * side**3 / product, 2 * source.numel() / copy)


def _best(task, device: torch.device, rounds: int) -> float:
    """Seconds of the fastest round; the first is not counted."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = []
    for _ in range(rounds + 1):
        wait()
        start = perf_counter()
        task()
        wait()
        times.append(perf_counter() - start)
    return min(times[1:])
