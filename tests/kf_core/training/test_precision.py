"""Training computes in bfloat16 where the machine does, and nowhere else."""

import pytest
import torch

from kf_core import precision
from kf_core.precision import fast_dtype
from kf_core.training.precision import mixed_precision


def test_products_are_as_exact_as_the_machine_is_fast():
    with mixed_precision("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == fast_dtype("cpu")


@pytest.mark.parametrize("has_them", (True, False))
def test_a_processor_without_bfloat16_never_emulates_it(monkeypatch, has_them):
    monkeypatch.delenv("KF_PRECISION", raising=False)
    monkeypatch.setattr(precision, "has_bf16_products", lambda: has_them)
    with mixed_precision("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if has_them else torch.float32)


def test_weights_that_were_cast_may_be_forgotten(monkeypatch):
    monkeypatch.setenv("KF_PRECISION", "bf16")
    with mixed_precision("cpu", keep_cast_weights=False):
        assert torch.is_autocast_enabled("cpu") and not torch.is_autocast_cache_enabled()


def test_a_device_without_mixed_precision_computes_as_it_can(monkeypatch):
    monkeypatch.setenv("KF_PRECISION", "bf16")
    with mixed_precision("meta"):
        assert (torch.ones(2, 2, device="meta") @ torch.ones(2, 2, device="meta")).dtype == torch.float32
