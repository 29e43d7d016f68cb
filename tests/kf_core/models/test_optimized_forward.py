"""The optimized forward draws what the plain forward draws, and leaves to it what it does not know."""

import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kf_core.models import products
from kf_core.models.causal import Generator, Segment, sdpa
from kf_core.models.optimized_forward import OptimizedGenerator
from kf_core.models.wan import WanModel
from kf_core.sampling.rollout import rollout
from kf_core.sampling.state import RolloutState
from kf_core.settings import Ahead, RolloutSettings
from kf_core.types import LatentChunk, TextContext
from tests.kf_core.tiny import CARD, HEIGHT, SETTINGS, WIDTH, Waves, chunks, frames, generator, noise, portrait

FORMS = {
    "knot forcing": {},
    "blended knot": dict(knot="blend"),
    "tied to the portrait": dict(first_frame="tie"),
    "pinned knot": dict(knot="pin", fuse=False, first_frame="pin"),
    "without an anchor": dict(anchor=None),
    "wide window": dict(window=12, anchor=Ahead(4, 2)),
    "growing": dict(anchor=None, knot=None, fuse=False, window=None, max_frames=30),
    "rolling behind a sink": dict(anchor=None, knot=None, fuse=False, window=6, pinned=3),
    "sink in front of the window": dict(anchor=None, knot=None, fuse=False, window=6, pinned=3, pinned_place="in front"),
    "short first chunk": dict(chunk=4, first_chunk=1, window=9),
}


class Idle(Waves):
    """Driving by nothing."""

    def window(self, span):
        return replace(super().window(span), audio=None, pose=None, expression=None, motion=None)


class Reading(Waves):
    """A prompt of some words that changes at frame 9."""

    words = [TextContext(torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(n)).double()) for n in range(2)]

    def window(self, span):
        return replace(super().window(span), text=self.words[span.start >= 9])


def hot(model: Generator) -> OptimizedGenerator:
    return OptimizedGenerator(model.card, model.modules, model.adapters, attention=model.attention, dtype=model.dtype)


def fused(model: Generator) -> OptimizedGenerator:
    """As it is once a stream begins."""
    model = hot(model)
    model.new_cache(SETTINGS, 1, HEIGHT, WIDTH)
    return model


@pytest.mark.parametrize("driving", (Waves(), Idle(), Reading()), ids=("driven", "idle", "reading"))
@pytest.mark.parametrize("form", FORMS)
def test_the_hot_path_draws_what_the_plain_forward_draws(form, driving):
    settings = RolloutSettings(**{"schedule": SETTINGS.schedule, "anchor": SETTINGS.anchor, **FORMS[form]})
    model = generator(replace(CARD, rollout=settings))

    def draw(model):
        return frames(14, settings, model=model, driving=driving)

    torch.testing.assert_close(draw(hot(model)), draw(model), rtol=0, atol=1e-11)


def test_a_prompt_of_one_word_is_answered_once():
    card = replace(CARD, text=replace(CARD.text, tokens=1))
    torch.testing.assert_close(frames(9, model=hot(generator(card))), frames(9, model=generator(card)), rtol=0, atol=1e-11)


def test_samples_of_a_batch_are_drawn_as_by_the_plain_forward():
    model, anchor, driving = generator(), portrait(batch=2), Waves(batch=2)

    def draw(model):
        chunks = rollout(model, anchor, driving, SETTINGS, noise(batch=2))
        return torch.cat([chunk.latents for chunk in first_chunks(chunks, 3)], dim=2)

    torch.testing.assert_close(draw(hot(model)), draw(model), rtol=0, atol=1e-11)


@pytest.mark.parametrize("library", ("onednn", "pytorch"))
def test_float32_stays_within_1e_5(library, monkeypatch):
    monkeypatch.setenv("KF_PRODUCTS", library)  # what an AMD processor with AVX-512 draws by, and what others do
    model = generator(dtype=torch.float32)

    def draw(model):
        return frames(14, model=model, anchor=portrait(torch.float32))

    plain = draw(model)
    torch.testing.assert_close(draw(hot(model)), plain, rtol=0, atol=1e-5 * float(plain.abs().max()))


def test_two_streams_on_one_model_do_not_disturb_each_other():
    model = hot(generator())
    alone = [frames(9, model=model, seed=seed) for seed in range(2)]
    streams = [rollout(model, portrait(), Waves(), SETTINGS, noise(seed)) for seed in range(2)]
    together = [[], []]
    for _ in range(3):
        for stream, drawn in zip(streams, together, strict=True):
            drawn += first_chunks(stream, 1)
    for drawn, expected in zip(together, alone, strict=True):
        assert torch.equal(torch.cat([chunk.latents for chunk in drawn], dim=2), expected)


def test_a_state_goes_on_under_either_forward():
    plain, model = generator(), hot(generator())
    whole = frames(15, model=model)
    for before, after in ((model, model), (plain, model), (model, plain)):
        state = RolloutState.start(before, portrait(), SETTINGS)
        first = frames(6, model=before, state=state)
        restored = RolloutState.restore(state.tensors(), after, portrait(), SETTINGS)
        rest = frames(9, model=after, state=restored)
        torch.testing.assert_close(torch.cat((first, rest), dim=2), whole, rtol=0, atol=0 if before is after else 1e-11)


