"""Laws of fingerprints: of numbers, every bit counts and no copy is made; of a stream, the recipe is computed once."""

import hashlib
import tracemalloc
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from kf_core.conditioning.control import ControlPictures
from kf_core.fingerprint import fingerprint

from .test_stream import stream  # noqa: F401

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.uint8, torch.int64, torch.bool]
SHAPES = {"plain": (6, 4), "0-dim": (), "empty": (0, 3), "one": (1,)}


def by_hand(tensor: torch.Tensor) -> str:
    """As the names of all saved streams were computed."""
    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return hashlib.sha256(b"<Tensor>" + f"{tensor.dtype} {list(tensor.shape)}".encode() + data + b"</>").hexdigest()[:32]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_numbers_keep_the_names_they_had(dtype, shape):
    torch.manual_seed(0)
    tensor = (10 * torch.randn(shape)).to(dtype)
    assert fingerprint(tensor) == by_hand(tensor)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_how_numbers_lie_in_memory_does_not_count(dtype):
    tensor = torch.randn(6, 4).to(dtype)
    for other in (tensor.t().contiguous().t(), torch.stack((tensor, tensor), -1)[..., 0], torch.cat((tensor, tensor))[6:]):
        assert fingerprint(other) == fingerprint(tensor) == by_hand(tensor)


def test_an_array_is_named_like_the_tensor_of_its_numbers():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    data = b"<ndarray>" + b"torch.float32 [3, 4]" + array.tobytes() + b"</>"
    assert fingerprint(array) == hashlib.sha256(data).hexdigest()[:32]


def test_large_tensors_are_not_copied():
    tensor = torch.zeros(2**24, dtype=torch.uint8)
    tracemalloc.start()
    fingerprint(tensor)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_stream_computes_its_recipe_once_and_a_changed_one_its_own(stream):  # noqa: F811
    asked = []

    @dataclass(frozen=True, eq=False)
    class Watched(ControlPictures):
        @property
        def name_for_recipe(self) -> str:
            asked.append(self)
            return "control"

    led = replace(stream, driving=replace(stream.driving, control=Watched(torch.zeros(2, 8, 8, 3))))
    assert led.recipe() == led.recipe() != stream.recipe() and len(set(map(id, asked))) == 1
    before = len(asked)
    led.recipe()
    assert len(asked) == before
    assert replace(led, seed=4).recipe() != led.recipe()
