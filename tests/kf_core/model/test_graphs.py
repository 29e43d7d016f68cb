"""Passes that are recorded draw what they draw otherwise, to the last bit, whatever changes from pass to pass.

Recorded by a tape that works as a card's recorder does (`tape.py`), and by a card where there is one.
"""

import gc
import logging
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

from kf_core.chunks import ChunkConditioning, LatentChunk
from kf_core.conditioning.anchor import Anchor
from kf_core.conditioning.driving import Driving
from kf_core.evaluation.random_model import knot_forcing, random_generator
from kf_core.model.attention import sdpa
from kf_core.model.causal import Generator
from kf_core.model.compiled import compile_blocks
from kf_core.model.fp8 import with_float8
from kf_core.model.graphs import record_passes
from kf_core.model.hot_path import Given, HotGenerator
from kf_core.model.recordings import Recordings
from kf_core.model.wan import WanModel
from kf_core.sampling.noise import SeededNoise
from kf_core.sampling.rollout import RolloutState, rollout, segment_of
from kf_core.settings import RolloutSettings
from kf_core.timeline import LatentSpan
from tests.kf_core.model.tape import Again, Tape
from tests.kf_core.model.test_hot_path import FORMS, Idle, Reading, first_chunks, hot
from tests.kf_core.tiny import CARD, HEIGHT, SETTINGS, WIDTH, Waves, frames, generator, noise, portrait

needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no card here")
KNOT_FORCING = knot_forcing("tiny", 48, 32, dim=64, ffn_dim=128, layers=3, heads=2)


class Changing(Waves):
    """Driven from frame 6 to 12 only, and by a prompt that changes at frame 9."""

    def window(self, span):
        driven = super().window(span) if 6 <= span.start < 12 else ChunkConditioning(span=span)
        return replace(driven, text=Reading.words[span.start >= 9])


def taped(model: Generator, **settings) -> tuple[HotGenerator, list[Tape]]:
    """The same weights, recorded; and the tapes, one for each stream."""
    model, tapes = hot(model), []
    model.recorder = lambda: tapes.append(Tape(**settings)) or tapes[-1]
    return model, tapes


def recordings(state: RolloutState) -> Recordings:
    return next(iter(state.cache._made["recordings"].values()))


@pytest.mark.parametrize("driving", (Waves(), Idle(), Reading(), Changing()), ids=("driven", "idle", "reading", "changing"))
@pytest.mark.parametrize("form", FORMS)
def test_recorded_passes_draw_the_same_bit_for_bit(form, driving):
    settings = RolloutSettings(**{"schedule": SETTINGS.schedule, "anchor": SETTINGS.anchor, **FORMS[form]})
    plain = generator(replace(CARD, rollout=settings))
    model, tapes = taped(plain)
    draw = lambda model: frames(20, settings, model=model, driving=driving)
    assert torch.equal(draw(model), draw(hot(plain)))
    assert sum(tape.repeated for tape in tapes) > 0


@pytest.mark.parametrize("change", (dict(guidance=3.0), dict(renoise=False)), ids=("guided", "an Euler step"))
def test_what_a_pass_gave_is_still_there_after_the_next(change):
    settings = replace(SETTINGS, **change)
    plain = generator(replace(CARD, rollout=settings))
    model, tapes = taped(plain)
    draw = lambda model: frames(14, settings, model=model, driving=Reading())
    assert torch.equal(draw(model), draw(hot(plain)))
    assert sum(tape.repeated for tape in tapes) > 10


def test_every_tensor_that_a_pass_is_given_counts_each_time_anew():
    """One after the other is another one, and a recorded pass gives what a pass that is not recorded gives."""
    (model, _), driving, span = taped(generator()), Reading(), LatentSpan(12, 16)
    state = RolloutState.start(model, portrait(), SETTINGS)
    first_chunks(rollout(model, portrait(), driving, SETTINGS, noise(), state), 4)
    memory, latents = state.cache.place(SETTINGS.anchor.place(span.stop)), noise(5)(span, 0).double()
    with torch.no_grad():
        segment = segment_of(model, portrait(), latents, span, 500.0, None, SETTINGS, driving.window(span), memory)
        given, rooms = model._given(segment, state.text), model._rooms(segment)
        ask = lambda given: model._repeated(segment, given)
        for _ in range(3):
            before = ask(given)
        tape = recordings(state)._recorder
        names = list(given.named())
        assert len(names) > 10
        for name in names:
            other = Given.of({**given.named(), name: given.named()[name] * 1.5})
            found = ask(other)
            assert torch.equal(found, model._pass(other, rooms, None)), name
            assert not torch.equal(found, before), name
        assert torch.equal(ask(given), before)
        room = rooms[1]
        for remembered in (room.keys[:, :, : room.remembered], room.values[:, :, : room.remembered]):
            remembered *= 1.5
            found = ask(given)
            assert torch.equal(found, model._pass(given, rooms, None)) and not torch.equal(found, before)
    assert tape.recorded == len(recordings(state)) and tape.repeated > len(names)


