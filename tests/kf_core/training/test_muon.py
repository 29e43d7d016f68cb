"""Muon's promises."""

import torch
from torch import nn

from kf_core.training.muon import Muon, _of_one_shape, orthogonalise, parameter_groups


def test_every_direction_of_a_step_is_about_equally_long():
    torch.manual_seed(0)
    for shape in ((16, 80), (80, 16), (12, 12)):
        matrix = torch.randn(shape) * torch.logspace(0, -1, shape[1])
        values = torch.linalg.svdvals(orthogonalise(matrix))
        assert values.min() > 0.4 and values.max() < 1.3


def test_a_stack_is_made_orthogonal_as_each_of_its_matrices_is():
    torch.manual_seed(0)
    for shape in ((16, 80), (80, 16), (12, 12)):
        stack = torch.randn(5, *shape) * torch.logspace(0, 2, 5)[:, None, None]
        assert torch.allclose(orthogonalise(stack), torch.stack([orthogonalise(matrix) for matrix in stack]), atol=1e-6)


def test_on_a_device_weights_of_one_shape_are_turned_together_and_on_a_processor_one_after_another():
    def stacks(device: str) -> list[int]:
        weights = [nn.Parameter(torch.zeros(shape, device=device)) for shape in ((4, 8), (4, 8), (8, 4), (4, 8), (2, 2))]
        for weight in weights[:-1]:
            weight.grad = torch.zeros_like(weight)
        return [len(stack) for stack in _of_one_shape(weights)]

    assert stacks("meta") == [3, 1] and stacks("cpu") == [1, 1, 1, 1]


def test_directions_that_no_gradient_asks_for_do_not_move():
    conv = nn.Conv3d(4, 4, 3, bias=False)
    before = conv.weight.detach().clone()
    conv(torch.cat([torch.zeros(1, 4, 2, 3, 3), torch.randn(1, 4, 1, 3, 3)], dim=2)).square().sum().backward()
    Muon([conv.weight], lr=0.1).step()
    moved = (conv.weight.detach() - before).abs().amax((0, 1, 3, 4))
    assert moved[:2].max() == 0 and moved[2] > 0


def test_a_step_changes_the_output_by_at_most_the_rate_whatever_the_shape():
    torch.manual_seed(0)
    for out, into in ((3, 400), (64, 64), (128, 16)):
        layer = nn.Linear(into, out, bias=False)
        before = layer.weight.detach().clone()
        (layer(torch.ones(1, into)) - 1).square().sum().backward()  # one direction in, all of it
        Muon([layer.weight], lr=0.01).step()
        change = (layer.weight.detach() - before) @ torch.ones(into)
        assert change.square().mean().sqrt() <= 0.013


def test_it_finds_a_minimum():
    torch.manual_seed(0)
    wanted, weight = torch.randn(6, 10), nn.Parameter(torch.zeros(6, 10))
    optimiser = Muon([weight], lr=0.2)
    for step in range(150):
        optimiser.param_groups[0]["lr"] = 0.3 * (1 - step / 150)
        optimiser.zero_grad()
        (weight - wanted).square().sum().backward()
        optimiser.step()
    assert (weight - wanted).square().mean() < 0.02 * wanted.square().mean()


def test_gains_and_biases_belong_to_adam():
    conv = nn.Conv2d(3, 5, 3)
    conv.gamma = nn.Parameter(torch.ones(5, 1, 1))
    matrices, rest = parameter_groups([conv])
    assert [p.shape for p in matrices] == [conv.weight.shape] and {p.shape for p in rest} == {conv.bias.shape, conv.gamma.shape}