def test_a_step_asks_nothing_of_the_model_twice():
    """Per chunk: driving once for what is drawn and once for what is committed. Per stream: each time and the prompt once."""
    model, counts = hot(generator(replace(CARD, expression=(), motion_strength=False))), {}

    def count(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda *_: counts.__setitem__(name, counts.get(name, 0) + 1))

    count("driving", model.adapters)
    for name in ("time_embedding", "time_projection", "text_embedding"):
        count(name, getattr(model.modules, name))
    first_chunks(rollout(model, portrait(), Waves(), SETTINGS, noise()), 5)
    passes = len(SETTINGS.schedule) + 1
    once_more = 1  # the anchor's own pass takes the plain forward
    assert counts == {
        "driving": 5 * 2,
        "time_embedding": passes + once_more,
        "time_projection": passes + once_more,
        "text_embedding": 1,
    }


@pytest.mark.parametrize("forward", (hot, lambda model: model), ids=("optimized forward", "plain forward"))
def test_a_chunk_late_in_a_stream_is_the_same_work_as_an_early_one(forward):
    """Counted, so that no clock is needed: every operation with its sizes, and every call within this package."""
    model, later = forward(generator()), 990  # chunks; the portrait moves on every 5 frames, so the two are in step
    state = RolloutState.start(model, portrait(), SETTINGS)
    chunks(30, model=model, state=state)
    tensors = state.tensors()
    tensors |= {"chunk": tensors["chunk"] + later, "cache.next_frame": tensors["cache.next_frame"] + later * SETTINGS.chunk}
    early, late = (RolloutState.restore(each, model, portrait(), SETTINGS) for each in (state.tensors(), tensors))
    work = [works_of(rollout(model, portrait(), Waves(), SETTINGS, noise(), each), 6) for each in (early, late)]
    assert late.chunk - early.chunk == later and work[0] == work[1]


def works_of(stream, count: int) -> tuple[list, Counter]:
    """What is done for so many chunks."""
    operations, calls = Operations(), Counter()

    def profile(frame, event: str, argument) -> None:
        if event == "call" and "kf_core" in frame.f_code.co_filename:
            calls[frame.f_code.co_qualname] += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        with operations:
            first_chunks(stream, count)
    finally:
        sys.setprofile(before)
    return operations.seen, calls


