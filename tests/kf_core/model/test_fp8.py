"""8-bit floats in the blocks' large layers: half the memory, an error that is known, and all else as it was."""

import copy

import pytest
import torch
from torch import nn

from kf_core.evaluation.random_model import knot_forcing, random_generator
from kf_core.model import fp8
from kf_core.model.fp8 import Float8Linear, multiplied, rounded, turned_back, with_float8
from kf_core.model.hot_path import HotGenerator
from tests.kf_core.model.test_vace import led
from tests.kf_core.model.test_vace import segment as led_segment
from tests.kf_core.tiny import SETTINGS, frames, portrait

CARD = knot_forcing("tiny", 48, 32, dim=64, ffn_dim=128, layers=3, heads=2)


def generator(dtype: torch.dtype = torch.float32) -> HotGenerator:
    return random_generator(CARD, dtype=dtype)


def drawn(model) -> torch.Tensor:
    return frames(9, SETTINGS, model=model, anchor=portrait(torch.float32))


def test_a_chunk_is_off_by_a_few_percent():
    """Each product rounds to 3 bits behind the leading one: up to 1/16, 2 to 3 percent on average, some of which sums even out."""
    exact, model = drawn(generator()), generator()
    with_float8(model)
    error = float((drawn(model) - exact).norm() / exact.norm())
    assert 1e-4 < error < 0.05


def test_weights_of_the_blocks_take_half_of_bfloat16():
    model = generator(torch.bfloat16)
    size = lambda: sum(t.nbytes for block in model.modules.blocks for t in block.parameters() if t.dim() == 2 and t.shape[1] > 1)
    before = size()
    with_float8(model)
    assert size() == before / 2


def test_everything_but_the_blocks_large_layers_stays_as_it_was():
    model = generator(torch.bfloat16)
    before = {name: copy.deepcopy(t) for name, t in model.modules.state_dict().items()}
    with_float8(model)
    small = [name for name, t in model.modules.state_dict().items() if t.dtype == fp8.FLOAT8]
    assert len(small) == 3 * 10 and all(name.startswith("blocks.") and ".norm" not in name for name in small)
    for name, tensor in model.modules.state_dict().items():
        if name not in small and not name.endswith(".scale"):
            assert torch.equal(tensor, before[name]), name


def test_the_hot_path_draws_what_the_plain_forward_draws():
    model = generator()
    with_float8(model)
    hot, plain = drawn(model), drawn(model.plain())
    # a rounding of float32 may send a number to the next 8-bit float, which is a step of some percent for that one
    assert float((hot - plain).norm() / plain.norm()) < 0.01


def test_queries_keys_and_values_are_one_product_and_take_no_memory_twice():
    model = generator()
    with_float8(model)
    drawn(model)
    own, fused = model.modules.blocks[0].self_attn, model.blocks[0].fused
    assert fused is not None
    for part in (own.q, own.k, own.v):
        assert part.weight.untyped_storage().data_ptr() == fused.weight.untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_turned_back_products_are_those_of_a_device_that_multiplies_8_bit_floats(dtype):
    torch.manual_seed(0)
    (rows, scales), (weight, scale), bias = rounded(torch.randn(5, 64)), rounded(torch.randn(32, 64)), torch.randn(32)
    try:
        expected = multiplied(rows, scales, weight, scale, bias, dtype)
    except (RuntimeError, NotImplementedError) as problem:
        pytest.skip(f"this PyTorch does not multiply 8-bit floats on a CPU: {problem}")
    found = turned_back(rows, scales, weight, scale, bias, dtype)
    torch.testing.assert_close(found.float(), expected.float(), rtol=2e-2, atol=2e-2 * float(expected.abs().max()))


@torch.no_grad()
def test_rows_of_any_size_are_rounded_alike_and_a_row_of_zeros_stays_zero():
    """Each number is off by 1/16 at most, so a product by 1/8 of what its terms come to without their signs."""
    torch.manual_seed(0)
    layer = nn.Linear(32, 16, bias=False)
    layer.weight *= torch.logspace(-6, 4, 16)[:, None]
    x = torch.randn(4, 32) * torch.tensor([1e-6, 1.0, 1e5, 0.0])[:, None]
    off = (Float8Linear(layer)(x) - layer(x)).abs()
    assert (off <= 0.13 * (x.abs() @ layer.weight.abs().t())).all() and not off[3].any()


@torch.no_grad()
def test_a_vace_module_is_kept_so_too():
    """All but its patches: ten layers and `after_proj` of each block, and `before_proj` of the first."""
    exact, small = led(), led()
    before = sum(t.nbytes for block in exact.vace.vace_blocks for t in block.parameters() if t.dim() == 2)
    with_float8(small)
    kept = [t for t in small.vace.parameters() if t.dtype == fp8.FLOAT8]
    assert len(kept) == 2 * 11 + 1 and sum(t.nbytes for t in kept) == before / 8  # of float64
    (flow,), (expected,) = (model.forward([led_segment(3, 6)], model.read_text(None)) for model in (small, exact))
    assert 1e-4 < float((flow - expected).norm() / expected.norm()) < 0.1


def test_a_device_that_does_not_multiply_them_is_named():
    assert "cpu does not multiply them" in with_float8(generator())
