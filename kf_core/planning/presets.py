"""Presets: how a model is run on a card of 8, 12, 16 or 24 GB, on a Mac, on a CPU; and which one suits the machine at hand.

A preset is an amount of memory; what it decides is computed (`footprint.py`): of some ways to run a stream, best first, the first that
fits. Nothing that it decides needs a compiler. Computed, and not measured on cards. On a CPU time is scarce, and not memory: who asks for
that preset by name gets the small decoder, where there is one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..models.card import ModelCard
from ..models.causal import Generator
from ..models.optimized_forward import OptimizedGenerator
from ..settings import RolloutSettings
from .memory import DecoderKind, footprint

GIB = 2**30
PRESETS = {"8gb": 8 * GIB, "12gb": 12 * GIB, "16gb": 16 * GIB, "24gb": 24 * GIB}
AUTO = "auto"
CHOICES = (AUTO, *PRESETS, "mps", "cpu")
TINY = DecoderKind(dim=None)
TAKEN = 0.75 * GIB  # by the driver, the libraries and the desktop, on a card
WASTE = 0.07  # of a card: pages that an allocator cannot use
READER_BYTES = 11.4e9  # UMT5-XXL in 16 bits


@dataclass(frozen=True)
class DecodePlan:
    """One way to run a stream."""

    decoder: DecoderKind
    at_once: int | None  # latents decoded at a time; None: a whole chunk
    overlap_decode: bool  # frames are made while the next chunk is denoised

    def describe(self) -> str:
        name = "a tiny decoder" if self.decoder == TINY else "the small decoder" if self.decoder.is_alone else "the VAE"
        how = "a chunk at a time" if self.at_once is None else "a latent at a time"
        return f"{name}, {how}, {'beside the denoising' if self.overlap_decode else 'in turn with the denoising'}"


@dataclass(frozen=True)
class Plan:
    """What a preset decides for one model at one size."""

    preset: str
    decode_plan: DecodePlan
    needed: int | None  # bytes, computed; None: not asked, because main memory is not scarce
    usable: int | None  # bytes
    why: str
    is_usual: bool = False  # nothing is decided that anybody would have to hear of

    @property
    def fits(self) -> bool:
        return self.needed is None or self.needed <= self.usable


def usable(memory: int) -> int:
    """Bytes that a stream may take of a card."""
    return round(memory * (1 - WASTE) - TAKEN)


def preset_for(device: torch.device) -> str:
    """The preset that suits a device."""
    if device.type not in ("cuda", "mps"):
        return "cpu"
    if device.type == "mps":
        return "mps"
    memory = torch.cuda.get_device_properties(device).total_memory
    # a card shows a little less than is printed on its box
    return max((name for name, size in PRESETS.items() if size * 0.93 <= memory), key=PRESETS.get, default="8gb")


def plan(
    preset: str,
    card: ModelCard,
    settings: RolloutSettings,
    *,
    device: torch.device,
    dtype: torch.dtype,
    width: int,
    height: int,
    decoders: tuple[DecoderKind, ...],
    weights: int | None = None,
    forward: type[Generator] = OptimizedGenerator,
) -> Plan:
    """What `preset` (or "auto") decides. `decoders`: those that are there, the better one first; `weights`, `forward`: as `footprint`."""
    is_auto, preset = preset == AUTO, preset_for(device) if preset == AUTO else preset
    chosen = f"{preset}, because {_reason(preset, device)}" if is_auto else preset
    if preset == "cpu":
        small = None if is_auto else next((decoder for decoder in decoders[1:] if decoder.is_alone), None)
        if small is None:
            return Plan(preset, DecodePlan(decoders[0], None, True), None, None, f"Preset {chosen}.", is_usual=True)
        why = f"Preset {chosen}: the small decoder makes the frames, faster and softer."
        return Plan(preset, DecodePlan(small, None, True), None, None, why)
    if preset == "mps":
        way = DecodePlan(decoders[0], 1, False)  # one queue of commands, and memory that the whole machine shares
        return Plan(preset, way, None, None, f"Preset {chosen}: {way.describe()}.")
    room = usable(PRESETS[preset])
    size = dict(width=width, height=height, dtype=dtype, weights=weights, forward=forward)
    for way in _ways(decoders):
        found = footprint(card, settings, way.decoder, at_once=way.at_once, **size)
        needed = found.peak(way.overlap_decode)
        if needed <= room:
            break
    said = f"{card.name} at {width}x{height} needs {needed / GIB:.1f} of {room / GIB:.1f} GiB with {way.describe()} (computed)"
    plan = Plan(preset, way, needed, room, f"Preset {chosen}: {said}.")
    if plan.fits:
        return plan
    advice = "Make the frames smaller" + ("" if TINY in decoders else ", or add a tiny decoder (taew2_1)")
    return Plan(preset, way, needed, room, f"{plan.why} That may be too much. {advice}.")


def reads_on_device(preset: str, device: torch.device) -> bool:
    """Whether UMT5 has room where the generator will be; else it reads on the CPU, before the generator is loaded."""
    preset = preset_for(device) if preset == AUTO else preset
    return preset == "cpu" or preset in PRESETS and usable(PRESETS[preset]) > READER_BYTES


def _ways(decoders: tuple[DecoderKind, ...]) -> Iterator[DecodePlan]:
    """The best first: sharp frames before fast ones, and both at once before one after the other."""
    for decoder in decoders:
        yield DecodePlan(decoder, None, True)
        yield DecodePlan(decoder, 1, True)
        yield DecodePlan(decoder, 1, False)


def _reason(preset: str, device: torch.device) -> str:
    if preset in PRESETS:
        facts = torch.cuda.get_device_properties(device)
        return f"{facts.name} has {facts.total_memory / GIB:.1f} GiB"
    return "it runs on this Mac's graphics" if preset == "mps" else "it runs on the processor"
