"""The machine's precision is asked for in one place, and a user or a test may say another."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kf_core import precision
from kf_core.errors import KnotForcingError
from kf_core.models import products
from kf_core.precision import fast_dtype

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("said, dtype", [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)])
def test_what_the_environment_says_holds_on_every_device(monkeypatch, said, dtype):
    monkeypatch.setenv("KF_PRECISION", said)
    assert {fast_dtype(device) for device in ("cpu", "cuda:1", "mps")} == {dtype}


def test_a_precision_that_is_none_is_refused_in_words(monkeypatch):
    monkeypatch.setenv("KF_PRECISION", "half")
    with pytest.raises(KnotForcingError, match="KF_PRECISION is 'half'. Set it to bf16, fp32, fp16, or leave it out."):
        fast_dtype("cpu")


@pytest.mark.parametrize("has_them", (True, False))
def test_else_the_processor_says_it(monkeypatch, has_them):
    monkeypatch.delenv("KF_PRECISION", raising=False)
    monkeypatch.setattr(precision, "has_bf16_products", lambda: has_them)
    assert fast_dtype("cpu") == (torch.bfloat16 if has_them else torch.float32) and fast_dtype("mps") == torch.float32


def test_no_product_is_asked_of_onednn_that_it_refuses(monkeypatch):
    """A processor that could, under a oneDNN that may not: ONEDNN_MAX_CPU_ISA=AVX2, or an operating system without AVX-512."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    x, weight = torch.ones(3, 64, dtype=torch.bfloat16), torch.ones(32, 64, dtype=torch.bfloat16)
    with torch.no_grad():
        assert products.linear(x, weight, None).unique().tolist() == [64]


def test_under_the_instructions_of_an_old_processor_every_processor_computes_in_float32():
    code = (
        "import torch; from kf_core.models.products import linear; from kf_core.precision import fast_dtype; "
        "x = torch.ones(3, 64, dtype=torch.bfloat16); torch.set_grad_enabled(False); "
        "assert linear(x, x, None).unique().tolist() == [64]; print(fast_dtype('cpu'))"
    )
    old = {name: said for name, said in os.environ.items() if name != "KF_PRECISION"} | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=old, capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.strip() == "torch.float32", ran.stderr
