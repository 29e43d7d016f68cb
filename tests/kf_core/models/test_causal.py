"""The laws of the causal forward."""

from dataclasses import replace

import torch

from kf_core.models.causal import Segment, sdpa
from kf_core.models.visibility import training_mask
from kf_core.sampling.chunk_context import ChunkContext, anchor_segment
from kf_core.sampling.rollout import commit, rollout
from kf_core.sampling.state import RolloutState
from kf_core.timeline import LatentSpan
from kf_core.types import Signal, TextContext

from ..tiny import CARD, HEIGHT, SETTINGS, WIDTH, Waves, generator, noise, portrait


def segment(start: int, count: int, seed: int = 0, **changes) -> Segment:
    latents = torch.randn(1, 33, count, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    span = LatentSpan(start, start + count)
    defaults = dict(positions=torch.arange(start, start + count), t=torch.full((count,), 500.0), driving=Waves().window(span))
    return Segment(latents=latents, **{**defaults, **changes})


def test_segments_of_one_forward_do_not_see_each_other():
    model = generator()
    text = model.encode_text(None)
    a, b = segment(0, 3, seed=1), segment(8, 2, seed=2, t=torch.tensor([0.0, 625.0]))
    together = model.forward([a, b], text)
    for alone, ours in zip((model.forward([a], text), model.forward([b], text)), together, strict=True):
        torch.testing.assert_close(ours, alone[0], rtol=0, atol=1e-12)


def test_the_place_in_time_is_relative():
    """Only distances matter, so an hour into the stream is like its beginning: positions past 30,000 are exact."""
    model = generator()
    text = model.encode_text(None)
    near, far = segment(0, 4), segment(0, 4, positions=torch.arange(30_000, 30_004))
    torch.testing.assert_close(model.forward([near], text)[0], model.forward([far], text)[0], rtol=0, atol=1e-9)


def test_a_moved_anchor_equals_an_anchor_encoded_at_the_new_place():
    """Running ahead is exactly rotating cached keys: the portrait attends only to itself."""
    model, anchor = generator(), portrait()
    text = model.encode_text(None)
    for place in (11, 4711):
        state = RolloutState.start(model, anchor, SETTINGS)
        state.read_prompt(model, anchor, Waves().window(LatentSpan(0, 1)))
        drawn = segment(3, 4)
        (moved,) = model.forward([replace(drawn, reads=state.cache.apply_rope(place))], text)

        # The same frames in one masked pass, with the portrait really standing there.
        there = anchor_segment(model, anchor)
        mask = training_mask(LatentSpan(3, 3), LatentSpan(3, 7), SETTINGS)
        silent = Signal(torch.zeros(1, 1, 20).double(), 0.0)
        whole = replace(
            drawn,
            latents=torch.cat((there.latents, drawn.latents), dim=2),
            positions=torch.cat((torch.tensor([place]), drawn.positions)),
            t=torch.cat((torch.zeros(1), drawn.t)),
            driving=with_silent_anchor(drawn.driving, silent),
            mask=mask,
        )
        (encoded,) = model.forward([whole], text)
        assert (moved - encoded[:, :, 1:]).abs().max() < 1e-10


def with_silent_anchor(driving, silent):
    """The driving of some frames with one frame before them that nothing drives."""

    def lead(signal: Signal) -> Signal:
        features = torch.cat((torch.zeros_like(signal.features[:, :1]), signal.features), dim=1)
        strength = torch.full(features.shape[:2], float(signal.strength), dtype=torch.float64)
        strength[:, 0] = 0
        return Signal(features, strength)

    names = ("audio", "pose", "expression", "motion")
    return replace(driving, **{name: lead(getattr(driving, name)) for name in names})


def test_the_training_pass_equals_the_rollout_pass():
    """One masked pass over [anchor | past | current] gives what committing the past and reading it gives."""
    model, anchor = generator(), portrait()
    past, current = LatentSpan(0, 3), LatentSpan(3, 7)
    latents = torch.randn(1, 16, 7, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    state = RolloutState.start(model, anchor, SETTINGS)
    state.read_prompt(model, anchor, Waves().window(past))
    place = 20
    values = dict(model=model, anchor=anchor, settings=SETTINGS, knot=None)
    first = ChunkContext(span=past, driving=Waves().window(past), past=state.cache.apply_rope(place), **values)
    commit(first, state, latents[:, :, :3])
    second = ChunkContext(span=current, driving=Waves().window(current), past=state.cache.apply_rope(place), **values)
    drawn = second.segment(latents[:, :, 3:], 625.0)
    (stepwise,) = model.forward([drawn], state.text)

    clean = replace(first, past=None).segment(latents[:, :, :3], 0.0)
    whole = Segment(
        latents=torch.cat((anchor_segment(model, anchor).latents, clean.latents, drawn.latents), dim=2),
        positions=torch.tensor([place, *past, *current]),
        t=torch.cat((torch.zeros(1).double(), clean.t, drawn.t)),
        driving=with_silent_anchor(Waves().window(LatentSpan(0, 7)), None),
        mask=training_mask(past, current, SETTINGS),
    )
    (at_once,) = model.forward([whole], state.text)
    assert (stepwise - at_once[:, :, 4:]).abs().max() < 1e-10


def test_a_signal_of_strength_zero_equals_no_signal():
    model = generator()
    text = model.encode_text(None)
    full = Waves().window(LatentSpan(0, 3))
    names = ("audio", "pose", "expression", "motion")
    zero = replace(full, **{n: Signal(getattr(full, n).features, 0.0) for n in names})
    none = replace(full, **{n: None for n in names})
    outputs = [model.forward([segment(0, 3, driving=d)], text)[0] for d in (zero, none, full)]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-12)
    assert (outputs[0] - outputs[2]).abs().max() > 1e-3


def test_each_signal_is_heard():
    model = generator()
    text = model.encode_text(None)
    full = Waves().window(LatentSpan(0, 3))
    (reference,) = model.forward([segment(0, 3, driving=full)], text)
    for name in ("audio", "pose", "expression", "motion"):
        (without,) = model.forward([segment(0, 3, driving=replace(full, **{name: None}))], text)
        assert (without - reference).abs().max() > 1e-3, name


def test_samples_of_a_batch_may_stand_at_different_times():
    model = generator()
    text = model.encode_text(None)
    a, b = segment(0, 3, seed=1), segment(5, 3, seed=2)
    both = Segment(
        latents=torch.cat((a.latents, b.latents)),
        positions=torch.stack((a.positions, b.positions * 2)),
        t=torch.stack((a.t, torch.tensor([0.0, 300.0, 900.0]))),
    )
    (ours,) = model.forward([both], text)
    (first,) = model.forward([replace(a, driving=None)], text)
    (second,) = model.forward([replace(b, driving=None, positions=b.positions * 2, t=torch.tensor([0.0, 300.0, 900.0]))], text)
    torch.testing.assert_close(ours, torch.cat((first, second)), rtol=0, atol=1e-12)


def test_attention_and_layer_classes_can_be_handed_in():
    from kf_core.models.causal import Generator
    from kf_core.models.wan import WanModel

    class Counted(torch.nn.Linear):
        made = 0

        def __init__(self, *args, **kwargs):
            Counted.made += 1
            super().__init__(*args, **kwargs)

    class Layers:
        Linear, Conv3d, LayerNorm, RMSNorm = Counted, torch.nn.Conv3d, torch.nn.LayerNorm, torch.nn.RMSNorm

    calls = []

    def attention(q, k, v, mask=None):
        calls.append(q.shape)
        return sdpa(q, k, v, mask)

    model = Generator(CARD, WanModel(CARD, Layers), attention=attention)
    model.forward([segment(0, 2, driving=None)], model.encode_text(None))
    assert Counted.made == len([m for m in model.modules.modules() if isinstance(m, torch.nn.Linear)]) > 0
    assert len(calls) == 2 * CARD.layers


def test_a_changed_prompt_is_read_once_and_encodes_the_anchor_again():
    model, anchor = generator(), portrait()

    def prompt(seed: int) -> TextContext:
        return TextContext(torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(seed)))

    class TwoPrompts:
        first, second = prompt(1), prompt(2)

        def window(self, span: LatentSpan):
            return Waves(self.first if span.start < 6 else self.second).window(span)

    reads = []
    encode_text = model.encode_text
    model.encode_text = lambda context: reads.append(context) or encode_text(context)
    state = RolloutState.start(model, anchor, SETTINGS)
    stream, anchors = rollout(model, anchor, TwoPrompts(), SETTINGS, noise(), state), []
    while state.chunk < 4:
        next(stream)
        anchors.append(state.cache.tensors()["keys"][:, :, :, : state.cache.grid.tokens].clone())
    assert reads == [TwoPrompts.first, TwoPrompts.second]
    assert not torch.allclose(anchors[0], anchors[-1])


def test_one_word_is_read_as_the_same_word_twice():
    """Attention over a single key needs no query; the short cut is exact."""
    model = generator(replace(CARD, text=replace(CARD.text, tokens=1)))
    once = model.encode_text(None)
    twice = replace(once, keys=tuple(k.repeat(1, 1, 2, 1) for k in once.keys), values=tuple(v.repeat(1, 1, 2, 1) for v in once.values))
    torch.testing.assert_close(model.forward([segment(0, 3)], once)[0], model.forward([segment(0, 3)], twice)[0], rtol=0, atol=1e-12)
