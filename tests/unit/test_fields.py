"""Operators on fields: against torch, against dense matrices, transposes, places."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from priorflow.operators.base import LinearOperator
from priorflow.operators.fields import Downsample, Points

OPERATORS = [
    Downsample(size=8, factor=2, noise_std=0.3),
    Downsample(size=8, factor=4, noise_std=0.3),
    Points(size=8, count=11, noise_std=0.3),
    Points(size=8, share=0.5, noise_std=0.3, seed=5),
]


def dense(operator):
    """The matrix A, shape (m, size²), one column for every pixel."""
    pixels = torch.eye(operator.size**2, dtype=torch.float64)
    return operator(pixels.view(-1, operator.size, operator.size)).flatten(1).T


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_downsample_is_the_published_one(factor):
    x = torch.randn(2, 3, 32, 32)
    published = torch.nn.functional.interpolate(
        x, size=32 // factor, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(Downsample(size=32, factor=factor)(x), published)


def test_downsample_sees_the_central_pixels():
    """Rows 3 and 4 of a block of 8, and for a factor of 2 the whole block."""
    x = torch.zeros(8, 8)
    x[3:5, 3:5] = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert Downsample(size=8, factor=8)(x).tolist() == [[3.0]]
    x = torch.randn(6, 6)
    blocks = torch.nn.functional.avg_pool2d(x[None], 2)[0]
    torch.testing.assert_close(Downsample(size=6, factor=2)(x), blocks)


def test_points_are_fixed_by_the_seed():
    x = torch.arange(64 * 64.0).view(64, 64)
    values = Points(size=64, count=819)(x)
    assert values.shape == (819,)
    assert len(values.unique()) == 819
    assert (Points(size=64, count=819)(x) == values).all()
    assert (Points(size=64, count=819, seed=1)(x) != values).any()
    assert torch.isin(Points(size=64, count=256)(x), values).all()
    assert Points(size=128, share=1 / 64).index.shape == (256,)
    assert Points(size=128, share=0.05).index.shape == (819,)
    # No corner of the field is left out: about 205 in every quarter, with a deviation of 11.
    rows, columns = (Points(size=64, count=819).positions > math.pi).unbind(1)
    for quarter in (rows & columns, rows & ~columns, ~rows & columns, ~rows & ~columns):
        assert 150 < quarter.sum() < 260


@given(
    blocks=st.integers(1, 4),
    factor=st.sampled_from([2, 4, 6]),
    points=st.integers(1, 4),
    lead=st.lists(st.integers(1, 3), max_size=3),
)
@settings(deadline=None, max_examples=50)
def test_transposes(blocks, factor, points, lead):
    size = blocks * factor
    for operator in (Downsample(size=size, factor=factor), Points(size=size, count=points)):
        x = torch.randn(*lead, size, size, dtype=torch.float64)
        y = torch.randn_like(operator(x))
        assert y.shape[: len(lead)] == tuple(lead)
        torch.testing.assert_close((operator(x) * y).sum(), (x * operator.adjoint(y)).sum())
        assert isinstance(operator, LinearOperator)


@pytest.mark.parametrize("operator", OPERATORS, ids=repr)
def test_pseudo_inverse(operator):
    a = dense(operator)
    y = torch.randn(3, *operator(torch.zeros(8, 8)).shape, dtype=torch.float64)
    exact = (y.flatten(1) @ torch.linalg.pinv(a).T).view(3, 8, 8)
    torch.testing.assert_close(operator.pinv(y), exact)
    torch.testing.assert_close(operator(operator.pinv(operator(exact))), operator(exact))
    assert dense(operator).square().sum(1).tolist() == [operator.weight] * len(a)


@pytest.mark.parametrize("operator", OPERATORS, ids=repr)
@pytest.mark.parametrize("kind", ["number", "pixels", "cases"])
def test_prox_is_the_dense_solution(operator, kind):
    z0 = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    y = torch.randn(2, 1, *operator(z0).shape[2:], dtype=torch.float64)
    variance = {
        "number": 0.7,
        "pixels": torch.rand(8, 8, dtype=torch.float64) + 0.1,
        "cases": torch.rand(2, 1, 1, 1, dtype=torch.float64) + 0.1,
    }[kind]
    z = operator.prox(z0, y, variance)
    assert z.shape == z0.shape
    a = dense(operator)
    c = torch.as_tensor(variance).expand(2, 3, 8, 8).flatten(2).double()
    hessian = a.T @ a / 0.3**2 + torch.diag_embed(1 / c)
    right = z0.flatten(2) / c + y.flatten(2).expand(2, 3, -1) @ a / 0.3**2
    torch.testing.assert_close(z.flatten(2), torch.linalg.solve(hessian, right))


@pytest.mark.parametrize("operator", OPERATORS, ids=repr)
def test_prox_of_noise_free_observations_meets_them(operator):
    operator = type(operator)(**{**vars_of(operator), "noise_std": 0.0})
    z0, y = torch.randn(8, 8), operator(torch.randn(8, 8))
    torch.testing.assert_close(operator(operator.prox(z0, y, 1.0)), y)


def vars_of(operator):
    return {name: getattr(operator, name) for name in operator.__dataclass_fields__}


@pytest.mark.parametrize("operator", OPERATORS, ids=repr)
def test_positions_are_where_the_operator_looks(operator):
    """A field that is its own coordinate, row first, is observed as the position."""
    axis = torch.arange(8) * 2 * math.pi / 8
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    expected = torch.stack((operator(y).flatten(), operator(x).flatten()), dim=1)
    torch.testing.assert_close(operator.positions, expected)


@pytest.mark.parametrize("operator", OPERATORS, ids=repr)
def test_gradients(operator):
    x = torch.randn(2, 8, 8, dtype=torch.float64, requires_grad=True)
    y = torch.randn_like(operator(x)).requires_grad_()
    assert torch.autograd.gradcheck(operator, x)
    assert torch.autograd.gradcheck(operator.adjoint, y)


@pytest.mark.parametrize(
    ("method", "fields", "named"),
    [
        (Downsample, {"size": 9, "factor": 3}, "factor"),
        (Downsample, {"size": 8, "factor": 6}, "factor"),
        (Downsample, {"size": 8, "factor": 0}, "factor"),
        (Downsample, {"size": 8, "factor": 2, "noise_std": -1.0}, "noise_std"),
        (Points, {"size": 8}, "count, share"),
        (Points, {"size": 8, "count": 5, "share": 0.5}, "count, share"),
        (Points, {"size": 8, "count": 0}, "count"),
        (Points, {"size": 8, "count": 65}, "count"),
        (Points, {"size": 8, "share": 1.5}, "share"),
        (Points, {"size": 8, "share": 1e-3}, "share"),
        (Points, {"size": 8, "count": 5, "noise_std": math.nan}, "noise_std"),
    ],
)
def test_bad_settings_are_refused(method, fields, named):
    with pytest.raises(ValueError, match=f"^{named}: value.*, allowed: "):
        method(**fields)
