"""Which preset a stream is made under in the host: by what its frames are made, how many at a time, and beside the denoising or after it.

"auto" keeps the VAE that is connected whatever the memory, so a workflow gives the same frames everywhere; a preset that somebody
chose takes a tiny decoder where the VAE has no room and the file is there, and for kf-tiny on a CPU its small decoder. What is decided is
computed in `kf_core/planning/presets.py`.
"""

from dataclasses import dataclass
from typing import Any

from ..kf_core.models.optimized_forward import OptimizedGenerator
from ..kf_core.planning.presets import AUTO, TINY, DecodePlan, plan
from ..kf_core.session.executor import Executor, executor_for
from ..kf_core.session.stream import Stream
from ..kf_core.vae.wan import SPATIAL_STRIDE
from .host import folders, models, vaes
from .host.small_decoder import with_small_decoder
from .wires import Recipe


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuned:
    """How a stream's frames are made."""

    decode_plan: DecodePlan
    vae: Any  # the host's VAE that makes them
    said: str  # what was chosen, and why; empty where there is nothing to choose

    def worker(self, stream: Stream) -> Executor:
        """Who makes the frames."""
        return executor_for(stream.model.device, decoder_device=stream.decoder.device, has_room=self.decode_plan.overlap_decode)


def tuned(recipe: Recipe, vae) -> Tuned:
    """What the recipe's preset decides with `vae` connected. Raises KnotForcingError for a VAE that makes no frames of these latents."""
    vaes.refuse_undecodable(vae)
    card, connected = models.card_of(recipe.model), vaes.decoder_kind(vae)
    height, width = (SPATIAL_STRIDE * size for size in recipe.anchor.latent.shape[-2:])
    tiny = None if connected == TINY or models.is_bundled(card) else folders.tiny_decoder_file()
    may_change = recipe.tune != AUTO and tiny is not None
    may_be_small = recipe.tune == "cpu" and models.is_bundled(card) and not connected.is_alone
    small = with_small_decoder(vae) if may_be_small else None
    others = (TINY,) if may_change else () if small is None else (vaes.decoder_kind(small),)
    found = plan(
        recipe.tune,
        card,
        recipe.settings,
        device=recipe.model.load_device,
        dtype=recipe.model.model.get_dtype_inference(),
        width=width,
        height=height,
        decoders=(connected, *others),
        weights=_weight_bytes(recipe),
        forward=OptimizedGenerator,
    )
    said = "" if found.is_usual else found.why
    if found.decode_plan.decoder != connected and small is not None:
        return Tuned(decode_plan=found.decode_plan, vae=small, said=said)
    if may_change and found.decode_plan.decoder == TINY:
        return Tuned(decode_plan=found.decode_plan, vae=vaes.load_vae(tiny), said=f"{said} {tiny} makes the frames.")
    if tiny is not None and not found.fits:
        said += f" {tiny} is there: choose {found.preset} in `tune`, and it makes the frames, faster and softer."
    return Tuned(decode_plan=found.decode_plan, vae=vae, said=said)


def _weight_bytes(recipe: Recipe) -> int:
    """Of all that is in memory while the recipe is denoised, as it is kept there."""
    driver = recipe.driver
    led = () if driver.vace is None else (driver.vace.patcher,)
    hears = () if driver.audio_encoder is None else (driver.audio_encoder.patcher,)
    return sum(patcher.model_size() for patcher in (recipe.model, *recipe.model.get_nested_additional_models(), *led, *hears))
