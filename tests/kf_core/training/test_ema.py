"""The running mean: quick at first, two hundred steps long on a CPU, longer where many more steps are made."""

import pytest
import torch
from torch import nn

from kf_core.training.ema import decay, follow


def test_it_remembers_a_tenth_of_the_first_steps_then_two_hundred_then_two_of_a_hundred():
    assert decay(1) == pytest.approx(2 / 11) and decay(90) == pytest.approx(0.91)
    assert {decay(step) for step in (2_000, 6_000, 10_000)} == {0.995}
    assert decay(50_000) == pytest.approx(0.999) and decay(200_000) == pytest.approx(1 - 1 / 4000)


def test_weights_that_stand_still_are_reached():
    mean, followed = nn.Linear(2, 2), nn.Linear(2, 2)
    for step in range(1, 3000):
        follow(mean, followed, step)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(mean.parameters(), followed.parameters(), strict=True))
