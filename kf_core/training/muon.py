"""Muon: momentum whose every step is made orthogonal, for convolution and matrix weights.

A weight is taken as one matrix [out, everything else]; its momentum is replaced by the nearest orthogonal matrix, so all
directions learn equally fast. Biases and gains belong to AdamW (`parameter_groups`).

Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon.
"""

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # quintic that drives singular values to about 1 in five rounds


def orthogonalise(matrix: Tensor, rounds: int = 5) -> Tensor:
    """The orthogonal factor of `matrix` [m, n], or of each in a stack [k, m, n], roughly: singular values end in about 0.7 .. 1.2."""
    a, b, c = _COEFFICIENTS
    is_high = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if is_high else matrix
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-12)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_high else x


class Muon(torch.optim.Optimizer):
    """`lr` is how much one step may change a layer's output, root mean square in to root mean square out, in any direction.

    So a step's largest singular value is lr * sqrt(out / in). Without the second factor the last layer (432 numbers in, three
    out) shifted the colour of the whole frame at every step."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for weights in _of_one_shape(group["params"]):
                grads = [weight.grad for weight in weights]
                momenta = [self._momentum(weight) for weight in weights]
                torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
                ahead = torch._foreach_lerp(grads, momenta, group["momentum"])  # Nesterov
                directions = orthogonalise(torch.stack([direction.flatten(1) for direction in ahead]))
                shape = (directions.shape[-2] / directions.shape[-1]) ** 0.5
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                steps = [direction.view_as(weight).to(weight) for weight, direction in zip(weights, directions, strict=True)]
                torch._foreach_add_(weights, steps, alpha=-group["lr"] * shape)

    def _momentum(self, weight: nn.Parameter) -> Tensor:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        return state["momentum"]


def _of_one_shape(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Those that have a gradient, together where a device can turn a whole stack at once; a processor turns one after another."""
    stacks: dict[object, list[nn.Parameter]] = {}
    for place, weight in enumerate(parameters):
        if weight.grad is not None:
            stacks.setdefault(place if weight.device.type == "cpu" else weight.shape, []).append(weight)
    return list(stacks.values())


def parameter_groups(modules: list[nn.Module]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(weights for Muon, the rest for AdamW)."""
    parameters = [p for module in modules for p in module.parameters()]
    return [p for p in parameters if p.ndim >= 2 and not _is_gain(p)], [p for p in parameters if p.ndim < 2 or _is_gain(p)]


def _is_gain(parameter: nn.Parameter) -> bool:
    return parameter.shape.numel() == parameter.shape[0]  # a vector that carries empty axes, such as a norm's gamma
