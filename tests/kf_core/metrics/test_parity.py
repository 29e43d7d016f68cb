from dataclasses import replace

import pytest
import torch

from kf_core.conditioning.anchor import Anchor
from kf_core.conditioning.driving import Driving
from kf_core.metrics.parity import as_plain, difference, first_latents
from kf_core.metrics.random_model import knot_forcing, random_decoder, random_generator
from kf_core.session.stream import Stream

CARD = knot_forcing("small", 32, 32, dim=128, ffn_dim=256, layers=2, heads=1)


def stream() -> Stream:
    anchor = Anchor(torch.randn(1, 16, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
    decoder = random_decoder(tiny=True, dim=16, dtype=torch.float32)
    model = random_generator(CARD, dtype=torch.float32)
    return Stream(model=model, decoder=decoder, anchor=anchor, driving=Driving(), settings=CARD.rollout)


def test_the_latents_go_on_until_the_window_is_full_and_a_chunk_later():
    settings = CARD.rollout
    assert first_latents(stream(), 100).shape[2] == settings.output_span(settings.chunk_of(settings.past) + 1).stop
    assert first_latents(stream(), 1).shape[2] == settings.output_span(0).stop


def test_the_hot_path_is_off_by_rounding_and_another_seed_by_everything():
    ours = stream()
    exact = first_latents(as_plain(ours), 2)
    near, far = difference(first_latents(ours, 2), exact), difference(first_latents(replace(ours, seed=1), 2), exact)
    assert near["largest"] < 1e-4 and near["root_mean_square"] < 1e-4 and near["frames"] == 6
    assert far["root_mean_square"] > 0.5


def test_a_difference_is_measured_against_what_is_exact():
    exact, found = torch.tensor([3.0, -4.0]).reshape(1, 1, 2, 1, 1), torch.tensor([3.0, -3.5]).reshape(1, 1, 2, 1, 1)
    assert difference(found, exact) == {"frames": 2, "largest": 0.125, "root_mean_square": pytest.approx(0.1)}
