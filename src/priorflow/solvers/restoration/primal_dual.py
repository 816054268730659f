"""Convex restoration, argmin_x |y - A x|² / 2 + λ |K x|_1, by Chambolle's and Pock's algorithm:

    p ← Π(p + σ K x̄),    x' = prox(x - τ Kᵀp),    x̄ = 2 x' - x,    x ← x'

with Π the projection of the dual variable onto |p| ≤ λ, prox(z) = argmin_x |y - A x|² / 2 +
|x - z|² / 2τ, which the operator has in closed form, and σ τ |K|² = 1.

Reference:
    A First-Order Primal-Dual Algorithm for Convex Problems with Applications to Imaging (Chambolle
    and Pock, 2011), algorithm 1, doi 10.1007/s10851-010-0251-1
"""

__all__ = ["primal_dual"]

from collections.abc import Callable, Sequence

from torch import Tensor

from priorflow.operators.decomposed import Decomposed

Map = Callable[[Tensor], Tensor]


def primal_dual(
    y: Tensor,
    operator: Decomposed,
    shape: Sequence[int],
    *,
    analyse: Map,
    synthesise: Map,
    project: Map,
    norm: float,
    tau: float,
    steps: int,
) -> Tensor:
    """x, shape (cases, 1, \\*shape), after `steps` steps from x = 0 and p = 0.

    Args:
        y: Observations, shape (cases, \\*obs).
        shape: (C, H, W).
        analyse: K.
        synthesise: Kᵀ.
        project: Π.
        norm: |K|, or more.
        tau: τ, about the size of x over that of Kᵀp.
    """
    x = y.new_zeros(len(y), 1, *shape)
    p = ahead = analyse(x)
    for _ in range(steps):
        p = project(p + ahead / (tau * norm**2))
        before, x = x, operator.prox(x - tau * synthesise(p), y.unsqueeze(1), tau, 1.0)
        ahead = analyse(2 * x - before)
    return x
