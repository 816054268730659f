"""The Lagrangian persistence of meteorologists: what is seen goes on moving, and does not change.

References:
    | Scale-dependence of the predictability of precipitation from continental radar images. Part I
      (Germann & Zawadzki, 2002), doi 10.1175/1520-0493(2002)130<2859:SDOTPO>2.0.CO;2
    | An iterative image registration technique (Lucas & Kanade, 1981): the motion
    | Pysteps (Pulkkinen et al., 2019), doi 10.5194/gmd-12-4185-2019: the implementation
"""

__all__ = ["Extrapolation", "known_images", "motion", "quiet"]

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from priorflow.priors.base import StateSpace
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite


@dataclass(frozen=True)
class Extrapolation:
    """Move the last known state along the optical flow of the history; ignore the observations.

    The motion is that of `motion`, the same at all times. The semi-Lagrangian scheme of pysteps
    follows it back from every pixel to where the air was, and interpolates the last known state
    there, once for every lead, so that errors of interpolation do not add up. Any units do: both
    steps commute with x → a x + b, a > 0.

    pysteps takes one image at a time: this is a loop over cases.

    All members are equal, so the spread is 0 and the CRPS is the absolute error.

    Attributes:
        outside: What comes from beyond the edge of the image, in the units of the states. None for
            the least value of the history of the case, which is dry where anything is.
    """

    outside: float | None = None

    def __call__(
        self, y: Tensor, operator: object, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Extrapolate for as many steps as there are observations.

        Raises:
            ValueError: A state is not an image, or the history has no two states.
            Diverged: The history or a state is not finite.
        """
        images = known_images(prior, rng, at_least=2)
        moved = [self._moved(history, y.shape[1]) for history in images]
        x = torch.from_numpy(np.stack(moved)).to(y)
        for k in range(y.shape[1]):
            require_finite(x[:, k], k)
        return Posterior(x.unsqueeze(1).repeat_interleave(members, 1))

    def _moved(self, history: np.ndarray, steps: int) -> np.ndarray:
        """The next states of one case, (steps, height, width)."""
        with quiet():
            from pysteps.extrapolation.semilagrangian import extrapolate

            outside = history.min() if self.outside is None else self.outside
            return extrapolate(history[-1], motion(history), steps, outval=outside)


def motion(history: np.ndarray) -> np.ndarray:
    """The optical flow of images by the method of Lucas and Kanade, smoothly interpolated.

    Corners are tracked from each image to the next, outliers are removed, and the vectors of all
    pairs of images are interpolated by radial basis functions.

    Args:
        history: Shape (time, height, width), at least two images.

    Returns:
        The motion in pixels per step along x and y, (2, height, width); zero where there is nothing
        to track.
    """
    with quiet():
        from pysteps.motion.lucaskanade import dense_lucaskanade

        return dense_lucaskanade(history)


def known_images(prior: StateSpace, rng: Streams, at_least: int) -> np.ndarray:
    """The histories as images in double precision, (cases, time, height, width).

    Raises:
        ValueError: A state is not an image, or there are fewer than `at_least` of them.
        Diverged: One is not finite.
    """
    history = prior.initial(1, rng)[:, 0]
    if history.ndim != 4:
        raise ValueError(f"shape: value {tuple(prior.shape)}, allowed: (height, width)")
    if history.shape[1] < at_least:
        raise ValueError(f"context: value {history.shape[1]}, allowed: at least {at_least}")
    require_finite(history, 0)
    return history.double().cpu().numpy()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep pysteps from printing, and to one thread; give NumPy's global state back as it was."""
    import dask

    state = np.random.get_state()  # noqa: NPY002
    try:
        with contextlib.redirect_stdout(None), dask.config.set(scheduler="synchronous"):
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
