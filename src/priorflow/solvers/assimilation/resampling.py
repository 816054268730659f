"""Resampling of weighted particles.

A draw of n indices from the weights w_1, …, w_N is unbiased when index i is expected n w_i times.
Both schemes invert the cumulative weights at n ordered points u_j of [0, 1):

    systematic:   u_j = (j + u) / n  with one u ~ U[0, 1): i occurs ⌊n w_i⌋ or ⌈n w_i⌉ times,
    multinomial:  u_j ~ U[0, 1) independently.

Reference:
    Comparison of Resampling Schemes for Particle Filtering (Douc, Cappé & Moulines, 2005),
    arXiv cs/0507025
"""

__all__ = ["effective_sample_size", "multinomial", "systematic"]

import torch
from torch import Tensor

from priorflow.rng import Streams


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(Σ w_i)² / Σ w_i², between 1 and N: log-weights (cases, N), of any scale, to (cases,)."""
    return 1 / log_weights.softmax(1).square().sum(1)


def systematic(log_weights: Tensor, n: int, rng: Streams) -> Tensor:
    """Indices of a systematic draw, in increasing order.

    Args:
        log_weights: Logarithms of the weights, of any scale, shape (cases, N).
        n: The number of draws.
        rng: One stream per case; each gives one uniform number.

    Returns:
        The indices, shape (cases, n), of dtype int64.
    """
    points = torch.arange(n, device=log_weights.device, dtype=torch.float64)
    return _invert(log_weights, (points + rng.uniform(1).to(points)) / n)


def multinomial(log_weights: Tensor, n: int, rng: Streams) -> Tensor:
    """Indices of n independent draws; arguments and result as in `systematic`, but not ordered."""
    return _invert(log_weights, rng.uniform(n).to(log_weights.device, torch.float64))


def _invert(log_weights: Tensor, points: Tensor) -> Tensor:
    """The first i with w_1 + … + w_i > u, for points u (cases, n) in [0, 1).

    In float64: in float32 the sum of 16384 weights is off by more than the last of them.
    """
    cumulative = log_weights.double().softmax(1).cumsum(1)
    cumulative = cumulative / cumulative[:, -1:]
    return torch.searchsorted(cumulative, points, right=True)
