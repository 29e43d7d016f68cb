"""The laws of guidance: two flows, two pasts, and nothing at scale 1."""

from dataclasses import replace

import pytest
import torch

from kf_core.errors import KnotForcingError
from kf_core.models.causal import Segment
from kf_core.models.kv_cache import KVCache
from kf_core.models.optimized_forward import OptimizedGenerator
from kf_core.sampling.guidance import guided, remark_on_guidance, require_text_encoder
from kf_core.sampling.rollout import commit, open_chunk, prefill, rollout
from kf_core.sampling.state import RolloutState
from kf_core.schedule import few_steps
from kf_core.settings import RolloutSettings
from kf_core.timeline import LatentSpan
from kf_core.types import LatentChunk, TextContext

from ..tiny import CARD, SETTINGS, Waves, chunks, frames, generator, noise, portrait

GUIDED = replace(SETTINGS, guidance=3.0)
FORMS = {
    "knot forcing": GUIDED,
    "blend, Euler": replace(GUIDED, knot="blend", renoise=False),
    "no anchor": replace(GUIDED, anchor=None),
    "pinned frames": replace(GUIDED, anchor=None, pinned=3),
    "everything remembered": replace(GUIDED, knot=None, fuse=False, anchor=None, window=None, max_frames=18),
}


def words(seed: int) -> torch.Tensor:
    return torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(seed)).double()


def waves(toward: int = 1, against: int = 2) -> Waves:
    return Waves(text=TextContext(words(toward), against=TextContext(words(against))))


def test_guidance_1_equals_no_guidance_and_asks_once():
    model, asked = generator(), []
    forward = model.forward
    model.forward = lambda segments, text: asked.append(text) or forward(segments, text)
    one = frames(9, replace(SETTINGS, guidance=1.0), model=model, driving=waves())
    assert len(asked) == 1 + 3 * (2 + 1)  # the anchor; two steps and a commit a chunk
    assert torch.equal(one, frames(9, driving=Waves(text=TextContext(words(1)))))
    assert isinstance(RolloutState.start(model, portrait(), SETTINGS).cache, KVCache)


@pytest.mark.parametrize("form", FORMS)
def test_equal_prompts_give_the_same_at_any_scale(form):
    settings = FORMS[form]
    plain = frames(9, replace(settings, guidance=1.0), driving=waves(1, 1))
    for scale in (2.0, 6.0):
        torch.testing.assert_close(frames(9, replace(settings, guidance=scale), driving=waves(1, 1)), plain, rtol=0, atol=1e-9)


def test_the_scale_and_the_negative_prompt_change_what_is_drawn():
    made = [frames(6, replace(GUIDED, guidance=scale), driving=waves(1, against)) for scale, against in ((3, 2), (5, 2), (3, 4))]
    assert (made[0] - made[1]).abs().max() > 1e-3 and (made[0] - made[2]).abs().max() > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_each_pass_reads_a_past_that_was_made_under_its_own_words(form):
    settings, model = FORMS[form], generator()
    state = RolloutState.start(model, portrait(), settings)
    latents = torch.cat([c.latents for c in chunks(9, settings, model=model, state=state, driving=waves())], dim=2)
    remembered = state.cache.tensors()
    unguided = replace(settings, guidance=1.0)
    for words_read, mark in ((1, ""), (2, "against.")):
        alone = prefill(model, portrait(), Waves(text=TextContext(words(words_read))), unguided, latents).cache.tensors()
        assert all(torch.equal(remembered[mark + name], tensor) for name, tensor in alone.items()), mark
    if settings.anchor is not None or settings.window is None:
        assert not torch.allclose(remembered["values"], remembered["against.values"])
        kept = "rotated_keys" if settings.anchor is None else "keys"
        assert not torch.allclose(remembered[kept], remembered[f"against.{kept}"])


@pytest.mark.parametrize("form", FORMS)
def test_a_guided_stream_that_is_continued_equals_the_uninterrupted_one(form):
    settings, model = FORMS[form], generator()
    whole = frames(18, settings, driving=waves())
    state = RolloutState.start(model, portrait(), settings)
    first = frames(9, settings, model=model, state=state, driving=waves())
    saved = {name: tensor.clone() for name, tensor in state.tensors().items()}
    restored = RolloutState.restore(saved, model, portrait(), settings)
    rest = frames(9, settings, model=model, state=restored, driving=waves())
    assert torch.equal(torch.cat((first, rest), dim=2), whole)


def test_two_pasts_take_twice_the_memory_and_it_does_not_grow():
    model = generator()
    state = RolloutState.start(model, portrait(), GUIDED)
    size = state.cache.num_bytes
    assert size == 2 * RolloutState.start(model, portrait(), SETTINGS).cache.num_bytes
    chunks(30, GUIDED, model=model, state=state, driving=waves())
    assert state.cache.num_bytes == size and state.cache.next_frame == 30