def test_samples_of_a_batch_and_other_sizes_are_drawn_the_same():
    plain = generator()
    model = taped(plain)[0]

    def draw(model, batch: int, height: int) -> torch.Tensor:
        anchor = Anchor(torch.randn(batch, 16, 1, height, WIDTH, generator=torch.Generator().manual_seed(0)).double())
        stream = rollout(model, anchor, Idle(batch=batch), SETTINGS, SeededNoise(0, (batch, 16, height, WIDTH)))
        return torch.cat([chunk.latents for chunk in first_chunks(stream, 4)], dim=2)

    for batch, height in ((1, 4), (2, 4), (1, 8)):
        assert torch.equal(draw(model, batch, height), draw(hot(plain), batch, height))


def test_two_streams_on_one_model_do_not_disturb_each_other():
    plain = generator()
    model = taped(plain)[0]
    alone = [frames(15, model=hot(plain), seed=seed) for seed in range(2)]
    streams = [rollout(model, portrait(), Waves(), SETTINGS, noise(seed)) for seed in range(2)]
    together = [[], []]
    for turn in range(35):  # a step or a chunk of one, then of the other, out of step with each other
        which = (turn * turn) % 3 % 2
        together[which].append(next(streams[which]))
    for drawn, expected in zip(together, alone, strict=True):
        latents = torch.cat([item.latents for item in drawn if isinstance(item, LatentChunk)], dim=2)
        assert latents.shape[2] >= 6 and torch.equal(latents[:, :, :15], expected[:, :, : latents.shape[2]])


def test_a_state_goes_on_whether_or_not_passes_are_recorded():
    plain = generator()
    whole = frames(15, model=hot(plain))
    for before, after in ((hot(plain), taped(plain)[0]), (taped(plain)[0], hot(plain)), (taped(plain)[0], taped(plain)[0])):
        state = RolloutState.start(before, portrait(), SETTINGS)
        first = frames(6, model=before, state=state)
        restored = RolloutState.restore(state.tensors(), after, portrait(), SETTINGS)
        for rest in (frames(9, model=after, state=restored), frames(9, model=after, state=state)):
            assert torch.equal(torch.cat((first, rest), dim=2), whole)


def test_nothing_is_recorded_and_no_memory_taken_once_the_window_is_full():
    model, tapes = taped(generator())
    state = RolloutState.start(model, portrait(), SETTINGS)
    seen = []
    for item in rollout(model, portrait(), Waves(), SETTINGS, noise(), state):
        if isinstance(item, LatentChunk):
            seen.append((tapes[0].rehearsed, tapes[0].recorded, recordings(state).num_bytes))
        if len(seen) == 20:
            break
    fills = -(-SETTINGS.past // SETTINGS.chunk) + 1
    assert seen[fills:] == [seen[-1]] * (20 - fills), seen
    assert seen[-1][:2] == (2 * fills, 2 * fills - 1)  # the first fill is committed to once


def test_what_a_stream_recorded_goes_with_it_and_with_the_last_stream_the_model():
    """At once, and not when Python next looks for what holds each other: it is the memory of a card."""
    model = hot(generator())
    model.recorder = Tape
    state, is_there = RolloutState.start(model, portrait(), SETTINGS), weakref.ref(model)
    gc.disable()
    try:
        frames(9, model=model, state=state)
        recorded = weakref.ref(recordings(state))
        assert len(recorded()) > 0
        del state
        assert recorded() is None
        del model
        assert is_there() is None
    finally:
        gc.enable()


def test_weights_that_move_are_recorded_anew_and_weights_that_change_are_seen():
    plain = generator()
    model, tapes = taped(plain)
    streams = [rollout(each, portrait(), Waves(), SETTINGS, noise()) for each in (model, hot(plain))]
    go_on = lambda: [torch.cat([chunk.latents for chunk in first_chunks(stream, 3)], dim=2) for stream in streams]
    go_on()
    recorded, weight = tapes[0].recorded, plain.modules.blocks[1].ffn[0].weight

    weight.data.mul_(1.1)  # where they are, as a LoRA is folded in
    assert torch.equal(*go_on()) and len(tapes) == 1 and tapes[0].recorded == recorded

    held = weight.data  # the old place is still there, and is no longer what counts
    weight.data = held * 1.1
    assert torch.equal(*go_on()) and len(tapes) == 2 and tapes[1].recorded == 2


def test_8_bit_weights_are_recorded_too():
    exact, model = random_generator(KNOT_FORCING, dtype=torch.float32), random_generator(KNOT_FORCING, dtype=torch.float32)
    tape = Tape()
    for each in (exact, model):
        with_float8(each)
    model.recorder = lambda: tape
    draw = lambda model: frames(14, model=model, anchor=portrait(torch.float32))
    assert torch.equal(draw(model), draw(exact)) and tape.repeated > 5


def test_compiled_blocks_are_compiled_before_they_are_recorded_and_draw_the_same():
    torch._dynamo.reset()
    compiled = []

    def counted(module, inputs):
        compiled.append(module)
        return module.forward

    class Watched(Again):
        def record(self, deed):
            before = len(compiled)
            deed()
            assert len(compiled) == before, "compiled while it was recorded"
            return deed

    plain = generator(dtype=torch.float32)
    model = hot(plain)
    assert "are compiled" in compile_blocks(model, counted)
    model.recorder = Watched
    found = frames(14, model=model, anchor=portrait(torch.float32))
    exact = frames(14, model=hot(plain), anchor=portrait(torch.float32))
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-5 * float(exact.abs().max()))
    assert len(compiled) > 3
    torch._dynamo.reset()


