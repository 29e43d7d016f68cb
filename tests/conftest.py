"""One thread: these tensors are so small that a second one costs more than it gives. And without espeak-ng nobody speaks.

float32 where a test says no other precision, so that it computes the same on every processor; `KF_PRECISION=bf16` runs the suite as a
processor with bfloat16 would, in hardware where there is some.
"""

import os

import pytest
import torch

from kf_core.errors import KnotForcingError

NOBODY_SPEAKS = "NO ESPEAK-NG FOUND: install it (Debian: apt install libespeak-ng1) to test what is drawn, trained and measured with speech"

torch.set_num_threads(1)
os.environ.setdefault("KF_PRECISION", "fp32")  # processes that a test begins have it, too


def _skipped_without_a_voice():
    try:
        return (yield)
    except KnotForcingError as problem:
        if "espeak-ng was not found" in str(problem):
            pytest.skip(NOBODY_SPEAKS)
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup():
    return (yield from _skipped_without_a_voice())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    return (yield from _skipped_without_a_voice())
