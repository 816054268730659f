"""STEPS: the stochastic ensemble nowcast that weather services run.

    x = Σ_j x^(j),   x^(j)_k = φ_{j,1} x^(j)_{k-1} + φ_{j,2} x^(j)_{k-2} + φ_{j,0} ε^(j)_k

A cascade of scales j, each with its own autoregression, moves along the optical flow: large scales
live on, small ones are soon replaced by noise with the spectrum of the last known state.

References:
    | STEPS: a probabilistic precipitation forecasting scheme which merges an extrapolation nowcast
      with downscaled NWP (Bowler et al., 2006), doi 10.1256/qj.04.100
    | Formulation and evaluation of a scale decomposition-based stochastic precipitation nowcast
      scheme (Seed et al., 2013), doi 10.1002/wrcr.20536
    | Pysteps (Pulkkinen et al., 2019), doi 10.5194/gmd-12-4185-2019: the implementation
"""

__all__ = ["STEPS"]

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from priorflow.priors.base import StateSpace
from priorflow.rng import Streams
from priorflow.solvers.assimilation.extrapolation import known_images, motion, quiet
from priorflow.solvers.base import Posterior, require_finite


@dataclass(frozen=True)
class STEPS:
    """Members of pysteps' STEPS from the known history; the observations are ignored.

    It wants intensities on a logarithmic scale, such as decibels. The encoded VIL of SEVIR is one,
    above 18 of 255, and so is anything linear in it, with `threshold` in the same units. After
    every step the values of a member are matched to those of the last known state, and rain stays
    near where there was some.

    pysteps takes one case at a time: this is a loop over cases. All members of a case come from one
    seed, drawn from the stream of the case; the first members do not depend on how many there are.

    Attributes:
        threshold: Values at or above it are rain, in the units of the states.
        kilometres: The side of a pixel; for the spread of the motion and the growth of rain areas.
        minutes: The time between two states; for the same.
        levels: Scales of the cascade.
        order: The order of the autoregressions, 1 or 2: the history has one state more.
        motion_spread: Whether each member has a motion of its own, by the error statistics of
            Bowler et al. (2006).
        outside: What comes from beyond the edge of the image, in the units of the states. None for
            the least value of the history of the case.
    """

    threshold: float
    kilometres: float = 1.0
    minutes: float = 5.0
    levels: int = 6
    order: int = 2
    motion_spread: bool = True
    outside: float | None = None

    def __post_init__(self) -> None:
        for name in ("kilometres", "minutes"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}: value {getattr(self, name)}, allowed: positive")
        if self.levels < 3:
            raise ValueError(f"levels: value {self.levels}, allowed: at least 3")
        if self.order not in (1, 2):
            raise ValueError(f"order: value {self.order}, allowed: 1, 2")

    def __call__(
        self, y: Tensor, operator: object, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Sample as many steps as there are observations.

        Raises:
            ValueError: A state is not an image, or the history is shorter than `order` + 1 states.
            Diverged: The history or a state is not finite.
        """
        images = known_images(prior, rng, at_least=self.order + 1)
        seeds = (rng.uniform(1)[:, 0] * 2**24).long().tolist()
        cases = [
            self._members(history, y.shape[1], members, seed)
            for history, seed in zip(images, seeds, strict=True)
        ]
        x = torch.from_numpy(np.stack(cases)).to(y)
        for k in range(y.shape[1]):
            require_finite(x[:, :, k], k)
        return Posterior(x)

    def _members(self, history: np.ndarray, steps: int, members: int, seed: int) -> np.ndarray:
        """The members of one case, (members, steps, height, width)."""
        outside = history.min() if self.outside is None else self.outside
        if history[-1].max() < self.threshold:  # no rain to learn the noise from
            return np.broadcast_to(history[-1], (members, steps, *history.shape[1:])).copy()
        with quiet():
            from pysteps.nowcasts.steps import forecast

            x = forecast(
                history[-self.order - 1 :],
                motion(history),
                steps,
                n_ens_members=members,
                n_cascade_levels=self.levels,
                precip_thr=self.threshold,
                kmperpixel=self.kilometres,
                timestep=self.minutes,
                ar_order=self.order,
                vel_pert_method="bps" if self.motion_spread else None,
                seed=seed,
                num_workers=1,
            )
        return np.where(np.isnan(x), outside, x)  # pysteps marks what came from beyond the edge
