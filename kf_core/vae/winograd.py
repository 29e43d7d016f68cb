"""A convolution over time in fewer 2-D convolutions: Winograd's minimal filtering along the frames.

Three taps over m frames are 3 m 2-D convolutions. Seen as a product of polynomials, m + 2 are enough: mix the frames, convolve each
mixture with a mixture of the taps, add up what comes out. That is 6 instead of 12 for four frames, and the sums are cheap beside them.
The result differs by rounding: root mean square 5e-7 of its size in float32, where the plain sum has 2e-7. Knows nothing of streams.

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv 1509.09308. The points are those that round least among
fractions with small numerators and denominators, measured on normal weights; 1 is first, because its mixture goes into every frame.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

TAPS = 3
MOST = 4  # frames at a time: with six a ninth of the convolutions would go, and what is held would grow
POINTS = {
    2: (1, 0, -1),
    3: (1, 0, -2, Fraction(-1, 2)),
    4: (1, 0, -2, Fraction(-3, 4), Fraction(1, 2)),
}  # frames -> where the polynomials are evaluated, beside infinity

Row = tuple[tuple[int, float], ...]  # what is added up: which, and times what


@dataclass(frozen=True)
class Scheme:
    """Row i of each: what mixture i is made of, and where it goes."""

    frames: tuple[Row, ...]  # the first factor is 1
    taps: tuple[tuple[float, ...], ...]
    answers: tuple[Row, ...]  # of mixture 0: every frame, times 1


def convolve(frames: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], onto: Tensor | None = None) -> Tensor:
    """`frames` [2 + f, c, h, w] with `weight` [o, c, 3, kh, kw]: [f, o, h, w], channels last as the frames are.

    `onto` takes the sum in place and is returned. Without gradients."""
    total = frames.shape[0] - TAPS + 1
    made, whole = onto, total // MOST
    for start, count, groups in ((0, MOST, whole), (whole * MOST, total % MOST, 1)):
        if count * groups == 0:
            continue
        of_each = [slice(start + place, start + place + (groups - 1) * count + 1, count) for place in range(count + TAPS - 1)]
        seen, scheme = [frames[places] for places in of_each], _scheme(count)  # [groups, c, h, w] each
        answers: list[Tensor] = []
        for index, (row, taps, goes_to) in enumerate(zip(scheme.frames, _mixed(weight, scheme), scheme.answers, strict=True)):
            part = F.conv2d(_sum(seen, row), taps, bias if index == 0 else None, padding=padding)
            if index == 0:  # goes into every frame, and the bias with it
                if made is None:
                    made = part.new_empty(total, *part.shape[2:], part.shape[1]).movedim(-1, 1)
                answers = [made[places] for places in of_each[:count]]
                for answer in answers:
                    answer.copy_(part) if onto is None else answer.add_(part)
                continue
            for frame, factor in goes_to:
                answers[frame].add_(part, alpha=factor)
    return made


def _sum(frames: Sequence[Tensor], row: Row) -> Tensor:
    """The frames of a row, [groups, c, h, w] each, added up."""
    (first, _), *rest = row
    made = frames[first]
    for place, (index, factor) in enumerate(rest):
        made = made.add_(frames[index], alpha=factor) if place else torch.add(made, frames[index], alpha=factor)
    return made


def _mixed(weight: Tensor, scheme: Scheme) -> Tensor:
    """[o, c, 3, kh, kw] -> [mixture, o, c, kh, kw], each channels last."""
    rows = weight.permute(2, 0, 3, 4, 1)
    mixed = torch.tensor(scheme.taps, dtype=torch.float64).to(weight) @ rows.flatten(1)
    return mixed.view(-1, *rows.shape[1:]).movedim(-1, 2)


@cache
def _scheme(frames: int) -> Scheme:
    if frames == 1:  # nothing to save: the taps as they are
        order = range(TAPS)
        return Scheme(tuple(((i, 1.0),) for i in order), tuple(tuple(float(i == j) for j in order) for i in order), (((0, 1.0),),) * TAPS)
    points = [Fraction(point) for point in POINTS[frames]]
    of_frames, of_taps, of_answers = [], [], []
    for point in points:
        others = [other for other in points if other != point]
        row, lead = _monic(others)
        of_frames.append(row)
        of_taps.append(tuple(float(lead * point**tap / prod(point - other for other in others)) for tap in range(TAPS)))
        of_answers.append(_row(point**frame for frame in range(frames)))
    row, lead = _monic(points)
    of_frames.append(row)
    of_taps.append((*[0.0] * (TAPS - 1), float(lead)))
    of_answers.append(((frames - 1, 1.0),))
    return Scheme(tuple(of_frames), tuple(of_taps), tuple(of_answers))


def _monic(roots: list[Fraction]) -> tuple[Row, Fraction]:
    """The polynomial with these roots from its lowest power on, divided by its first factor that is not zero; and that factor."""
    factors = [Fraction(1)]
    for root in roots:
        factors = [up - root * here for up, here in zip([Fraction(0), *factors], [*factors, Fraction(0)], strict=True)]
    lead = next(factor for factor in factors if factor)
    return _row(factor / lead for factor in factors), lead


def _row(factors: Iterable[Fraction]) -> Row:
    return tuple((index, float(factor)) for index, factor in enumerate(factors) if factor)
