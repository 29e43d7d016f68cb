"""Intervals over sitters: right where the answer is known, and paired."""

import numpy as np
import pytest

from lab.protocols.bootstrap import interval, paired


def test_the_interval_of_a_mean_holds_it_and_narrows_with_sitters():
    values = np.random.default_rng(0).normal(3, 1, 400)
    few, many = interval(values[:16]), interval(values)
    assert few.low < few.mean < few.high and many.low < 3 < many.high
    assert many.high - many.low == pytest.approx(4 * 1.96 / 20 / 2, rel=0.15)  # 2 * 1.96 * 1 / sqrt(400)
    assert few.high - few.low > 2 * (many.high - many.low)


@pytest.mark.parametrize("sitters", [3, 4, 7, 8, 16])
def test_where_nothing_is_different_zero_is_excluded_one_time_in_twenty(sitters, monkeypatch):
    monkeypatch.setattr("lab.protocols.bootstrap.RESAMPLES", 2000)
    chance = np.random.default_rng(0)
    excluded = sum(interval(chance.standard_normal(sitters)).excludes_zero for _ in range(1000))
    assert 30 <= excluded <= 72  # 50 +- 3 standard deviations


def test_what_makes_one_sitter_harder_than_another_cancels_in_pairs():
    generator = np.random.default_rng(1)
    hardness = {who: generator.normal(0, 10) for who in range(16)}
    full = {who: hard for who, hard in hardness.items()}
    variant = {who: hard + 0.5 + generator.normal(0, 0.1) for who, hard in hardness.items()}
    found = paired(variant, full)
    assert found.excludes_zero and found.mean == pytest.approx(0.5, abs=0.1)


def test_only_sitters_that_both_have_are_compared():
    assert paired({1: 2.0, 2: 3.0, 3: 4.0, 9: 100.0}, {1: 1.0, 2: 2.0, 3: 3.0, 8: 0.0}).sitters == 3
    assert paired({1: 1.0}, {2: 1.0}) is None


def test_two_sitters_have_a_mean_and_no_interval():
    found = interval([1.0, 3.0])
    assert (found.mean, found.low, found.excludes_zero) == (2.0, None, False)


def test_the_same_numbers_give_the_same_interval():
    assert interval([1.0, 2.0, 5.0]) == interval([1.0, 2.0, 5.0])
