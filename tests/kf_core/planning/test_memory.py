"""What is computed of memory without numbers is what tensors with numbers take."""

from dataclasses import replace

import pytest
import torch

from kf_core.conditioning.anchor import Anchor
from kf_core.conditioning.driving import Driving
from kf_core.metrics.random_model import knot_forcing, random_decoder, random_generator
from kf_core.models.card import TextSpec
from kf_core.planning.memory import Alive, DecoderKind, Footprint, footprint
from kf_core.sampling.noise import SeededNoise
from kf_core.sampling.rollout import rollout
from kf_core.sampling.state import RolloutState
from kf_core.timeline import LatentSpan
from kf_core.types import LatentChunk, Step
from kf_core.vae import optimized_decoder
from kf_core.vae.streaming import DecoderState

SIDE = 64
DECODED_SIDE = 16  # few pixels: a CPU without bfloat16 takes a hundred times as long for its convolutions
CARD = knot_forcing("small", SIDE, SIDE, dim=256, ffn_dim=1024, layers=6, heads=2)
CARD = replace(CARD, text=TextSpec(kind="umt5", width=64, tokens=8))  # the prompt itself lies on the CPU, wherever the model is
BF16, CPU = torch.bfloat16, torch.device("cpu")


def computed(decoder: DecoderKind, at_once: int | None = None, side: int = SIDE) -> Footprint:
    return footprint(CARD, CARD.rollout, decoder, width=side, height=side, dtype=BF16, at_once=at_once)


def test_drawing_takes_what_was_computed():
    generator, anchor = random_generator(CARD, dtype=BF16), Anchor(torch.zeros(1, 16, 1, SIDE // 8, SIDE // 8))
    settings = replace(CARD.rollout, schedule=CARD.rollout.schedule[:1])
    driving = Driving().bind(CARD, latent_height=SIDE // 8, latent_width=SIDE // 8, device=CPU, dtype=torch.float32)
    generator.new_cache(settings, 1, SIDE // 8, SIDE // 8)  # fuses weights: views of one, and what they were is let go
    there = [*generator.modules.parameters(), *generator.adapters.parameters(), anchor.latent]
    wanted = computed(DecoderKind(dim=16))
    assert sum({part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in there[:-1]}.values()) == wanted.weights
    with Alive(there, CPU) as alive:
        state = RolloutState.start(generator, anchor, settings)
        assert state.cache.num_bytes == alive.bytes == wanted.cache
        for item in rollout(generator, anchor, driving, settings, SeededNoise(0, (1, 16, SIDE // 8, SIDE // 8)), state):
            if not isinstance(item, Step) and item.index == 2:
                break
    assert alive.most - wanted.cache == pytest.approx(wanted.denoising, rel=0.25)


def test_guidance_takes_a_second_past_and_nothing_else_that_lasts():
    guided = footprint(CARD, replace(CARD.rollout, guidance=6.0), DecoderKind(dim=16), width=SIDE, height=SIDE, dtype=BF16)
    plain = computed(DecoderKind(dim=16))
    past = random_generator(CARD, dtype=BF16).new_cache(CARD.rollout, 1, SIDE // 8, SIDE // 8).num_bytes
    assert (guided.cache, guided.weights, guided.past) == (plain.cache + past, plain.weights, plain.past)
    assert plain.denoising < guided.denoising < 1.5 * plain.denoising  # one pass after the other


@pytest.mark.parametrize("tiny, at_once", [(False, None), (False, 1), (True, None), (True, 1)])
def test_decoding_takes_what_was_computed(tiny, at_once, monkeypatch):
    monkeypatch.setattr(optimized_decoder, "serves", lambda raw: False)  # what is computed is what a card runs
    decoded_as_computed(tiny, at_once, most=1.1)


def test_decoding_on_a_cpu_takes_little_more_than_was_computed():
    """Its one buffer is held throughout."""
    decoded_as_computed(tiny=False, at_once=1, most=1.2)


def decoded_as_computed(tiny: bool, at_once: int | None, most: float) -> None:
    decoder, state, first = random_decoder(tiny=tiny, dim=16, dtype=BF16), DecoderState(), 0
    decoder.at_once = at_once
    for count in (1, 3, 3):
        with Alive([*decoder.vae.parameters(), *state.past.values()], CPU) as alive:
            latents = torch.zeros(1, 16, count, DECODED_SIDE // 8, DECODED_SIDE // 8)
            decoder.decode(LatentChunk(0, LatentSpan(first, first + count), latents), state)
        first += count
    wanted = computed(DecoderKind(dim=None if tiny else 16), at_once, DECODED_SIDE)
    assert 0.9 * wanted.decoding <= alive.most <= most * wanted.decoding
    assert sum(tensor.nbytes for tensor in state.past.values()) == wanted.past


def test_weights_are_counted_to_the_byte():
    generator, decoder = random_generator(CARD, dtype=BF16), random_decoder(tiny=False, dim=16, dtype=BF16)

    def count(*networks):
        return sum(p.nbytes for network in networks for p in network.state_dict().values())

    wanted = computed(DecoderKind(dim=16))
    assert wanted.weights == count(generator.modules, generator.adapters) and wanted.decoder_weights == count(decoder.vae)


def test_beside_the_drawing_takes_more_and_fewer_latents_at_once_take_less():
    whole, one = computed(DecoderKind(dim=16)), computed(DecoderKind(dim=16), at_once=1)
    assert whole.peak(overlap_decode=True) == whole.peak(overlap_decode=False) + min(whole.denoising, whole.decoding)
    assert one.decoding < whole.decoding and one.past == whole.past
