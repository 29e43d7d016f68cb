"""The laws of the rollout (Algorithm 1)."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from kf_core.conditioning.anchor import Anchor
from kf_core.models.causal import Segment
from kf_core.sampling.chunk_context import ChunkContext, anchor_segment
from kf_core.sampling.knot import fuse_knot
from kf_core.sampling.rollout import anchor_position, commit, open_chunk, prefill, rollout
from kf_core.sampling.state import RolloutState
from kf_core.schedule import warped
from kf_core.settings import Behind, Fixed, RolloutSettings
from kf_core.timeline import LatentSpan
from kf_core.types import LatentChunk, Step

from ...held import tensor_bytes
from ..tiny import CARD, HEIGHT, SETTINGS, WIDTH, Waves, chunks, frames, generator, noise, portrait

FORMS = {
    "inpaint": SETTINGS,
    "inpaint without fusion": replace(SETTINGS, fuse=False),
    "blend": replace(SETTINGS, knot="blend"),
    "pin": replace(SETTINGS, knot="pin", fuse=False),
    "no knot": replace(SETTINGS, knot=None, fuse=False),
    "long knot": replace(SETTINGS, knot_frames=2, window=8),
    "no anchor": replace(SETTINGS, anchor=None),
    "anchor behind": replace(SETTINGS, anchor=Behind(4)),
    "anchor fixed": replace(SETTINGS, anchor=Fixed(0)),
    "pinned frames": replace(SETTINGS, anchor=None, pinned=3),
    "short first chunk": replace(SETTINGS, first_chunk=1),
    "other steps first": replace(SETTINGS, first_schedule=warped((1000, 750, 250))),
    "pinned portrait": replace(SETTINGS, first_frame="pin"),
    "tied to the portrait": replace(SETTINGS, first_frame="tie"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_seed_gives_the_same_frames_and_another_gives_others(form):
    first, second, other = (frames(9, FORMS[form], seed=s) for s in (5, 5, 6))
    assert torch.equal(first, second) and (first - other).abs().mean() > 0.1
    assert torch.isfinite(first).all()


def test_every_form_draws_other_frames():
    made = {form: frames(9, settings) for form, settings in FORMS.items()}
    names = list(made)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert (made[a] - made[b]).abs().max() > 1e-3, (a, b)


@pytest.mark.parametrize("form", FORMS)
def test_a_prefix_does_not_depend_on_the_length_asked_for(form):
    assert torch.equal(frames(6, FORMS[form]), frames(15, FORMS[form])[:, :, :6])


@pytest.mark.parametrize("form", FORMS)
def test_a_continued_stream_equals_the_uninterrupted_one(form):
    settings = FORMS[form]
    model, whole = generator(), chunks(18, FORMS[form])
    state = RolloutState.start(model, portrait(), settings)
    first = chunks(9, settings, model=model, state=state)
    saved = {name: tensor.clone() for name, tensor in state.tensors().items()}
    restored = RolloutState.restore(saved, model, portrait(), settings)
    rest = chunks(18 - first[-1].span.stop, settings, model=model, state=restored)
    assert [c.span for c in first + rest][: len(whole)] == [c.span for c in whole]
    for ours, theirs in zip(first + rest, whole, strict=False):
        assert torch.equal(ours.latents, theirs.latents)


def test_two_streams_on_one_model_do_not_disturb_each_other():
    model = generator()
    streams = [rollout(model, portrait(seed=s), Waves(), SETTINGS, noise(s)) for s in (1, 2)]
    mixed = [[], []]
    for _ in range(9):
        for stream, made in zip(streams, mixed, strict=True):
            out = next(stream)
            if isinstance(out, LatentChunk):
                made.append(out.latents)
    for seed, made in zip((1, 2), mixed, strict=True):
        alone = frames(9, model=model, seed=seed, anchor=portrait(seed=seed))
        assert torch.equal(torch.cat(made, dim=2), alone)


def test_samples_of_a_batch_do_not_disturb_each_other():
    model = generator()
    both = Anchor(torch.cat((portrait(seed=1).latent, portrait(seed=2).latent)))
    tapes = noise(7, batch=2)
    stream = rollout(model, both, Waves(batch=2), SETTINGS, tapes)
    together = torch.cat([out.latents for out in islice(stream, 9) if isinstance(out, LatentChunk)], dim=2)
    for sample in range(2):
        one = rollout(
            model, Anchor(both.latent[sample : sample + 1]), Waves(), SETTINGS, lambda span, step, i=sample: tapes(span, step)[i : i + 1]
        )
        alone = torch.cat([out.latents for out in islice(one, 9) if isinstance(out, LatentChunk)], dim=2)
        torch.testing.assert_close(together[sample : sample + 1], alone, rtol=0, atol=1e-9)


def test_positions_strictly_grow_and_the_anchor_is_ahead_of_every_query():
    model, seen = generator(), []
    forward, place = model.forward, None

    def watched(segments: list[Segment], text):
        seen.extend(
            (s.positions.tolist(), anchor_position(SETTINGS, LatentSpan(int(s.positions[0]), int(s.positions[-1]) + 1)))
            for s in segments
            if s.reads is not None
        )
        return forward(segments, text)

    model.forward = watched
    emitted = chunks(60, model=model)
    assert all(a.span.stop == b.span.start for a, b in zip(emitted, emitted[1:], strict=False))
    for positions, place in seen:
        assert positions == sorted(set(positions)) and place > positions[-1]


def test_the_knot_is_never_in_the_cache():
    """What is remembered are the emitted, fused frames at t = 0, each once; the frames drawn beyond them are not."""
    model, anchor = generator(), portrait()
    state = RolloutState.start(model, anchor, SETTINGS)
    made = chunks(9, model=model, state=state, anchor=anchor)
    assert state.cache.frames == [7, 8] or sorted(state.cache.frames) == [7, 8]
    latents = torch.cat([c.latents for c in made], dim=2)
    again = prefill(model, anchor, Waves(), SETTINGS, latents)
    ours, theirs = state.cache.tensors(), again.cache.tensors()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_reading_the_cache_never_changes_it():
    model = generator()
    state = RolloutState.start(model, portrait(), SETTINGS)
    stream = rollout(model, portrait(), Waves(), SETTINGS, noise(), state)
    while not isinstance(next(stream), LatentChunk):
        pass
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    assert isinstance(next(stream), Step)  # stopped between two steps of the next chunk
    after = state.tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("form", ["inpaint", "blend", "long knot"])
def test_the_fused_frame_differs_from_the_raw_knot(form):
    """Or averaging would mean nothing: the frames drawn twice really are predicted again."""
    settings, model = FORMS[form], generator()
    state = RolloutState.start(model, portrait(), settings)
    stream, knot, estimate = rollout(model, portrait(), Waves(), settings, noise(), state), None, None
    for out in islice(stream, 12):
        if isinstance(out, Step):
            estimate = out.clean
        else:
            if knot is not None:
                k = settings.knot_length
                assert (out.latents[:, :, :k] - knot).abs().max() > 1e-3
                torch.testing.assert_close(out.latents[:, :, :k], (knot + estimate[:, :, :k]) / 2)
                assert torch.equal(out.latents[:, :, k:], estimate[:, :, k : settings.chunk])
            knot = state.knot


def test_a_pinned_knot_is_emitted_as_it_was_handed_over():
    settings, model = FORMS["pin"], generator()
    state = RolloutState.start(model, portrait(), settings)
    stream, knot = rollout(model, portrait(), Waves(), settings, noise(), state), None
    for out in islice(stream, 9):
        if isinstance(out, LatentChunk):
            assert knot is None or torch.equal(out.latents[:, :, :1], knot)
            knot = state.knot


def test_fusing_is_the_mean_and_touches_nothing_else():
    clean, knot = torch.arange(8.0).reshape(1, 1, 4, 1, 2), torch.full((1, 1, 1, 1, 2), 10.0)
    assert fuse_knot(clean, knot, "inpaint", True)[0, 0, :, 0].tolist() == [[5, 5.5], [2, 3], [4, 5], [6, 7]]
    assert torch.equal(fuse_knot(clean, knot, "inpaint", False), clean)
    assert torch.equal(fuse_knot(clean, None, "inpaint", True), clean)


def test_the_pinned_portrait_is_frame_0():
    settings = FORMS["pinned portrait"]
    made = frames(6, settings)
    assert torch.equal(made[:, :, :1], portrait().latent)


@pytest.mark.parametrize("knot", ["inpaint", "blend"])
def test_a_stream_tied_to_the_portrait_begins_on_it_as_on_a_knot(knot):
    """Frame 0 is predicted again and averaged with the portrait; what was drawn before goes on as it would anyway."""
    settings = replace(SETTINGS, knot=knot, first_frame="tie")
    steps, model = [], generator()
    for out in rollout(model, portrait(), Waves(), settings, noise()):
        if isinstance(out, LatentChunk):
            break
        steps.append(out.clean)
    torch.testing.assert_close(out.latents[:, :, :1], (portrait().latent + steps[-1][:, :, :1]) / 2)
    assert torch.equal(out.latents[:, :, 1:], steps[-1][:, :, 1:3])
    free = replace(settings, first_frame="free")
    first = frames(3, free, model=model)
    states = [prefill(model, portrait(), Waves(), each, first) for each in (free, settings)]
    assert all(torch.equal(*pair) for pair in zip(*(state.tensors().values() for state in states), strict=True))


def test_a_stream_without_a_knot_begins_freely():
    settings = FORMS["no knot"]
    assert torch.equal(frames(6, settings), frames(6, replace(settings, first_frame="tie")))


def test_identity_reaches_the_frames_through_the_anchor_alone():
    """Without an anchor the portrait changes nothing: no other road leaks it, or ablations would measure the leak."""
    settings = FORMS["no anchor"]
    assert torch.equal(frames(9, settings, anchor=portrait(seed=1)), frames(9, settings, anchor=portrait(seed=2)))
    assert not torch.allclose(frames(9, anchor=portrait(seed=1)), frames(9, anchor=portrait(seed=2)))


def test_gradients_through_a_chunk_equal_those_of_a_cache_built_with_cat():
    """The exit step of a training rollout, against the same chunk as one masked pass over [anchor | past | current]."""
    model, anchor = generator(), portrait()
    one_step = replace(SETTINGS, schedule=warped((1000,)))
    state = RolloutState.start(model, anchor, one_step)
    first = chunks(3, one_step, model=model, state=state, anchor=anchor)[0].latents
    knot = state.knot
    parameters = [model.modules.patch_embedding.weight, model.modules.head.head.weight, model.modules.blocks[2].ffn[0].weight]

    stream = rollout(model, anchor, Waves(), one_step, noise(), state, exits=lambda chunk: 0)
    drawn = next(out for out in stream if isinstance(out, LatentChunk)).latents
    ours = torch.autograd.grad(drawn.square().sum(), parameters)

    span, place = LatentSpan(3, 7), anchor_position(one_step, LatentSpan(3, 7))
    with torch.no_grad():
        text = model.encode_text(None)
        cached = record_keys(model, anchor_segment(model, anchor), text)
        before = LatentSpan(0, 3)
        context = ChunkContext(
            model=model, anchor=anchor, settings=one_step, span=before, driving=Waves().window(before), knot=None, past=None
        )
        clean = context.segment(first, 0.0)
        past = record_keys(model, clean, text, [(cached, [place_at(one_step, LatentSpan(0, 4))])])
    fresh = noise()(span, 0).to(anchor.latent)
    segment = replace(context, span=span, driving=Waves().window(span), knot=knot).segment(fresh, 1000.0)
    two = [(k[:, :, -2 * 6 :], v[:, :, -2 * 6 :]) for k, v in past]
    (flow,) = model.forward([replace(segment, reads=Cat(model, [(cached, [place]), (two, [1, 2])]))], text)
    estimate = fresh - flow
    emitted = torch.cat(((knot + estimate[:, :, :1]) / 2, estimate[:, :, 1:3]), dim=2)
    torch.testing.assert_close(drawn, emitted, rtol=0, atol=1e-10)
    theirs = torch.autograd.grad(emitted.square().sum(), parameters)
    for a, b in zip(ours, theirs, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def place_at(settings: RolloutSettings, drawn: LatentSpan) -> int:
    return anchor_position(settings, drawn)


class Cat:
    """The plainest memory there can be: remembered keys are turned when they are read, and concatenated."""

    def __init__(self, model, parts):
        self.model, self.parts = model, parts

    def read(self, layer, keys, values):
        from kf_core.models.rope import rotation

        grid, head_dim = self.model.grid(HEIGHT, WIDTH), keys.shape[-1]
        turned = [rotation(torch.tensor(p), grid, head_dim, keys.dtype)(kv[layer][0]) for kv, p in self.parts]
        return torch.cat((*turned, keys), dim=2), torch.cat((*(kv[layer][1] for kv, _ in self.parts), values), dim=2)


def record_keys(model, segment: Segment, text, parts=()):
    from kf_core.models.kv_cache import KVCapture

    record = KVCapture()
    model.forward([replace(segment, record=record, reads=Cat(model, parts) if parts else None)], text)
    return list(zip(record.keys, record.values, strict=True))


def test_a_training_rollout_carries_a_gradient_in_its_exit_step_only():
    model, exits = generator(), [0, 1, 0]
    steps, emitted = [], []
    for out in rollout(model, portrait(), Waves(), SETTINGS, noise(), exits=lambda chunk: exits[chunk]):
        if isinstance(out, Step):
            steps.append((out.total, out.index, out.clean.requires_grad))
        else:
            assert out.latents.requires_grad
            emitted.append(out.latents)
            if len(emitted) == 3:
                break
    assert steps == [(1, 0, True), (2, 0, False), (2, 1, True), (1, 0, True)]
    sum(latents.square().mean() for latents in emitted).backward()  # nothing that a graph holds was overwritten
    assert model.modules.patch_embedding.weight.grad.abs().max() > 0


def test_a_rollout_leaves_the_callers_gradient_mode_alone():
    model = generator()
    stream = rollout(model, portrait(), Waves(), SETTINGS, noise())
    next(stream)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_a_commit_out_of_memory_leaves_the_state_as_it_was():
    model, anchor = generator(), portrait()
    state = RolloutState.start(model, anchor, SETTINGS)
    first = chunks(3, model=model, state=state, anchor=anchor)[0]
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    attention, calls = model.attention, []

    def failing(q, k, v, mask=None):
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("out of memory")
        return attention(q, k, v, mask)

    model.attention = failing
    with pytest.raises(RuntimeError):
        commit(open_chunk(model, anchor, Waves(), SETTINGS, state, is_replayed=True), state, first.latents)
    assert all(torch.equal(before[name], tensor) for name, tensor in state.tensors().items())


@pytest.mark.slow
def test_ten_thousand_chunks_have_flat_memory_and_positions_past_thirty_thousand():
    card = replace(CARD, layers=1, dim=12, heads=1, ffn_dim=8, in_channels=33, audio=None, rollout=SETTINGS)
    settings = replace(SETTINGS, schedule=warped((1000,)))
    model = generator(card, torch.float32)
    tiny = Anchor(torch.randn(1, 16, 1, 2, 2, generator=torch.Generator().manual_seed(0)))
    fresh = torch.randn(1, 16, 4, 2, 2, generator=torch.Generator().manual_seed(1))

    class Silence:
        def window(self, span):
            from kf_core.types import ChunkConditioning

            return ChunkConditioning(span=span)

    state, held, size = RolloutState.start(model, tiny, settings), {}, {}
    for out in rollout(model, tiny, Silence(), settings, lambda span, step: fresh[:, :, : span.length], state):
        if isinstance(out, LatentChunk):
            assert torch.isfinite(out.latents).all()
            if state.chunk in (500, 10_000):
                held[state.chunk], size[state.chunk] = tensor_bytes(), state.cache.num_bytes
            if state.chunk == 10_000:
                break
    assert out.span.stop == 30_000 and state.cache.next_frame == 30_000
    assert size[500] == size[10_000] and held[500] == held[10_000]
