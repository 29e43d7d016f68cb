"""A recipe as a stream of kf_core, with everything that it needs in the host's memory while it lasts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management as management
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor, nn

from ...kf_core.conditioning.anchor import Anchor
from ...kf_core.content_id import fingerprint
from ...kf_core.memory import give_back
from ...kf_core.models.card import ModelCard
from ...kf_core.models.kv_cache import KVCache
from ...kf_core.models.optimized_forward import OptimizedGenerator
from ...kf_core.models.protocol import Attention
from ...kf_core.models.rope import Grid
from ...kf_core.planning.presets import DecodePlan
from ...kf_core.precision import fast_dtype
from ...kf_core.session.stream import Stream
from ...kf_core.settings import RolloutSettings
from ..wires import Recipe
from .encoders import encoders_for
from .folders import KEY
from .models import identity_of
from .vaes import decoder_of, refuse_undecodable, wan_vae
from .weights import patches_of


@contextmanager
def in_memory(recipe: Recipe, vae, decode_plan: DecodePlan | None = None) -> Iterator[Stream]:
    """The recipe as a stream of kf_core, with generator, adapters and decoder in memory while it lasts.

    `decode_plan`: how the frames are made; None: a chunk at a time, beside the denoising."""
    refuse_undecodable(vae)
    model, identity = recipe.model, identity_of(recipe.model)
    card, device = identity.card, recipe.model.load_device
    dtype = model.model.get_dtype_inference()
    beside = model.get_nested_additional_models()
    latent = recipe.anchor.latent
    decoder_dtype = fast_dtype(device) if management.is_device_cpu(device) else vae.vae_dtype
    frames, at_once = recipe.settings.denoised, None if decode_plan is None else decode_plan.at_once
    denoising = model.memory_required((1, card.in_channels, frames, *latent.shape[-2:]))
    decoding = vae.memory_used_decode((1, 16, at_once or frames, *latent.shape[-2:]), decoder_dtype)
    needed = cache_bytes(card, recipe.settings, latent.shape[-2:], dtype) + vae.model_size()
    needed += denoising + decoding if decode_plan is None or decode_plan.overlap_decode else max(denoising, decoding)
    encoders = encoders_for(card, recipe.driver, recipe.settings)
    led = () if recipe.driver.vace is None else (recipe.driver.vace.patcher,)
    management.load_models_gpu([model, *beside, *encoders.patchers, *led], memory_required=needed)
    model.pre_run()
    try:
        adapters = next((patcher.model for patcher in model.get_additional_models_with_key(KEY)), None)
        tree = HostModules(model.model.diffusion_model, fingerprint(identity.weights, patches_of(model)))
        attention = _attention(model.model_options.get("transformer_options", {}))
        vace = None if recipe.driver.vace is None else recipe.driver.vace.network
        yield Stream(
            model=OptimizedGenerator(card, tree, adapters, vace=vace, attention=attention, dtype=dtype, device=device),
            decoder=decoder_of(vae, decoder_dtype, device, at_once),
            anchor=Anchor(latent.to(device)),
            driving=recipe.driver.driving,
            settings=recipe.settings,
            seed=recipe.seed,
            seconds=recipe.seconds,
            audio_encoder=encoders.hears,
            text_encoder=encoders.reads,
            control_encoder=None if vace is None else wan_vae(recipe.driver.control_vae, decoder_dtype, device),
        )
    finally:
        model.cleanup()
        give_back()


class HostModules:
    """The host's module tree as the causal forward wants it: the same modules, called as the host calls them."""

    def __init__(self, tree: nn.Module, weights: str) -> None:
        self._tree = tree
        self.content_id = weights

    def patch_embedding(self, latents: Tensor) -> Tensor:
        return self._tree.patch_embedding(latents.float()).to(latents.dtype)  # the host keeps this one in float32

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tree, name)


def cache_bytes(card: ModelCard, settings: RolloutSettings, latent_size: tuple[int, int], dtype: torch.dtype) -> int:
    """What the generator's memory of the past takes, with the room for the frames being denoised: as the cache itself counts it."""
    heads = dict(layers=card.layers, heads=card.heads, head_dim=card.dim // card.heads)
    grid = Grid(latent_size[0] // 2, latent_size[1] // 2)
    one = KVCache(settings, batch=1, grid=grid, dtype=dtype, device="meta", **heads).num_bytes
    return 2 * one if settings.is_guided else one


def peak_vram_mib() -> int | None:
    """The most graphics memory this process has held; None without a graphics card."""
    return round(torch.cuda.max_memory_allocated() / 2**20) if torch.cuda.is_available() and not management.cpu_mode() else None


def _attention(options: dict) -> Attention:
    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return optimized_attention(q, k, v, q.shape[1], mask=mask, skip_reshape=True, skip_output_reshape=True, transformer_options=options)

    return attend
