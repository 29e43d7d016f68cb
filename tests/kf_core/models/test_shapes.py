"""What a card says of its tensors is what the networks have."""

from dataclasses import replace

import pytest
import torch

from kf_core.checkpoints.known_models import KNOWN, kf_tiny, unknown_wan
from kf_core.models.adapters import Adapters
from kf_core.models.shapes import CONTEXT_CHANNELS, shapes_of
from kf_core.models.vace import Vace
from kf_core.models.wan import WanModel

from ..tiny import CARD

CARDS = [CARD, kf_tiny(), replace(unknown_wan(), in_channels=36)]
CARDS += {(card.dim, card.in_channels, card.audio): card for card in (row.card() for row in KNOWN)}.values()


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_the_networks_of_a_card_have_the_tensors_that_it_names(card):
    with torch.device("meta"):
        networks = WanModel(card), Adapters(card)
    assert shapes_of(card) == {name: tuple(tensor.shape) for network in networks for name, tensor in network.state_dict().items()}


def test_a_vace_module_sees_as_many_channels_as_its_file_is_told_by():
    with torch.device("meta"):
        assert Vace(dim=24, ffn_dim=32, heads=1, blocks=1).vace_patch_embedding.in_channels == CONTEXT_CHANNELS
