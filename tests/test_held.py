"""The count that tests of memory rest on."""

import numpy as np
import torch

from .held import counted, tensor_bytes


def test_what_is_held_is_counted_once_and_what_is_dropped_is_not():
    before = tensor_bytes()
    kept = torch.zeros(1000, dtype=torch.float64)
    views = [kept[:10], kept.view(10, 100)]
    assert tensor_bytes() - before == 8000 and len(views) == 2
    del kept, views
    assert tensor_bytes() == before


def test_arrays_count_beside_tensors():
    with counted() as held:
        before = held()
        kept = [np.zeros(10**6, np.uint8), torch.zeros(10**6, dtype=torch.uint8)]
        assert 2e6 <= held() - before < 2.1e6
        kept.clear()
        assert held() - before < 1e5
