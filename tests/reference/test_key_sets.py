"""The modules have exactly the tensors of the published files, at full size."""

import json

import pytest
import torch

from kf_core.checkpoints.known import livetalk, recognise, self_forcing
from kf_core.model.adapters import Adapters
from kf_core.model.wan import WanModel

from .recordings import FOLDER

pytestmark = pytest.mark.reference


@pytest.mark.parametrize("card, file, count", [(self_forcing(), "selfforcing_keys.json", 825), (livetalk(), "livetalk_keys.json", 857)])
def test_nothing_is_missing_and_nothing_left_over(card, file, count):
    if not (FOLDER / file).exists():
        pytest.skip(f"NO PARITY RECORDING at {FOLDER / file}: set KF_PARITY to the folder that holds it")
    published = {name: tuple(shape) for name, shape in json.loads((FOLDER / file).read_text()).items()}
    with torch.device("meta"):
        ours = {**WanModel(card).state_dict(), **Adapters(card).state_dict()}
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == published and len(published) == count
    assert recognise(published) == card