class Operations(TorchDispatchMode):
    """Writes down every operation and the size of what came of it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.seen.append((func, [tuple(tensor.shape) for tensor in tree_leaves(made) if isinstance(tensor, torch.Tensor)]))
        return made


def test_fused_weights_are_the_trees_own():
    model = fused(generator())
    own, whole = model.modules.blocks[0].self_attn, model.blocks[0].fused.weight
    assert torch.equal(whole, torch.cat((own.q.weight, own.k.weight, own.v.weight)))
    assert {part.weight.untyped_storage().data_ptr() for part in (own.q, own.k, own.v)} == {whole.untyped_storage().data_ptr()}
    again = fused(model)
    assert again.blocks[0].fused.weight.data_ptr() == whole.data_ptr()
    assert {name: tuple(t.shape) for name, t in model.modules.state_dict().items()} == {
        name: tuple(t.shape) for name, t in WanModel(CARD).state_dict().items()
    }


def test_weights_that_are_loaded_later_count():
    model, other = hot(generator()), generator(seed=5)
    model.modules.load_state_dict(other.modules.state_dict(), assign=True)
    model.adapters.load_state_dict(other.adapters.state_dict())
    torch.testing.assert_close(frames(6, model=model), frames(6, model=other), rtol=0, atol=1e-11)


def test_a_hosts_layers_are_called_and_their_weights_not_read():
    class HostLinear(nn.Linear):
        """Its weight is not what it computes with, as in a model that is patched or quantised."""

        def forward(self, x):
            return nn.functional.linear(x, 2 * self.weight, self.bias)

    class Layers:
        Linear, Conv3d, LayerNorm, RMSNorm = HostLinear, nn.Conv3d, nn.LayerNorm, nn.RMSNorm

    plain = generator()
    modules = WanModel(CARD, Layers).double()
    modules.load_state_dict(plain.modules.state_dict())
    plain = Generator(CARD, modules, plain.adapters, dtype=torch.float64)
    assert all(block.fused is None for block in fused(plain).blocks)
    torch.testing.assert_close(frames(9, model=hot(plain)), frames(9, model=plain), rtol=0, atol=1e-11)


def test_attention_can_be_handed_in():
    calls = []

    def attention(q, k, v, mask=None):
        calls.append((q.shape[2], k.shape[2]))
        return sdpa(q, k, v, mask)

    plain = generator()
    model = OptimizedGenerator(CARD, plain.modules, plain.adapters, attention=attention, dtype=torch.float64)
    torch.testing.assert_close(frames(9, model=model), frames(9, model=plain), rtol=0, atol=1e-11)
    assert calls


def test_what_is_no_pass_of_a_stream_takes_the_plain_forward():
    plain, model = generator(), hot(generator())
    latents = torch.randn(1, 33, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2)).double()
    segment = Segment(latents=latents, positions=torch.arange(3.0), t=torch.tensor([0.0, 10.0, 500.0]))
    masked = replace(segment, mask=torch.ones(3, 3, dtype=torch.bool).tril())
    for segments in ([segment], [masked], [segment, masked]):
        for ours, theirs in zip(
            model.forward(segments, model.encode_text(None)), plain.forward(segments, plain.encode_text(None)), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_a_stale_memory_is_refused():
    model = hot(generator())
    state = RolloutState.start(model, portrait(), replace(SETTINGS, anchor=None))
    stale = state.cache.apply_rope()
    state.cache.apply_rope()
    latents = torch.zeros(1, 33, 1, HEIGHT, WIDTH, dtype=torch.float64)
    segment = Segment(latents=latents, positions=torch.zeros(1).double(), t=torch.zeros(1).double(), reads=stale)
    with torch.no_grad(), pytest.raises(ValueError, match="stale"):
        model.forward([segment], model.encode_text(None))


@pytest.mark.parametrize("library", ("onednn", "pytorch"))
@pytest.mark.parametrize("dtype, within", ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)))
@torch.no_grad()
def test_products_on_a_cpu_are_pytorchs(dtype, within, library, monkeypatch):
    monkeypatch.setenv("KF_PRODUCTS", library)
    monkeypatch.setattr(products, "TILE_ROWS", 1)
    monkeypatch.setattr(products, "TILE_BYTES", 2**9)  # some tiles, also of these few tokens
    draw = torch.Generator().manual_seed(0)

    def make(*shape):
        return torch.randn(*shape, generator=draw).to(dtype)

    x, weight, bias = make(2, 5, 48), make(32, 48) / 7, make(32)

    def close(ours, theirs):
        return torch.testing.assert_close(ours.double(), theirs.double(), rtol=within, atol=within)

    close(products.linear(x, weight, bias), nn.functional.linear(x, weight, bias))
    close(products.linear(x, weight, None), nn.functional.linear(x, weight))
    exact = nn.functional.gelu(nn.functional.linear(x.double(), weight.double(), bias.double()), approximate="tanh")
    close(products.linear(x, weight, bias, then="gelu"), exact)
    q, k, v = make(2, 3, 21, 16), make(2, 3, 33, 16), make(2, 3, 33, 16)
    close(products.attention(q, k, v), sdpa(q, k, v))


@pytest.mark.parametrize(
    "kind, dtype, product, attention",
    [
        (dict(is_intel=True, avx512=True, bf16=True, amx=True), torch.float32, False, False),
        (dict(is_intel=True, avx512=True, bf16=True, amx=True), torch.bfloat16, True, False),
        (dict(is_intel=True, avx512=True), torch.float32, False, False),
        (dict(avx512=True, bf16=True), torch.float32, True, True),
        (dict(avx512=True, bf16=True), torch.bfloat16, True, True),
        (dict(avx512=True), torch.bfloat16, False, False),
        (dict(), torch.float32, False, False),
        (dict(avx512=True, bf16=True), torch.float64, False, False),
    ],
)
def test_the_kind_of_processor_chooses_the_library(kind, dtype, product, attention):
    processor = products.Processor(**(dict.fromkeys(("is_intel", "avx512", "bf16", "amx"), False) | kind))
    assert (processor.prefers_onednn(dtype), processor.prefers_onednn(dtype, attention=True)) == (product, attention)


@torch.no_grad()
def test_where_pytorch_multiplies_the_attention_is_the_plain_forwards_bit_for_bit(monkeypatch):
    monkeypatch.setenv("KF_PRODUCTS", "pytorch")
    q, k, v = torch.randn(3, 1, 2, 70, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(products.attention(q, k, v), sdpa(q, k, v))


@pytest.mark.skipif(products._operator is None, reason="this build of PyTorch has no oneDNN")
@torch.no_grad()
def test_onednn_gets_weights_without_gaps(monkeypatch):
    """With gaps between the rows it takes 1,000 times as long."""
    monkeypatch.setenv("KF_PRODUCTS", "onednn")
    seen, operator = [], products._operator
    monkeypatch.setattr(products, "_operator", lambda x, weight, *rest: seen.append(weight) or operator(x, weight, *rest))
    model = generator(dtype=torch.float32)
    words = TextContext(torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0)))
    frames(6, model=hot(model), anchor=portrait(torch.float32), driving=Waves(text=words))
    side_by_side = torch.randn(5, 2, 16, generator=torch.Generator().manual_seed(0))  # two heads of keys
    x = torch.ones(3, 16)
    torch.testing.assert_close(products.linear(x, side_by_side[:, 1], None), x @ side_by_side[:, 1].T)
    assert seen and all(weight.is_contiguous() or weight.t().is_contiguous() for weight in seen)


def first_chunks(stream, count: int) -> list[LatentChunk]:
    chunks = []
    while len(chunks) < count:
        item = next(stream)
        if isinstance(item, LatentChunk):
            chunks.append(item)
    return chunks
