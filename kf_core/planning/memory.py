"""How much memory a stream takes, computed before anything is loaded.

The real code is run once on tensors that have a shape and no numbers (PyTorch's `meta` device), and what would be alive at a time is
added up. Nothing is counted by hand, so what the code becomes is what is counted. Not part of it: what the device's libraries take for
themselves, and pages that an allocator cannot use.

    layers beyond a few cost each the same, so a few are run and the rest is extrapolated
"""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..conditioning.anchor import Anchor
from ..conditioning.driving import Driving
from ..models.adapters import Adapters
from ..models.card import ModelCard
from ..models.causal import Generator
from ..models.optimized_forward import OptimizedGenerator
from ..models.wan import WanModel
from ..sampling.noise import SeededNoise
from ..sampling.rollout import rollout
from ..sampling.state import RolloutState
from ..settings import RolloutSettings
from ..timeline import LatentSpan
from ..types import LatentChunk, Step
from ..vae.streaming import DecoderState, VideoDecoder
from ..vae.taehv import TinyDecoder, TinyVAE
from ..vae.wan import SPATIAL_STRIDE, Z_DIM, WanDecoder, WanVAE

META = torch.device("meta")
FEW = (2, 4)  # layers that are run
MOST_CHUNKS = 4  # until the window is full; one without limit has its memory from the beginning


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes. What is held all the time, and what comes on top while a chunk is denoised or decoded."""

    weights: int  # of the generator and its adapters
    cache: int  # what the generator remembers
    decoder_weights: int
    past: int  # what the decoder remembers
    denoising: int
    decoding: int

    @property
    def held(self) -> int:
        return self.weights + self.cache + self.decoder_weights + self.past

    def peak(self, overlap_decode: bool) -> int:
        """The most at a time, with the frames made beside the denoising or in turn with it."""
        return self.held + (self.denoising + self.decoding if overlap_decode else max(self.denoising, self.decoding))


@dataclass(frozen=True, kw_only=True)
class DecoderKind:
    """What makes the frames: Wan's VAE of this width, or the tiny decoder (None)."""

    dim: int | None = 96
    is_alone: bool = False  # without an encoder: kf-tiny's small decoder

    @classmethod
    def of(cls, network: WanVAE | WanDecoder | TinyVAE) -> "DecoderKind":
        if isinstance(network, TinyVAE):
            return cls(dim=None)
        return cls(dim=network.dim, is_alone=isinstance(network, WanDecoder))

    def network(self) -> WanVAE | WanDecoder | TinyVAE:
        if self.dim is None:
            return TinyVAE("model")
        return WanDecoder(self.dim) if self.is_alone else WanVAE(self.dim)


def footprint(
    card: ModelCard,
    settings: RolloutSettings,
    decoder: DecoderKind,
    *,
    width: int,
    height: int,
    dtype: torch.dtype,
    at_once: int | None = None,
    weights: int | None = None,
    forward: type[Generator] = OptimizedGenerator,
) -> Footprint:
    """Of one stream at `width` x `height` pixels. `at_once`: latents that the decoder takes at a time; None: a whole chunk.

    `weights`: bytes of the generator's, where they are kept in other numbers than it computes with. `forward`: how it denoises."""
    one_step = replace(settings, schedule=settings.schedule[:1], first_schedule=None)
    own_weights, cache, denoising = _generator(forward, card, one_step, width, height, dtype)
    decoder_weights, past, decoding = _decoder(decoder, settings.chunk, at_once, width, height, dtype)
    held = dict(weights=own_weights if weights is None else weights, cache=cache, decoder_weights=decoder_weights, past=past)
    return Footprint(**held, denoising=denoising, decoding=decoding)


