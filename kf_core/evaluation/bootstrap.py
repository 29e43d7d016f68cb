"""How sure a mean over sitters is: percentile bootstrap intervals, paired where two variants sat the same sitters.

A sitter's difference between two variants is resampled whole, so that what makes one face harder than another cancels.
Source: Efron, "Bootstrap methods: another look at the jackknife", 1979.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and where it lies with 95 % confidence; `low` and `high` are None for fewer than three sitters."""

    mean: float
    low: float | None
    high: float | None
    sitters: int

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and (self.low > 0 or self.high < 0)


def interval(values: Sequence[float], seed: int = 0) -> Interval:
    """The mean of these values, one for each sitter."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("no value to take the mean of")
    if len(values) < 3:
        return Interval(float(values.mean()), None, None, len(values))
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def paired(values: Mapping[int, float], reference: Mapping[int, float], seed: int = 0) -> Interval | None:
    """The mean of `values` minus `reference`, each by sitter, over the sitters that have both; None where nobody has."""
    common = sorted(set(values) & set(reference))
    return interval([values[who] - reference[who] for who in common], seed) if common else None
