"""The training of the autoencoder: it learns, and a run that was killed goes on as if it had not been."""

import numpy as np
import pytest
import torch

from kf_core.vae.latents import LATENT_MEAN, LATENT_STD
from lab.autoencoder import DIM, Recipe, Training, divergence, reconstruction_loss
from lab.mix import Batch, BatchKind

RECIPE = Recipe(cpu_minutes=1.0, rate=(0.3, 0.1), batches=(BatchKind(1.0, 1, 2, 16),), mix={"heads-*": 1.0})


def a_batch(seed=0, frames=1):
    generator = torch.Generator().manual_seed(seed)
    return Batch(torch.rand(2, 3, frames, 16, 16, generator=generator), torch.zeros(2, 1, frames, 16, 16))


def test_a_killed_run_goes_on_exactly_where_it_saved(tmp_path):
    torch.manual_seed(0)
    straight = Training()
    straight.learn(a_batch(), RECIPE)
    straight.save(tmp_path / "checkpoint.pt")
    resumed = Training(seed=5)
    resumed.load(tmp_path / "checkpoint.pt")
    for training in (straight, resumed):
        training.learn(a_batch(1, frames=5), RECIPE)
    assert resumed.step == straight.step == 2 and resumed.frames == 12
    for name, weight in straight.vae.state_dict().items():
        assert torch.equal(weight, resumed.vae.state_dict()[name]), name
    assert resumed.rng.random() == straight.rng.random()


def test_the_loss_counts_eyes_and_mouth_more():
    batch, made = a_batch(), torch.full((2, 3, 1, 16, 16), 0.5)
    marked = Batch(batch.frames, torch.ones_like(batch.features))
    assert reconstruction_loss(made, marked, RECIPE) == pytest.approx(3 * reconstruction_loss(made, batch, RECIPE).item(), rel=1e-5)


def test_the_divergence_is_zero_at_wans_statistics_only():
    shape = (4, 16, 1, 8, 8)
    mean, std = (torch.tensor(values).view(1, 16, 1, 1, 1) for values in (LATENT_MEAN, LATENT_STD))
    at_rest = divergence(mean.expand(shape), (2 * std.log()).expand(shape))
    assert abs(at_rest) < 1e-5
    assert divergence(mean.expand(shape) + std, (2 * std.log()).expand(shape)) > 0.4
    assert divergence(mean.expand(shape), (2 * std.log() - 3).expand(shape)) > 0.4


def test_a_recipe_is_read_from_its_file():
    from pathlib import Path

    import lab

    recipe = Recipe.read(Path(lab.__file__).parent / "recipes" / "autoencoder.json")
    assert DIM == 16 and recipe.cpu_minutes > 0 and np.isclose(sum(kind.share for kind in recipe.batches), 1)
    assert all((kind.frames - 1) % 4 == 0 and kind.side % 8 == 0 for kind in recipe.batches)
