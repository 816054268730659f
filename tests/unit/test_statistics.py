"""Bootstrap intervals: their coverage, their pairing, their corner cases."""

import numpy as np
import pandas as pd
import pytest

from priorflow.stages.statistics import (
    Estimate,
    bootstrap_interval,
    paired_difference,
    pooled_ratio,
    skill_recovered,
)


@pytest.mark.parametrize("n", [12, 64])
def test_coverage_on_normal_data(n):
    """95 % of the intervals hold the true mean: 1000 trials have a standard error of 0.7 %."""
    draws = np.random.default_rng(n).normal(1.5, 2, size=(1000, n))
    found = [bootstrap_interval(x, resamples=2000) for x in draws]
    covered = np.mean([e.low <= 1.5 <= e.high for e in found])
    assert 0.925 < covered < 0.975


def test_interval_agrees_with_the_student_interval():
    """For normal data of 64 cases the two differ by a few per cent of the width."""
    x = np.random.default_rng(0).normal(size=64)
    e = bootstrap_interval(x)
    half = 1.998 * x.std(ddof=1) / 8
    assert e.value == pytest.approx(x.mean())
    assert e.high - e.low == pytest.approx(2 * half, rel=0.06)


def test_level_seed_and_determinism():
    """The same seed gives the same interval; a higher level a wider one."""
    x = np.random.default_rng(1).exponential(size=30)
    assert bootstrap_interval(x) == bootstrap_interval(x)
    assert bootstrap_interval(x) != bootstrap_interval(x, seed=1)
    assert bootstrap_interval(x, level=0.99).high > bootstrap_interval(x, level=0.8).high


def test_missing_values_are_left_out_and_counted():
    """NaN is no value; one case has no interval; none has no mean."""
    e = bootstrap_interval([1.0, np.nan, 3.0])
    assert (e.value, e.n) == (2.0, 2)
    assert bootstrap_interval([1.0, np.nan]).n == 1
    assert np.isnan(bootstrap_interval([1.0]).low)
    none = bootstrap_interval([np.nan])
    assert none.n == 0
    assert np.isnan(none.value)
    assert not none.excludes_zero


def test_pairing_finds_what_separate_intervals_hide():
    """Cases differ far more than methods, and every case agrees on which method is better."""
    rng = np.random.default_rng(2)
    hard = pd.Series(rng.exponential(size=40))
    a, b = hard + 0.1, hard + 0.02 * rng.normal(size=40)
    alone = bootstrap_interval(a), bootstrap_interval(b)
    assert alone[0].low < alone[1].high
    difference = paired_difference(a, b)
    assert difference.excludes_zero
    assert difference.value == pytest.approx((a - b).mean())


def test_pairing_is_by_case_not_by_position():
    """Only cases that both have count, wherever they stand."""
    a = pd.Series({0: 1.0, 1: 2.0, 2: np.nan, 5: 7.0})
    b = pd.Series({5: 6.0, 1: 1.0, 2: 3.0, 9: 0.0})
    assert paired_difference(a, b) == Estimate(1.0, 1.0, 1.0, 2)


def test_skill_of_the_ends():
    """The limit recovers all of it, the floor nothing, a method halfway half: both directions."""
    rng = np.random.default_rng(3)
    floor = pd.Series(2 + rng.exponential(size=20))
    limit = floor - 1 - rng.uniform(size=20)
    for sign in (1, -1):
        f, m = sign * floor, sign * limit
        assert skill_recovered(m, f, m) == Estimate(1.0, 1.0, 1.0, 20)
        assert skill_recovered(f, f, m) == Estimate(0.0, 0.0, 0.0, 20)
        half = skill_recovered((f + m) / 2, f, m)
        assert (half.low, half.value, half.high) == pytest.approx((0.5, 0.5, 0.5))


def test_skill_needs_room():
    """Where floor and limit cannot be told apart there is no skill to recover."""
    rng = np.random.default_rng(4)
    floor = pd.Series(rng.normal(size=20))
    limit = pd.Series(rng.normal(size=20))
    e = skill_recovered(limit, floor, limit)
    assert np.isnan(e.value)
    assert e.n == 20


def test_pooled_ratio_is_free_of_the_bias_of_ratios():
    """Equal mean squares on 3 numbers a case: pooled it is 1, the mean of ratios far more."""
    rng = np.random.default_rng(5)
    a, b = rng.chisquare(3, size=(2, 400))
    e = pooled_ratio(pd.Series(a), pd.Series(b))
    assert e.low < 1 < e.high
    assert np.sqrt(a / b).mean() > 1.2
    assert np.isnan(pooled_ratio(pd.Series([1.0]), pd.Series([0.0])).value)
