"""Attentions by name: what is not installed is no error, and a package gets its own layout."""

import sys
import types

import pytest
import torch

from kf_core.models import attention
from kf_core.models.attention import attention_called, sdpa


def test_pytorchs_own_is_used_where_another_cannot_be():
    assert attention_called("sdpa", "cpu") == (sdpa, None)
    for name in ("flash", "sage"):
        used, why = attention_called(name, "cpu")
        assert used is sdpa and name in why and why.endswith("PyTorch's own is used.")


@pytest.mark.parametrize("name", attention.PACKAGES)
def test_a_package_that_is_missing_is_said(name, monkeypatch):
    monkeypatch.setitem(sys.modules, {"flash": "flash_attn", "sage": "sageattention"}[name], None)
    used, why = attention_called(name, "cuda")
    assert used is sdpa and "cannot be used" in why


@pytest.mark.parametrize("name", attention.PACKAGES)
def test_a_package_gets_its_own_layout(name, monkeypatch):
    """Stand-ins with the packages' signatures: flash_attn takes [b, t, n, d], sageattention [b, n, t, d]."""
    stand_ins = {
        "flash_attn": dict(flash_attn_func=lambda q, k, v: sdpa(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)),
        "sageattention": dict(sageattn=lambda q, k, v, tensor_layout, is_causal: sdpa(q, k, v) if tensor_layout == "HND" else None),
    }
    for module, contents in stand_ins.items():
        made = types.ModuleType(module)
        made.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, module, made)
    used, why = attention_called(name, "cuda")
    assert why is None and used is not sdpa
    for dtype in (torch.bfloat16, torch.float32):  # the second takes PyTorch's own
        q, k, v = (torch.randn(1, 2, tokens, 8, generator=torch.Generator().manual_seed(1)).to(dtype) for tokens in (3, 5, 5))
        torch.testing.assert_close(used(q, k, v), sdpa(q, k, v))
