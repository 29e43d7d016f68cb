"""How sure a mean over sitters is: bootstrap intervals, paired where two variants sat the same sitters.

A sitter's difference between two variants is resampled whole, so that what makes one face harder than another cancels. The plain
percentile interval is too narrow for few sitters (16: zero is excluded by chance 8 times in 100, 8: 11, 4: 21), so its percentiles are
moved outwards as far as Student's t lies outside the normal distribution. Below eight sitters resampling does not reach far enough,
whatever percentile is taken, and the interval is Student's own.
Sources: Efron, "Bootstrap methods: another look at the jackknife", 1979; the expanded percentile interval: Hesterberg, "What teachers
should know about the bootstrap", The American Statistician 69, 2015.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

RESAMPLES = 10_000
CONFIDENCE = 0.95
FEWEST_RESAMPLED = 8  # sitters


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
    n, mean = len(values), float(values.mean())
    reach = t.ppf((1 + CONFIDENCE) / 2, n - 1)  # in standard errors
    if n < FEWEST_RESAMPLED:
        half = float(reach * values.std(ddof=1) / np.sqrt(n))
        return Interval(mean, mean - half, mean + half, n)
    outside = norm.cdf(-reach * np.sqrt(n / (n - 1)))  # resampled means vary less than means do, by that root
    drawn = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    low, high = np.quantile(values[drawn].mean(1), [outside, 1 - outside])
    return Interval(mean, float(low), float(high), n)


def paired(values: Mapping[int, float], reference: Mapping[int, float], seed: int = 0) -> Interval | None:
    """The mean of `values` minus `reference`, each by sitter, over the sitters that have both; None where nobody has."""
    common = sorted(set(values) & set(reference))
    return interval([values[who] - reference[who] for who in common], seed) if common else None
