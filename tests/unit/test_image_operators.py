"""Operators on images: against scipy and torch, dense matrices, decompositions, one per image."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn.functional import interpolate

from priorflow.components import BadInput, build, check
from priorflow.operators.base import LinearOperator, Operator
from priorflow.operators.blur import CircularBlur, GaussianBlur, ReflectedBlur
from priorflow.operators.inpainting import BoxInpainting, RandomInpainting
from priorflow.operators.motion import MotionBlur
from priorflow.operators.nonlinear import HighDynamicRange, PhaseRetrieval
from priorflow.operators.resize import BicubicDownsample

SHAPE = (2, 8, 12)  # the rows are not the columns
KERNEL = torch.rand(5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
KERNEL = KERNEL / KERNEL.sum()  # not symmetric
MEAN = {n: torch.full((n, n), 1 / n**2, dtype=torch.float64) for n in (3, 5)}  # blind to period n

SHARED = {
    "gaussian": GaussianBlur(SHAPE, size=7, std=0.8, noise_std=0.3),
    "gaussian reflected": GaussianBlur(SHAPE, size=7, std=0.8, boundary="reflect", noise_std=0.3),
    "any kernel": CircularBlur(KERNEL, SHAPE, noise_std=0.3),
    "any kernel, odd": CircularBlur(KERNEL, (2, 9, 7), noise_std=0.3),
    "any kernel reflected": ReflectedBlur(KERNEL, SHAPE, noise_std=0.3),
    "blind kernel": CircularBlur(MEAN[5], (2, 8, 15), noise_std=0.3),
    "blind kernel reflected": ReflectedBlur(MEAN[3], (2, 4, 7), noise_std=0.3),
    "half": BicubicDownsample(SHAPE, factor=2, noise_std=0.3),
    "quarter": BicubicDownsample(SHAPE, factor=4, noise_std=0.3),
    "box": BoxInpainting(SHAPE, rows=(2, 5), columns=(3, 9), noise_std=0.3),
}
PER_IMAGE = {
    "motion": MotionBlur(SHAPE, size=7, noise_std=0.3),
    "motion reflected": MotionBlur(SHAPE, size=7, boundary="reflect", noise_std=0.3),
    "random pixels": RandomInpainting(SHAPE, share=0.4, noise_std=0.3),
}
LINEAR = SHARED | {name: operator.at([7]) for name, operator in PER_IMAGE.items()}
each_linear = pytest.mark.parametrize("operator", LINEAR.values(), ids=LINEAR)
each_per_image = pytest.mark.parametrize("operator", PER_IMAGE.values(), ids=PER_IMAGE)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def images(operator, *lead):
    return torch.randn(*lead, *operator.shape, dtype=torch.float64)


def dense(operator):
    """The matrix A, shape (m, C H W), from the images with one bright pixel."""
    pixels = torch.eye(math.prod(operator.shape), dtype=torch.float64)
    return operator(pixels.view(1, -1, *operator.shape))[0].flatten(1).T


def norm(operator, c):
    """The norm of coefficients; of a spectrum, the half that `rfft2` leaves out counts as well."""
    if c.is_complex():
        twice = c[..., 1 : (operator.shape[-1] + 1) // 2]
        return (c.abs().square().sum() + twice.abs().square().sum()).sqrt()
    return c.norm()


def tolerance(operator):
    """Of double precision; of the single precision that the dense kernels of motion have."""
    kernel = getattr(operator, "kernel", torch.zeros(1, dtype=torch.float64))
    return 1e-7 if kernel.dtype == torch.float64 else 1e-5


# What they do to an image


@pytest.mark.parametrize(("boundary", "mode"), [("circular", "wrap"), ("reflect", "mirror")])
def test_gaussian_blur_is_scipys(boundary, mode):
    x = torch.randn(3, 32, 48, dtype=torch.float64)
    operator = GaussianBlur((3, 32, 48), size=31, std=2.5, boundary=boundary)
    exact = [ndimage.gaussian_filter(channel.numpy(), 2.5, mode=mode) for channel in x]
    torch.testing.assert_close(operator(x), torch.from_numpy(np.stack(exact)))


def test_gaussian_kernel_is_the_published_one():
    delta = np.zeros((61, 61))
    delta[30, 30] = 1
    kernel = GaussianBlur((3, 256, 256)).kernel
    published = torch.from_numpy(ndimage.gaussian_filter(delta, 3.0))
    torch.testing.assert_close(torch.outer(kernel, kernel), published)
    assert (kernel > 0).nonzero().flatten().tolist() == list(range(18, 43))  # 25 of 61


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(CircularBlur, "wrap"), (ReflectedBlur, "mirror")],
    ids=["circular", "reflect"],
)
@pytest.mark.parametrize("shape", [(2, 8, 12), (1, 9, 7)])
def test_blur_by_any_kernel_is_scipys(kind, mode, shape):
    operator = kind(KERNEL, shape)
    x = images(operator)
    exact = [ndimage.correlate(channel.numpy(), KERNEL.numpy(), mode=mode) for channel in x]
    torch.testing.assert_close(operator(x), torch.from_numpy(np.stack(exact)))


def test_a_gaussian_is_a_kernel_like_any_other():
    for boundary, kind in (("circular", CircularBlur), ("reflect", ReflectedBlur)):
        gaussian = GaussianBlur(SHAPE, size=7, std=0.8, boundary=boundary)
        other = kind(torch.outer(gaussian.kernel, gaussian.kernel), SHAPE)
        x = images(gaussian, 3)
        torch.testing.assert_close(gaussian(x), other(x))
        torch.testing.assert_close(gaussian.pinv(x, 0.3), other.pinv(x, 0.3))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_downsampling_is_bicubic_with_antialiasing(factor):
    """torch's own, of the image continued by mirroring it at its edges."""
    sides = 6 * factor, 8 * factor
    x = torch.randn(1, 2, *sides, dtype=torch.float64)
    edge = 2 * factor  # two pixels of y
    continued = np.pad(x.numpy(), ((0, 0), (0, 0), (edge, edge), (edge, edge)), mode="symmetric")
    size = [(side + 2 * edge) // factor for side in sides]
    exact = interpolate(torch.from_numpy(continued), size=size, mode="bicubic", antialias=True)
    y = BicubicDownsample((2, *sides), factor=factor)(x)
    torch.testing.assert_close(y, exact[..., 2:-2, 2:-2])
    cut_off = interpolate(x, scale_factor=1 / factor, mode="bicubic", antialias=True)
    torch.testing.assert_close(y[..., 2:-2, 2:-2], cut_off[..., 2:-2, 2:-2])
    torch.testing.assert_close(y.mean(), x.mean())  # the mirrored border weighs every pixel alike


def test_a_box_hides_its_pixels():
    operator = BoxInpainting((1, 32, 32), rows=(12, 25), columns=(10, 14), noise_std=0.0)
    x = torch.randn(2, 1, 32, 32)
    assert operator(x).shape == (2, 1, 32 * 32 - 13 * 4)
    seen = operator.picture(operator(x))
    assert (seen[..., 12:25, 10:14] == 0).all()
    assert (seen == x).sum() == 2 * (32 * 32 - 13 * 4)


def test_random_pixels_are_as_many_in_every_image():
    operator = RandomInpainting((3, 16, 20), share=0.3)
    y = operator.at(range(200))(torch.ones(200, 1, 3, 16, 20))
    assert y.shape == (200, 1, 3, 96)
    seen = operator.at(range(200)).picture(y)
    assert (seen.sum((-2, -1)) == 96).all()
    assert (seen == seen[:, :, :1]).all()  # all channels of a pixel alike
    often = seen[:, 0, 0].mean(0)  # 0.3 with a deviation of 0.032, for 320 pixels
    assert 0.15 < often.min() < often.max() < 0.45


def test_phase_retrieval_has_the_published_amplitudes():
    x = torch.rand(3, 256, 256, dtype=torch.float64) * 2 - 1
    y = PhaseRetrieval()(x)
    assert y.shape == (3, 384, 384)
    padded = np.pad(x.numpy(), ((0, 0), (64, 64), (64, 64)))
    spectrum = np.fft.fftshift(np.fft.fft2(padded, norm="ortho"), axes=(1, 2))
    torch.testing.assert_close(y, torch.from_numpy(np.abs(spectrum)))
    torch.testing.assert_close(y[:, 192, 192], x.sum((1, 2)).abs() / 384)


def test_phase_retrieval_keeps_energy_and_loses_sign_and_direction():
    x = torch.randn(2, 1, 8, 12, dtype=torch.float64)
    operator = PhaseRetrieval(oversampling=2.0)
    y = operator(x)
    assert y.shape == (2, 1, 12, 18)
    torch.testing.assert_close(y.square().sum(), x.square().sum())
    torch.testing.assert_close(operator(-x), y)
    torch.testing.assert_close(operator(x.flip(-1, -2)), y)
    assert not torch.allclose(operator(x.flip(-1)), y)


def test_high_dynamic_range_clips():
    operator = HighDynamicRange()
    x = torch.tensor([-0.9, -0.5, -0.2, 0.0, 0.3, 0.6])
    assert operator(x).tolist() == pytest.approx([-1.0, -1.0, -0.4, 0.0, 0.6, 1.0])
    y = torch.linspace(-1, 1, 9)
    torch.testing.assert_close(operator(operator.pinv(y)), y)


def test_gradients_of_the_operators_that_are_not_linear():
    x = (torch.rand(2, 1, 4, 6, dtype=torch.float64) * 2 - 1).requires_grad_()
    for operator in (PhaseRetrieval(), HighDynamicRange()):
        assert torch.autograd.gradcheck(operator, x)
        nothing = torch.zeros(1, 4, 6, requires_grad=True)
        (gradient,) = torch.autograd.grad(operator(nothing).sum(), nothing)
        assert gradient.isfinite().all()
    assert (gradient == 2).all()


# Transpose, pseudo-inverse, proximal map


@given(
    name=st.sampled_from(sorted(LINEAR)),
    lead=st.lists(st.integers(1, 3), max_size=1),
    members=st.integers(1, 3),
)
@settings(deadline=None, max_examples=60)
def test_transposes(name, lead, members):
    operator = LINEAR[name]
    x = images(operator, *lead, 1, members)
    y = torch.randn_like(operator(x))
    close = {"rtol": 1e-9, "atol": 1e-9}
    assert y.shape[: len(lead) + 2] == (*lead, 1, members)
    torch.testing.assert_close((operator(x) * y).sum(), (x * operator.adjoint(y)).sum(), **close)
    assert isinstance(operator, LinearOperator)


@given(
    name=st.sampled_from(sorted(LINEAR)),
    variance=st.floats(1e-3, 1e3),
    noise_std=st.floats(1e-2, 10),
    cutoff=st.floats(1e-3, 0.5),
)
@settings(deadline=None, max_examples=60)
def test_prox_and_pseudo_inverse_solve_their_equations(name, variance, noise_std, cutoff):
    """Aᵀ(A z - y) / γ² + (z - z0) / c = 0, and A†A A† = A† for whatever is cut off."""
    operator = LINEAR[name]
    z0 = images(operator, 1, 2)
    y = torch.randn_like(operator(z0))
    z = operator.prox(z0, y, variance, noise_std)
    left = variance * operator.adjoint(y - operator(z)) - noise_std**2 * (z - z0)
    error = left.abs().max() / (variance + noise_std**2)
    assert error < 100 * tolerance(operator) * (1 + z.abs().max())
    x = operator.pinv(y, cutoff)
    error = (operator.pinv(operator(x), cutoff) - x).abs().max()
    assert error < 100 * tolerance(operator) / cutoff * (1 + x.abs().max())


@each_linear
def test_decomposition(operator):
    """A = U diag(s) Vᵀ, V square and orthonormal, U orthonormal where s > 0."""
    close = {"rtol": 0, "atol": tolerance(operator)}
    x, s = images(operator, 1, 3), operator.singular_values
    c = operator.to_right(x)
    torch.testing.assert_close(operator.from_right(c), x, **close)
    torch.testing.assert_close(norm(operator, c), x.norm(), **close)
    torch.testing.assert_close(operator.from_left(s * c), operator(x), **close)
    y, seen = operator.from_left(c), c * (s > 0)
    torch.testing.assert_close(operator.to_left(y), seen, **close)
    torch.testing.assert_close(y.norm(), norm(operator, seen), **close)


@each_linear
def test_singular_values_are_those_of_the_matrix(operator):
    exact = torch.linalg.svdvals(dense(operator))
    c = operator.to_right(images(operator, 1, 1))
    s = operator.singular_values.double().expand(c.shape)
    if c.is_complex():
        s = torch.cat((s, s[..., 1 : (operator.shape[-1] + 1) // 2]), dim=-1)
    s = s.flatten().sort(descending=True).values
    torch.testing.assert_close(s[: len(exact)], exact, rtol=0, atol=tolerance(operator))
    assert (s[len(exact) :] == 0).all()


@each_linear
@pytest.mark.parametrize("cutoff", [3e-2, 1e-6], ids=["default", "tiny"])
def test_pseudo_inverse(operator, cutoff):
    """The dense one, hence the conditions of Moore and Penrose."""
    a = dense(operator)
    y = torch.randn_like(operator(images(operator, 1, 3)))
    exact = torch.linalg.pinv(a, atol=cutoff, rtol=0)
    image = operator.pinv(y) if cutoff == 3e-2 else operator.pinv(y, cutoff)
    close = {"rtol": 0, "atol": tolerance(operator)}
    torch.testing.assert_close(image.flatten(2)[0], y.flatten(2)[0] @ exact.T, **close)


def test_without_noise_a_blur_that_is_invertible_is_undone():
    """And with noise only what it shows well, since the rest would be noise."""
    x = torch.rand(2, 1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found = {}
    for noise_std in (0.0, 0.05):
        blur = GaussianBlur((1, 16, 16), size=9, std=1.0, noise_std=noise_std)
        found[noise_std] = (blur.pinv(blur(x)) - x).square().mean().sqrt()
    assert found[0.0] < 1e-4
    assert found[0.05] > 1e-2


@each_linear
@pytest.mark.parametrize("kind", ["number", "cases"])
@pytest.mark.parametrize("noise_std", [None, 0.1])
def test_prox_is_the_dense_solution(operator, kind, noise_std):
    z0 = images(operator, 2, 3)
    y = torch.randn_like(operator(z0))[:, :1]
    variance = 0.7 if kind == "number" else torch.rand(2, 1, 1, 1, 1, dtype=torch.float64) + 0.1
    z = operator.prox(z0, y, variance, noise_std)
    assert z.shape == z0.shape
    a, precision = dense(operator), 1 / (noise_std or 0.3) ** 2
    c = torch.as_tensor(variance, dtype=torch.float64).expand(z0.shape).flatten(2)
    hessian = precision * a.T @ a + torch.diag_embed(1 / c)
    right = z0.flatten(2) / c + precision * y.flatten(2) @ a
    exact = torch.linalg.solve(hessian, right)
    torch.testing.assert_close(z.flatten(2), exact, rtol=0, atol=tolerance(operator))


@pytest.mark.parametrize("name", ["any kernel", "any kernel reflected", "gaussian"])
def test_prox_of_noise_free_observations_meets_them(name):
    operator = LINEAR[name]
    z0, y = images(operator), operator(images(operator))
    torch.testing.assert_close(operator(operator.prox(z0, y, 1.0, 0.0)), y)


@each_linear
def test_precision_is_that_of_the_image(operator):
    x = images(operator, 1, 2).float()
    y = operator(x)
    for z in (
        y,
        operator.adjoint(y),
        operator.pinv(y),
        operator.prox(x, y, 1.0),
        operator.picture(y),
    ):
        assert z.dtype == torch.float32
    torch.testing.assert_close(y.double(), operator(x.double()), rtol=0, atol=1e-5)


@each_linear
def test_gradients_pass_through(operator):
    """DPS differentiates A by autograd: its vector-Jacobian product is Aᵀ."""
    x = images(operator, 1, 2).requires_grad_()
    y = operator(x)
    v = torch.randn_like(y)
    (gradient,) = torch.autograd.grad(y, x, v)
    torch.testing.assert_close(gradient, operator.adjoint(v))


def test_condition():
    assert LINEAR["box"].condition == LINEAR["half"].condition == math.inf
    exact = torch.linalg.cond(dense(LINEAR["any kernel"])).item()
    assert LINEAR["any kernel"].condition == pytest.approx(exact)
    assert LINEAR["gaussian"].condition == pytest.approx(
        torch.linalg.cond(dense(LINEAR["gaussian"])).item()
    )
    assert CircularBlur(MEAN[5], (1, 8, 15)).condition == math.inf
    assert CircularBlur(MEAN[5], (1, 8, 12)).condition < math.inf
    assert ReflectedBlur(MEAN[3], (1, 4, 7)).condition == math.inf
    assert ReflectedBlur(MEAN[3], (1, 5, 5)).condition < math.inf


# One operator for every image


@each_per_image
def test_a_batch_is_its_images(operator):
    cases = [4, 0, 9]
    batch = operator.at(cases)
    x = images(operator, 3, 2)
    y = batch(x)
    variance = torch.rand(3, 1, 1, 1, 1, dtype=torch.float64) + 0.1
    for i, case in enumerate(cases):
        one, part = operator.at([case]), slice(i, i + 1)
        close = {"rtol": 1e-6, "atol": 1e-6}
        torch.testing.assert_close(one(x[part]), y[part])
        torch.testing.assert_close(one.adjoint(y[part]), batch.adjoint(y)[part])
        torch.testing.assert_close(one.pinv(y[part]), batch.pinv(y)[part], **close)
        torch.testing.assert_close(
            one.prox(x[part], y[part, :1], variance[part]),
            batch.prox(x, y[:, :1], variance)[part],
            **close,
        )
        torch.testing.assert_close(one.picture(y[part]), batch.picture(y)[part])
    assert batch.noise_std == operator.noise_std
    # Members of a case see the same operator, and the shape of one observation for all is enough.
    torch.testing.assert_close(batch(x[:, :1]), y[:, :1])
    assert not torch.allclose(batch(x[:1].expand(3, -1, -1, -1, -1)), y)


def test_kernels_of_motion():
    operator = MotionBlur((1, 32, 32), size=9, seed=1)
    kernels = torch.stack([operator.kernel(case) for case in range(300)])
    assert (kernels >= 0).all()
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(300, dtype=torch.float64))
    assert (kernels == torch.stack([operator.kernel(case) for case in range(300)])).all()
    assert len(kernels.flatten(1).unique(dim=0)) > 290  # some are a point
    other = MotionBlur((1, 32, 32), size=9, seed=2)
    assert (other.kernel(0) != operator.kernel(0)).any()
    assert MotionBlur((3, 256, 256)).kernel(0).shape == (61, 61)


def test_small_kernels_of_motion_are_the_published_ones_reduced():
    """The same path: the centres agree within a pixel of the smaller, and so do the spreads."""
    for case in range(20):
        large, small = (
            spread(MotionBlur((1, 64, 64), size=size).kernel(case)) for size in (61, 15)
        )
        torch.testing.assert_close(small, large * 15 / 61, rtol=0.1, atol=0.5)


def test_intensity_of_motion():
    """Without any a path is straight; the more, the more it bends and the longer it is."""
    narrow = []
    for intensity in (0.0, 0.5, 1.0):
        operator = MotionBlur((1, 64, 64), size=61, intensity=intensity)
        spreads = torch.stack([spread(operator.kernel(case)) for case in range(200)])
        narrow.append(spreads[:, 0])
        assert 8 < spreads[:, 1].mean() < 13
    assert narrow[0].max() < 0.75  # of a line of one pixel and a half
    assert 0.75 < narrow[1].mean() < narrow[2].mean() - 0.2


def spread(kernel):
    """The standard deviations along the short and the long axis, in pixels."""
    n = len(kernel)
    places = torch.cartesian_prod(torch.arange(n), torch.arange(n)).double()
    covariance = torch.cov(places.T, aweights=kernel.flatten(), correction=0)
    return torch.linalg.eigvalsh(covariance).clamp(min=0).sqrt()


def test_pictures():
    x = torch.rand(2, 3, *SHAPE) * 2 - 1
    for operator in (GaussianBlur(SHAPE, 7, 1.0), CircularBlur(KERNEL, SHAPE), HighDynamicRange()):
        y = operator(x)
        assert (operator.picture(y) == y).all()
    half = BicubicDownsample(SHAPE, factor=2)
    assert half.picture(half(x)).shape == (2, 3, 2, 4, 6)
    retrieval = PhaseRetrieval()
    y = retrieval(x)
    picture = retrieval.picture(y - 0.05)
    assert picture.shape == y.shape
    assert picture.min() >= -1
    assert (picture.amax((-3, -2, -1)) == 1).all()


# Settings


def test_an_experiment_file_can_state_them():
    """The pipeline gives the shape; lists stand for pairs."""
    box = {"class": "priorflow.operators.inpainting:BoxInpainting", "rows": [1, 3]}
    index = build(box | {"columns": [0, 2]}, Path(), shape=[1, 4, 4]).index
    assert index.tolist() == [0, 1, 2, 3, 6, 7, 10, 11, 12, 13, 14, 15]
    blur = {"class": "priorflow.operators.blur:GaussianBlur", "size": 3, "boundary": "reflect"}
    check(blur, Path())
    flat = torch.ones(1, 4, 4)
    torch.testing.assert_close(build(blur, Path(), shape=[1, 4, 4])(flat), flat)
    with pytest.raises(BadInput, match=r"^sigma: GaussianBlur has no such argument"):
        check(blur | {"sigma": 2.0}, Path())


def test_protocols():
    for operator in (PhaseRetrieval(), HighDynamicRange(), *LINEAR.values()):
        assert isinstance(operator, Operator)


@pytest.mark.parametrize(
    ("kind", "fields", "named"),
    [
        (GaussianBlur, {"size": 8}, "size"),
        (GaussianBlur, {"size": 13}, "size"),
        (GaussianBlur, {"size": 65, "boundary": "reflect"}, "size"),
        (GaussianBlur, {"size": 7, "std": 0.0}, "std"),
        (GaussianBlur, {"size": 7, "boundary": "zero"}, "boundary"),
        (GaussianBlur, {"size": 7, "noise_std": -1.0}, "noise_std"),
        (GaussianBlur, {"size": 7, "shape": (8, 12)}, "shape"),
        (MotionBlur, {"size": 9}, "size"),
        (MotionBlur, {"size": 7, "intensity": 1.1}, "intensity"),
        (MotionBlur, {"size": 7, "shape": (1, 65, 64), "boundary": "reflect"}, "boundary"),
        (MotionBlur, {"size": 7, "noise_std": math.nan}, "noise_std"),
        (BicubicDownsample, {"factor": 1}, "factor"),
        (BicubicDownsample, {"factor": 3}, "factor"),
        (BicubicDownsample, {"factor": 2, "shape": (1, 0, 4)}, "shape"),
        (BoxInpainting, {}, "rows"),
        (BoxInpainting, {"rows": (2, 5), "columns": (5, 5)}, "columns"),
        (BoxInpainting, {"rows": (2, 5), "columns": (5, 13)}, "columns"),
        (BoxInpainting, {"rows": (0, 8), "columns": (0, 12)}, "rows, columns"),
        (RandomInpainting, {"share": 0.0}, "share"),
        (RandomInpainting, {"share": 1.1}, "share"),
    ],
)
def test_bad_settings_are_refused(kind, fields, named):
    with pytest.raises(ValueError, match=f"^{named}: value.*, allowed: "):
        kind(**{"shape": SHAPE} | fields)


@pytest.mark.parametrize(
    ("kind", "fields", "named"),
    [
        (PhaseRetrieval, {"oversampling": -1.0}, "oversampling"),
        (PhaseRetrieval, {"noise_std": math.inf}, "noise_std"),
        (HighDynamicRange, {"gain": 0.0}, "gain"),
        (HighDynamicRange, {"noise_std": -0.1}, "noise_std"),
    ],
)
def test_bad_settings_are_refused_without_a_shape(kind, fields, named):
    with pytest.raises(ValueError, match=f"^{named}: value.*, allowed: "):
        kind(**fields)


@each_linear
def test_conditioning_is_that_of_the_dense_matrix(operator):
    s = torch.linalg.svdvals(dense(operator))
    s = torch.nn.functional.pad(s, (0, math.prod(operator.shape) - len(s)))
    seen = s > tolerance(operator) * s.max()
    condition, deficiency = operator.conditioning()
    assert deficiency.tolist() == [(~seen).sum()]
    assert condition.item() == pytest.approx((s.max() / s[seen].min()).item(), rel=1e-3)


@each_per_image
def test_conditioning_is_of_every_image(operator):
    together = operator.at([3, 7]).conditioning()
    for i, case in enumerate((3, 7)):
        for found, alone in zip(together, operator.at([case]).conditioning(), strict=True):
            torch.testing.assert_close(found[i : i + 1], alone)
