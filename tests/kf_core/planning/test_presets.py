"""What a preset decides fits its card, by computation, and is said in a sentence."""

import pytest
import torch

from kf_core.checkpoints.known_models import KNOWN
from kf_core.metrics.random_model import PRESETS as RANDOM
from kf_core.planning.memory import DecoderKind, footprint
from kf_core.planning.presets import CHOICES, PRESETS, TINY, Plan, plan, preset_for, reads_on_device, usable

CARD, VAE, CPU = RANDOM["wan-1.3b"].card, DecoderKind(dim=96), torch.device("cpu")


def planned(preset: str, *decoders: DecoderKind, width: int = 512, height: int = 512) -> Plan:
    return plan(preset, CARD, CARD.rollout, device=CPU, dtype=torch.bfloat16, width=width, height=height, decoders=decoders)


def test_more_memory_never_makes_it_worse():
    ways = [planned(name, VAE, TINY).decode_plan for name in PRESETS]
    assert ways[0].decoder == TINY and all(way.decoder == VAE for way in ways[1:])
    assert [way.overlap_decode for way in ways] == sorted(way.overlap_decode for way in ways) and ways[-1].at_once is None


def test_what_is_decided_needs_what_is_said():
    for name in PRESETS:
        found = planned(name, VAE, TINY)
        way = found.decode_plan
        need = footprint(CARD, CARD.rollout, way.decoder, width=512, height=512, dtype=torch.bfloat16, at_once=way.at_once)
        assert found.fits and need.peak(way.overlap_decode) == found.needed <= usable(PRESETS[name]) and "(computed)" in found.why


def test_what_does_not_fit_is_said_with_advice():
    found = planned("8gb", VAE, width=832, height=480)
    assert not found.fits and "smaller, or add a tiny decoder" in found.why


def test_only_the_cpu_asked_for_by_name_takes_the_small_decoder():
    small = DecoderKind(dim=48, is_alone=True)
    asked = planned("cpu", VAE, small)
    assert asked.decode_plan.decoder == small and not asked.is_usual and "the small decoder makes the frames" in asked.why
    assert planned("auto", VAE, small).decode_plan.decoder == VAE and planned("auto", VAE, small).is_usual
    for decoders in ((VAE,), (VAE, TINY), (small,)):  # a tiny decoder is for want of memory, and what was given is kept
        assert planned("cpu", *decoders).decode_plan.decoder == decoders[0] and planned("cpu", *decoders).is_usual


@pytest.mark.parametrize("row", [row for row in KNOWN if row.key != "krea"], ids=lambda row: row.key)
def test_every_known_model_of_this_size_fits_a_card_of_16_gb(row):
    card = row.card()
    found = plan("16gb", card, card.rollout, device=CPU, dtype=torch.bfloat16, width=512, height=512, decoders=(VAE, TINY))
    assert found.fits and 3 * 2**30 < found.needed


def test_auto_takes_what_the_machine_is():
    assert preset_for(CPU) == "cpu" and preset_for(torch.device("mps")) == "mps"
    assert planned("auto", VAE).why == "Preset cpu, because it runs on the processor."


@pytest.mark.parametrize("preset", CHOICES)
def test_a_reader_of_eleven_gigabytes_reads_where_it_has_room(preset):
    assert reads_on_device(preset, CPU) == (preset in ("auto", "cpu", "16gb", "24gb"))