def _generator(
    forward: type[Generator], card: ModelCard, settings: RolloutSettings, width: int, height: int, dtype: torch.dtype
) -> tuple[int, int, int]:
    """Weights, cache, and what comes on top while a chunk is denoised and committed, over a full window."""
    few = [_few_layers(forward, replace(card, layers=min(layers, card.layers)), settings, width, height, dtype) for layers in FEW]
    more = max(0, card.layers - FEW[1]) / (FEW[1] - FEW[0])
    weights, cache, denoising, committing = (round(b + (b - a) * more) for a, b in zip(*few, strict=True))
    return weights, cache, max(denoising, committing)


def _few_layers(
    forward: type[Generator], card: ModelCard, settings: RolloutSettings, width: int, height: int, dtype: torch.dtype
) -> tuple[int, int, int, int]:
    """Weights, cache, and what comes on top while a chunk is denoised, and while it is committed: each grows evenly with the layers."""
    height, width = height // SPATIAL_STRIDE, width // SPATIAL_STRIDE
    with META:
        modules, adapters = WanModel(card).to(dtype), Adapters(card).to(dtype)
        anchor = Anchor(torch.empty(1, Z_DIM, 1, height, width))
    generator = forward(card, modules, adapters, attention=_attention, dtype=dtype, device=META)
    generator.new_cache(settings, 1, height, width)  # weights that are fused become views of one; what they were is let go
    there = [*modules.parameters(), *modules.buffers(), *adapters.parameters(), *adapters.buffers()]
    driving = Driving(audio_strength=0)  # what is heard is a few numbers to a frame, and the ear that some models want is not there
    driving = driving.bind(card, latent_height=height, latent_width=width, device=META, dtype=torch.float32)
    noise = SeededNoise(0, (1, Z_DIM, height, width))
    with Alive([*there, anchor.latent]) as alive, torch.no_grad():
        state = RolloutState.start(generator, anchor, settings)
        cache, last = alive.bytes, min(MOST_CHUNKS, settings.chunk_of(settings.past))
        denoising = committing = 0
        for item in rollout(generator, anchor, driving, settings, noise, state):
            if isinstance(item, Step):
                denoising = max(denoising, alive.most - cache)
            else:
                committing = max(committing, alive.most - cache)
                if item.index == last:
                    break
            alive.most = alive.bytes
    return sum(tensor.nbytes for tensor in there), cache, denoising, committing


@lru_cache(maxsize=64)
def _decoder(kind: DecoderKind, chunk: int, at_once: int | None, width: int, height: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """Weights, past, and what comes on top while latents become frames."""
    with META:
        network = kind.network().to(dtype)
    decoder = TinyDecoder(network, at_once) if isinstance(network, TinyVAE) else VideoDecoder(network, at_once)
    there = [*network.parameters(), *network.buffers()]
    most, first, state = 0, 0, DecoderState()
    for count in (1, chunk, chunk):  # the second time everything is remembered
        with Alive([*there, *state.past.values()]) as alive, torch.no_grad():
            latents = torch.empty(1, Z_DIM, count, height // SPATIAL_STRIDE, width // SPATIAL_STRIDE, device=META)
            decoder.decode(LatentChunk(0, LatentSpan(first, first + count), latents), state)
        most, first = alive.most, first + count
    return sum(tensor.nbytes for tensor in there), sum(tensor.nbytes for tensor in state.past.values()), most


class Alive(TorchDispatchMode):
    """Adds up what tensors take, or would take, as they come and go: those on `device`, but not what is `there`."""

    def __init__(self, there: Iterable[Tensor], device: torch.device = META) -> None:
        super().__init__()
        self._device = device
        self._there = [tensor.untyped_storage() for tensor in there]
        self._sizes = {storage._cdata: 0 for storage in self._there}
        self.bytes = self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.device.type == self._device.type:
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage) -> None:
        if storage._cdata in self._sizes:
            return
        self._sizes[storage._cdata] = storage.nbytes()
        self.bytes += storage.nbytes()
        self.most = max(self.most, self.bytes)
        weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, key: int) -> None:
        self.bytes -= self._sizes.pop(key)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """What the kernels for attention allocate: the answer, and no matrix of weights."""
    return torch.empty_like(q)
