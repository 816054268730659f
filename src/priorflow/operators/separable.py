"""Operators that act on the columns and the rows of an image alike: y = A_h x A_wᵀ, by channels.

With the decompositions A_h = U_h diag(s_h) V_hᵀ and A_w = U_w diag(s_w) V_wᵀ of two small matrices,

    U_hᵀ y U_w = (s_h s_wᵀ) ⊙ (V_hᵀ x V_w),

so that everything is known of an operator whose matrix would have (H W)² entries.
"""

__all__ = ["Separable", "decompose", "windows"]

from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from priorflow.operators.decomposed import Decomposed


class Separable(Decomposed):
    """A linear operator of that kind; a subclass gives A_h and A_w as `matrices`, and γ."""

    @property
    @abstractmethod
    def matrices(self) -> tuple[Tensor, Tensor]:
        """A_h of shape (h, H) and A_w of shape (w, W), with h ≤ H and w ≤ W."""

    @cached_property
    def _svd(self) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        return tuple(decompose(matrix) for matrix in self.matrices)

    @cached_property
    def singular_values(self) -> Tensor:
        """s_h s_wᵀ, shape (H, W)."""
        (_, rows, _), (_, columns, _) = self._svd
        return torch.outer(rows, columns)

    def __call__(self, x: Tensor) -> Tensor:
        """Images (…, C, H, W) to observations (…, C, h, w)."""
        rows, columns = self.matrices  # half of the products that U diag(s) Vᵀ takes
        return rows.to(x) @ x @ columns.to(x).mT

    def adjoint(self, y: Tensor) -> Tensor:
        """Observations (…, C, h, w) to images (…, C, H, W)."""
        rows, columns = self.matrices
        return rows.to(y).mT @ y @ columns.to(y)

    def to_right(self, x: Tensor) -> Tensor:
        """V_hᵀ x V_w."""
        (_, _, rows), (_, _, columns) = self._svd
        return rows.to(x).mT @ x @ columns.to(x)

    def from_right(self, c: Tensor) -> Tensor:
        """V_h c V_wᵀ."""
        (_, _, rows), (_, _, columns) = self._svd
        return rows.to(c) @ c @ columns.to(c).mT

    def to_left(self, y: Tensor) -> Tensor:
        """U_hᵀ y U_w."""
        (rows, _, _), (columns, _, _) = self._svd
        return rows.to(y).mT @ y @ columns.to(y)

    def from_left(self, c: Tensor) -> Tensor:
        """U_h c U_wᵀ."""
        (rows, _, _), (columns, _, _) = self._svd
        return rows.to(c) @ c @ columns.to(c).mT

    def picture(self, y: Tensor) -> Tensor:
        """Observations as a figure shows them: they are images, shape (…, C, h, w)."""
        return y


def decompose(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The singular value decomposition as `Decomposed` wants it, found in double precision.

    Args:
        matrix: Shape (…, m, n), m ≤ n.

    Returns:
        U of shape (…, m, n), s of shape (…, n) and V of shape (…, n, n). Singular values that are
        zero but for rounding are zero, and so are their columns of U.
    """
    m, n = matrix.shape[-2:]
    u, s, vh = torch.linalg.svd(matrix.double())
    s = torch.where(s > n * torch.finfo(s.dtype).eps * s[..., :1], s, 0)
    u = u * (s > 0).unsqueeze(-2)
    pad = torch.nn.functional.pad
    return pad(u, (0, n - m)), pad(s, (0, n - m)), vh.mT


def windows(weights: Tensor, positions: Tensor, size: int) -> Tensor:
    """The matrix of y_i = Σ_j weights[i, j] x[positions[i, j]].

    Args:
        weights: Shape (m, taps), or one that broadcasts with it.
        positions: Shape (m, taps), in 0, …, size - 1; the weights of equal ones add up.
        size: n.

    Returns:
        Shape (m, n).
    """
    matrix = weights.new_zeros(len(positions), size)
    return matrix.scatter_add(1, positions, weights.expand(positions.shape))
