"""Means over cases with bootstrap intervals, paired where two methods are compared.

All statistics are functions of means over cases, and a resample of n cases is a vector of weights
on them, w = multinomial(n, 1/n) / n, so that a bootstrap is one product of a (resamples, n) matrix
with the values of the cases. The weights depend on n and the seed alone: every interval is
deterministic, and statistics that share a resample are paired.

The percentile interval is expanded for small n: the quantiles are taken at Φ(∓ t √(n / (n - 1)))
with t the Student quantile of n - 1 degrees of freedom, since the plain one is too narrow by about
the factor √((n - 1) / n) z / t.

Reference:
    What teachers should know about the bootstrap (Hesterberg, 2015), section 3.2 ("expanded
    percentile"), doi 10.1080/00031305.2015.1089789
"""

__all__ = [
    "Estimate",
    "bootstrap_interval",
    "paired_difference",
    "pooled_ratio",
    "pooled_share",
    "skill_recovered",
]

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import norm, t

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A statistic of n cases with its bootstrap interval.

    Attributes:
        value: The statistic; NaN if no case has a value.
        low, high: The ends of the interval; NaN for fewer than two cases.
        n: The number of cases that it is made of.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def bootstrap_interval(
    values: ArrayLike, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Estimate:
    """The mean over cases.

    Args:
        values: One number per case, shape (n,). NaN says that the case has no value: it is left
            out, and `n` does not count it.
        resamples: The number of bootstrap resamples.
        level: The probability that the interval is to have.
        seed: Seed of the resamples.
    """
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    n = len(values)
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    return _estimate(values.mean(), _weights(n, resamples, seed) @ values, level, n)


def paired_difference(
    a: pd.Series,
    b: pd.Series,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """The mean of a - b over the cases that both have.

    Args:
        a, b: One number per case, indexed by case; NaN as in `bootstrap_interval`.
        resamples, level, seed: As in `bootstrap_interval`.
    """
    a, b = _common(a, b)
    return bootstrap_interval(a - b, resamples, level, seed)


def skill_recovered(
    method: pd.Series,
    forecast: pd.Series,
    limit: pd.Series,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """(forecast - method) / (forecast - limit): 0 for the floor, 1 for the limit.

    The ratio of mean differences over the cases that all three have, whichever direction is better.
    NaN where the interval of forecast - limit holds 0: then there is nothing to recover.

    Args:
        method, forecast, limit: One number per case, indexed by case.
        resamples, level, seed: As in `bootstrap_interval`.
    """
    method, forecast, limit = _common(method, forecast, limit)
    n = len(method)
    if not bootstrap_interval(forecast - limit, resamples, level, seed).excludes_zero:
        return Estimate(np.nan, np.nan, np.nan, n)
    gain, room = forecast - method, forecast - limit
    weights = _weights(n, resamples, seed)
    return _estimate(gain.mean() / room.mean(), (weights @ gain) / (weights @ room), level, n)


def pooled_ratio(
    numerator: pd.Series,
    denominator: pd.Series,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """√(mean numerator / mean denominator) over the cases that both have.

    Spread over skill, from squared spread and squared error: free of the bias that a mean of ratios
    has.

    Args:
        numerator, denominator: One number ≥ 0 per case, indexed by case.
        resamples, level, seed: As in `bootstrap_interval`.
    """
    return _pooled(numerator, denominator, np.sqrt, resamples, level, seed)


def pooled_share(
    numerator: pd.Series,
    denominator: pd.Series,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """Mean numerator / mean denominator over the cases that both have: of counts, which add up.

    Args:
        numerator, denominator, resamples, level, seed: As in `pooled_ratio`.
    """
    return _pooled(numerator, denominator, np.asarray, resamples, level, seed)


def _pooled(
    numerator: pd.Series,
    denominator: pd.Series,
    transform: Callable[[ArrayLike], np.ndarray],
    resamples: int,
    level: float,
    seed: int,
) -> Estimate:
    """A transform of mean numerator / mean denominator."""
    a, b = _common(numerator, denominator)
    n = len(a)
    if n == 0 or not b.mean() > 0:
        return Estimate(np.nan, np.nan, np.nan, n)
    weights = _weights(n, resamples, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = transform((weights @ a) / (weights @ b))
    return _estimate(transform(a.mean() / b.mean()), ratios, level, n)


@lru_cache(maxsize=8)
def _weights(n: int, resamples: int, seed: int) -> np.ndarray:
    """The share of every case in every resample, shape (resamples, n)."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, n]))
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n


def _estimate(value: float, resampled: np.ndarray, level: float, n: int) -> Estimate:
    if n < 2:
        return Estimate(float(value), np.nan, np.nan, n)
    tail = norm.cdf(t.ppf((1 - level) / 2, n - 1) * np.sqrt(n / (n - 1)))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(float(value), float(low), float(high), n)


def _common(*series: pd.Series) -> tuple[np.ndarray, ...]:
    """The values of the cases that all series have."""
    frame = pd.concat(series, axis=1).dropna()
    return tuple(frame.iloc[:, i].to_numpy(dtype=float) for i in range(frame.shape[1]))
