"""Compiled blocks draw the same, are compiled once for each shape, and are never what ends a film."""

from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor.utils import fresh_cache

from kf_core.models.compiled import SHAPES, compile_blocks
from kf_core.models.optimized_forward import OptimizedGenerator
from kf_core.sampling.rollout import rollout
from kf_core.types import LatentChunk
from tests.kf_core.tiny import CARD, SETTINGS, Waves, frames, generator, noise, portrait


@pytest.fixture(autouse=True)
def afresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def hot(dtype: torch.dtype = torch.float32) -> OptimizedGenerator:
    plain = generator(replace(CARD, layers=3), dtype)
    return OptimizedGenerator(plain.card, plain.modules, plain.adapters, dtype=dtype)


def draw(model, count: int = 14) -> torch.Tensor:
    return frames(count, model=model, anchor=portrait(model.dtype))


def test_compiled_blocks_draw_what_plain_ones_draw():
    model = hot(torch.float64)
    exact = draw(model)
    assert "are compiled" in compile_blocks(model, "aot_eager")
    torch.testing.assert_close(draw(model), exact, rtol=0, atol=1e-11)


@pytest.mark.slow
def test_inductor_draws_the_same_within_rounding():
    model = hot()
    exact = draw(model, 3)
    if "Nothing" in (said := compile_blocks(model)):
        pytest.skip(said)
    torch.testing.assert_close(draw(model, 3), exact, rtol=0, atol=1e-5 * float(exact.abs().max()))


def test_a_shape_is_compiled_once_for_all_layers_and_nothing_once_the_window_is_full():
    model, counter = hot(), CompileCounterWithBackend("aot_eager")
    compile_blocks(model, counter)
    seen = []
    for item in rollout(model, portrait(torch.float32), Waves(), SETTINGS, noise()):
        if isinstance(item, LatentChunk):
            seen.append(counter.frame_count)
        if len(seen) == 12:
            break
    fills = -(-SETTINGS.past // SETTINGS.chunk) + 1
    assert seen[-1] == seen[fills - 1], seen
    assert seen[-1] <= 1 + 2 * fills, seen  # the trifle; drawing and committing


def test_a_second_stream_compiles_nothing_again():
    model, counter = hot(), CompileCounterWithBackend("aot_eager")
    compile_blocks(model, counter)
    draw(model)
    before = counter.frame_count
    draw(model)
    assert counter.frame_count == before


def test_what_others_compile_in_the_same_process_is_left_to_them():
    """PyTorch's switches are the process's, so ours hold while a pass runs, and only then."""

    def switches():
        return (torch._dynamo.config.recompile_limit, torch._dynamo.config.suppress_errors)

    model, before, within = hot(), switches(), []

    def backend(module, inputs):
        within.append(switches())
        return module.forward

    compile_blocks(model, backend)
    for item in rollout(model, portrait(torch.float32), Waves(), SETTINGS, noise()):
        assert switches() == before
        if isinstance(item, LatentChunk) and item.index == 3:
            break
    assert len(within) > 2 and set(within[1:]) == {(SHAPES, True)} != {before}  # the first is the trifle


def test_without_a_compiler_a_sentence_says_so_and_the_stream_is_drawn():
    def none(*_):
        raise RuntimeError("Compiler: cl is not found.\n\nSet TORCH_LOGS for more")

    model = hot()
    exact = draw(model, 6)
    said = compile_blocks(model, none)
    assert "Nothing is compiled" in said and "cl is not found" in said and "\n" not in said
    assert torch.equal(draw(model, 6), exact)


def test_inductor_without_a_compiler_is_found_out():
    model = hot()
    with fresh_cache(), torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        said = compile_blocks(model)
    assert "no working compiler for cpu" in said, said
    draw(model, 3)


def test_what_cannot_be_compiled_in_the_middle_is_drawn_as_it_is():
    calls = []

    def only_the_trifle(module, inputs):
        calls.append(module)
        if len(calls) > 1:
            raise RuntimeError("out of registers")
        return module.forward

    model = hot()
    exact = draw(model, 6)
    assert "are compiled" in compile_blocks(model, only_the_trifle)
    torch.testing.assert_close(draw(model, 6), exact, rtol=0, atol=1e-5 * float(exact.abs().max()))
    assert len(calls) > 1
