"""How good restored images are: their likeness to the truth, to y, and to one another.

    psnr        = mean_m min(10 log10(1 / mean_i (x_{m,i} - truth_i)²), cap)
    psnr_mean   = the same of mean_m x_m
    ssim        = mean_m SSIM(x_m, truth), Gaussian windows of std 1.5, 11 × 11 pixels
    consistency = mean_m √(mean_j (y_j - A(x_m)_j)²)
    diversity   = √(mean_i s²_i),   s² the unbiased variance of the members

For likeness images are clipped to [-1, 1] and taken to [0, 1]. As with errors, single draws of the
exact posterior have a psnr 3 dB below that of its mean, so `psnr` rewards a lack of diversity.

Reference:
    Image quality assessment: from error visibility to structural similarity (Wang et al., 2004),
    doi 10.1109/TIP.2003.819861
"""

__all__ = [
    "average",
    "consistency",
    "diversity",
    "paired",
    "per_case",
    "psnr",
    "psnr_mean",
    "ssim",
]

import math

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from priorflow.metrics.base import Case, aligned, averaged


def psnr(posterior: xr.Dataset, case: Case, cap: float = math.inf) -> xr.DataArray:
    """The peak signal-to-noise ratio of single members in dB, then the mean: (case,).

    Values above `cap` count as it, so that a picture that is solved rules no mean; 8 bits have an
    error of 59 dB. Without a cap it is infinite for an image that equals the truth.
    """
    return per_case(_psnr(*paired(*aligned(posterior, case)), cap), case)


def psnr_mean(posterior: xr.Dataset, case: Case, cap: float = math.inf) -> xr.DataArray:
    """The peak signal-to-noise ratio of the members' mean in dB: (case,)."""
    state, truth = aligned(posterior, case)
    return per_case(_psnr(*paired(average(state), truth), cap), case)


def ssim(posterior: xr.Dataset, case: Case) -> xr.DataArray:
    """The structural similarity of single members, mean over members: (case,).

    Windows at the border see a reflection, as torchmetrics has it; others leave them out.
    """
    x, truth = paired(*aligned(posterior, case))
    score = structural_similarity_index_measure(x, truth, data_range=1.0, reduction="none")
    return per_case(score, case)


def consistency(posterior: xr.Dataset, case: Case) -> xr.DataArray:
    """The root-mean-square residual of the observations, in their units: (case,).

    About γ where an image explains them and not the noise, for many more observations than it has
    degrees of freedom; below it where it fits the noise. Members are not clipped.
    """
    state, _ = aligned(posterior, case)
    y = torch.from_numpy(np.ascontiguousarray(case.y.transpose("case", ...).values))
    residual = y.unsqueeze(1) - case.operator(torch.from_numpy(np.ascontiguousarray(state.values)))
    return per_case(residual.square().flatten(2).mean(2).sqrt(), case)


def diversity(posterior: xr.Dataset, case: Case) -> xr.DataArray:
    """The standard deviation of the members, root-mean-square over the image: (case,).

    NaN for a single member.
    """
    state, _ = aligned(posterior, case)
    variance = state.var("member", ddof=1) if state.sizes["member"] > 1 else np.nan * state[:, 0]
    return variance.mean(averaged(variance), skipna=False) ** 0.5


def average(state: xr.DataArray) -> xr.DataArray:
    """The mean of the members (case, member, …) as the only one."""
    return state.mean("member").expand_dims(member=1, axis=1)


def paired(state: xr.DataArray, truth: xr.DataArray) -> tuple[Tensor, Tensor]:
    """Every member, and the truth beside it, clipped to [0, 1]: each (cases · members, C, H, W)."""
    x, x0 = (torch.from_numpy(np.ascontiguousarray(a.values)) for a in (state, truth))
    pair = (x, x0.unsqueeze(1).expand_as(x))
    return tuple(((a.clamp(-1, 1) + 1) / 2).flatten(0, 1) for a in pair)


def per_case(values: Tensor, case: Case) -> xr.DataArray:
    """The mean over members of values (cases · members) or (cases, members): (case,)."""
    truth = case.truth
    out = truth.isel({dim: 0 for dim in truth.dims if dim != "case"}, drop=True)
    return out.copy(data=values.reshape(len(out), -1).mean(1).numpy())


def _psnr(x: Tensor, truth: Tensor, cap: float) -> Tensor:
    ratio = peak_signal_noise_ratio(x, truth, 1.0, reduction="none", dim=(1, 2, 3))
    return ratio.clamp(max=cap)