@pytest.mark.parametrize("recorded", range(3))
def test_a_pass_that_cannot_be_recorded_is_drawn_and_said_once(recorded, caplog):
    plain = generator()
    model, tapes = taped(plain, fails=lambda count: count == recorded)
    state = RolloutState.start(model, portrait(), SETTINGS)
    with caplog.at_level(logging.WARNING):
        found = frames(14, model=model, state=state)
        frames(6, model=model)  # another stream does not try again
    assert torch.equal(found, frames(14, model=hot(plain)))
    (said,) = [record.getMessage() for record in caplog.records]
    assert "without CUDA graphs" in said and "operation not permitted" in said and "\n" not in said
    assert model.recorder is None and tapes[0].closed == 1 and "recordings" not in state.cache._made


def test_an_attention_that_looks_at_numbers_is_drawn_as_it_is(caplog):
    def looking(q, k, v, mask=None):
        return sdpa(q, k, v, mask) * (1.0 if float(q.abs().max()) > 0 else 0.0)

    plain = generator()
    plain.attention = looking
    model = taped(plain)[0]
    assert torch.equal(frames(9, model=model), frames(9, model=hot(plain))) and model.recorder is None


def test_on_a_cpu_there_are_none_and_a_sentence_says_so():
    model = hot(generator())
    said = record_passes(model)
    assert said.startswith("No CUDA graphs are recorded: they need an NVIDIA or AMD card, and this runs on cpu.") and model.recorder is None


@needs_card
def test_a_card_without_room_for_it_records_nothing():
    model = random_generator(KNOT_FORCING, dtype=torch.float32, device="cuda")
    assert "keep the memory of a pass" in record_passes(model, has_room=False) and model.recorder is None


def test_a_hosts_layers_are_not_recorded():
    class HostLinear(nn.Linear):
        """It may bring its weight to the card when it is called, each time to another place."""

    class Layers:
        Linear, Conv3d, LayerNorm, RMSNorm = HostLinear, nn.Conv3d, nn.LayerNorm, nn.RMSNorm

    model = HotGenerator(CARD, WanModel(CARD, Layers))
    assert "the layers are a host's (HostLinear)" in record_passes(model) and model.recorder is None


def _on(device: str, dtype: torch.dtype = torch.float32) -> tuple[HotGenerator, Anchor, object]:
    model = random_generator(KNOT_FORCING, dtype=dtype, device=device)
    driving = Driving().bind(KNOT_FORCING, latent_height=HEIGHT, latent_width=WIDTH, device=torch.device(device))
    return model, Anchor(portrait(torch.float32).latent.to(device)), driving


@pytest.mark.parametrize("device", ("cpu", pytest.param("cuda", marks=needs_card)))
def test_on_a_device_recorded_passes_draw_the_same(device, caplog):
    (exact, anchor, driving), (model, *_) = _on(device), _on(device)
    said = record_passes(model)
    assert (model.recorder is not None) == (device == "cuda"), said
    draw = lambda model: frames(14, KNOT_FORCING.rollout, model=model, anchor=anchor, driving=driving)
    torch.testing.assert_close(draw(model), draw(exact), rtol=0, atol=1e-5)
    assert not caplog.records


@needs_card
def test_a_card_goes_on_after_a_recording_that_failed_and_has_its_memory_again():
    model, anchor, driving = _on("cuda")
    assert "are recorded" in record_passes(model)

    def looking(q, k, v, mask=None):
        return sdpa(q, k, v, mask) * (1.0 if float(q.abs().max()) > 0 else 0.0)

    for block in model.blocks:
        block.attention = looking
    draw = lambda: frames(14, KNOT_FORCING.rollout, model=model, anchor=anchor, driving=driving)
    draw()
    assert model.recorder is None
    here = torch.cuda.current_stream()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    draw()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() == before and torch.cuda.current_stream() == here
