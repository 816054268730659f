"""Operators: shapes, transposes, likelihood."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from priorflow.operators.base import LinearOperator, log_likelihood
from priorflow.operators.pointwise import Arctan, Components, Cube


@given(
    size=st.integers(1, 12), start=st.integers(0, 3), stride=st.integers(1, 4), n=st.integers(1, 3)
)
def test_components_transpose(size, start, stride, n):
    operator = Components(size=size, start=min(start, size - 1), stride=stride)
    x = torch.randn(n, size, dtype=torch.float64)
    y = torch.randn_like(operator(x))
    torch.testing.assert_close((operator(x) * y).sum(), (x * operator.adjoint(y)).sum())
    torch.testing.assert_close(operator(operator.pinv(y)), y)
    torch.testing.assert_close(x @ operator.matrix().T.to(x), operator(x))
    assert isinstance(operator, LinearOperator)


def test_pointwise_values():
    x = torch.tensor([[0.5, 2.0, -1.0]])
    torch.testing.assert_close(Arctan(component=1)(x), torch.tensor([[2.0]]).atan())
    torch.testing.assert_close(Cube()(x), x**3)


def test_log_likelihood_is_the_gaussian_density():
    y, p = torch.randn(4, 2, 3), torch.randn(4, 2, 3)
    expected = torch.distributions.Normal(p, 0.3).log_prob(y).sum((-1, -2))
    torch.testing.assert_close(log_likelihood(y, p, 0.3, ndim=2), expected)