@pytest.mark.parametrize("calls", [2, 5])
def test_a_commit_that_fails_in_either_pass_leaves_both_pasts_as_they_were(calls):
    model, anchor = generator(), portrait()
    state = RolloutState.start(model, anchor, GUIDED)
    first = chunks(3, GUIDED, model=model, state=state, anchor=anchor, driving=waves())[0]
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    attention, seen = model.attention, []

    def failing(q, k, v, mask=None):
        seen.append(1)
        if len(seen) > 2 * calls:
            raise RuntimeError("out of memory")
        return attention(q, k, v, mask)

    model.attention = failing
    with pytest.raises(RuntimeError):
        commit(open_chunk(guided(model, GUIDED), anchor, waves(), GUIDED, state, is_replayed=True), state, first.latents)
    assert all(torch.equal(before[name], tensor) for name, tensor in state.tensors().items())


def test_two_guided_streams_on_one_model_do_not_disturb_each_other():
    model, made = generator(), {1: [], 2: []}
    streams = {seed: rollout(model, portrait(seed=seed), waves(seed, 3), GUIDED, noise(seed)) for seed in made}
    for _ in range(6):
        for seed, stream in streams.items():
            out = next(stream)
            if isinstance(out, LatentChunk):
                made[seed].append(out.latents)
    for seed, latents in made.items():
        alone = frames(6, GUIDED, model=model, seed=seed, anchor=portrait(seed=seed), driving=waves(seed, 3))
        assert torch.equal(torch.cat(latents, dim=2), alone)


def test_a_prompt_that_changes_is_read_on_both_sides():
    class Changing:
        texts = [waves(1, 2), waves(5, 2)]

        def window(self, span):
            return self.texts[span.start >= 3].window(span)

    changed = frames(9, GUIDED, driving=Changing())
    assert torch.equal(changed[:, :, :3], frames(3, GUIDED, driving=waves(1, 2)))
    assert not torch.allclose(changed, frames(9, GUIDED, driving=waves(1, 2)))


@pytest.mark.parametrize("form", FORMS)
def test_the_hot_path_draws_the_same_guided(form):
    plain = generator()
    hot = OptimizedGenerator(plain.card, plain.modules, plain.adapters, dtype=plain.dtype)
    expected, ours = (frames(9, FORMS[form], model=model, driving=waves()) for model in (plain, hot))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-7)


def test_one_chunk_without_window_and_knot_equals_the_whole_computed_directly():
    """As its authors draw a clip: every frame sees every other, and the flow is followed from noise to the end."""
    schedule = few_steps(5, 8.0)
    settings = RolloutSettings(
        chunk=6, knot=None, fuse=False, anchor=None, window=None, max_frames=6, schedule=schedule, renoise=False, guidance=6.0
    )
    card = replace(CARD, in_channels=16, rollout=settings)
    model = generator(card)
    ours = frames(6, settings, model=model, driving=waves())
    span = LatentSpan(0, 6)
    x = noise()(span, 0).double()
    sigmas = [sigma for sigma, _ in schedule] + [0.0]
    with torch.no_grad():
        for index, (sigma, t) in enumerate(schedule):
            times = torch.full((6,), t, dtype=torch.float64)
            whole = Segment(latents=x, positions=torch.arange(6), t=times, driving=waves().window(span))
            toward, against = (model.forward([whole], model.encode_text(TextContext(words(seed))))[0] for seed in (1, 2))
            x = x + (sigmas[index + 1] - sigma) * (against + 6 * (toward - against))
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [0.5, 31.0, float("nan")])
def test_a_scale_that_makes_no_sense_is_refused(scale):
    with pytest.raises(KnotForcingError, match="between 1 \\(off\\) and 30"):
        replace(SETTINGS, guidance=scale)


def test_what_guidance_costs_is_said_of_models_made_without_it():
    (said,) = remark_on_guidance(CARD, GUIDED)
    assert "twice as long" in said and not list(remark_on_guidance(CARD, SETTINGS))
    assert not list(remark_on_guidance(replace(CARD, rollout=GUIDED), GUIDED))


def test_guidance_without_prompts_that_are_read_is_refused():
    reads = replace(CARD, text=replace(CARD.text, kind="umt5"))
    with pytest.raises(KnotForcingError, match="reads no prompts"):
        require_text_encoder(CARD, GUIDED, has_text_encoder=True)
    with pytest.raises(KnotForcingError, match="no text encoder is loaded"):
        require_text_encoder(reads, GUIDED, has_text_encoder=False)
    require_text_encoder(reads, GUIDED, has_text_encoder=True)
    require_text_encoder(CARD, SETTINGS, has_text_encoder=False)
