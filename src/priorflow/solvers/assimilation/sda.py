"""Score-based data assimilation: all states of the trajectory at once, by guided diffusion.

With ε the noise prediction of a noised trajectory x_t, x̂ = (x_t - σ_t ε(x_t)) / α_t estimates the
clean one, and the likelihood of observations whose noise has standard deviation ς is taken to be

    p(y | x_t) ≈ N(y; A(x̂), ς² + γ σ_t² / α_t²),

and ε(x_t) - σ_t ∇ log p(y | x_t) takes the place of ε in the reverse diffusion.

Reference:
    Score-based Data Assimilation (Rozet & Louppe, 2023), algorithms 3 and 4, arXiv 2306.10574
"""

__all__ = ["SDA"]

from dataclasses import dataclass

import torch
from torch import Tensor

from priorflow.operators.base import Operator
from priorflow.priors.base import Known, StateSpace
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite


@dataclass(frozen=True)
class SDA:
    """Draw x_{1:K} jointly given y_{1:K}.

    `prior.transition` is a `WindowScore`, or anything with its `shape`, `context`, `schedule` and
    `epsilon`. The trajectory has L more states than there are observations. A `Known` history is
    a further observation of them, with a γ of its own: their noise is so small that γ decides how
    stiff the guidance is, and Langevin steps blow up at the 1e-2 that suits y. Any other initial
    law is left to the score, which has learned its own. The samples at time k see the observations
    after k too: SDA is a smoother.

    Attributes:
        steps: Steps of the reverse diffusion from t = 1 to 0.
        corrections: Langevin steps after every one of them.
        tau: τ of the size δ = τ dim / |s|² of a Langevin step, s being the score of one trajectory.
            With many of them variances are too large by a fraction of about τ / 2, and more in
            the directions in which the posterior is narrow.
        gamma: γ, the variance of the estimate x̂ in units of σ_t² / α_t².
        initial_std: The noise ς of the observation of a known history.
        initial_gamma: The γ of that observation.
        bound: Largest |x̂| that A is given; None for any. At t = 1 the estimate can be far outside
            the range of states, where a steep operator such as a cube makes the guidance explode.
            Not published.
        detach: Differentiate A(x̂) with ε held fixed, without going through the network.
        chunk: Members whose graph is held at one time; 0 for all.
    """

    steps: int = 256
    corrections: int = 1
    tau: float = 0.25
    gamma: float = 1e-2
    initial_std: float = 1e-2
    initial_gamma: float = 0.3
    bound: float | None = None
    detach: bool = False
    chunk: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps: value {self.steps}, allowed: >= 1")
        if self.corrections < 0:
            raise ValueError(f"corrections: value {self.corrections}, allowed: >= 0")
        if self.tau <= 0:
            raise ValueError(f"tau: value {self.tau}, allowed: > 0")
        if self.gamma < 0:
            raise ValueError(f"gamma: value {self.gamma}, allowed: >= 0")
        if self.initial_std <= 0:
            raise ValueError(f"initial_std: value {self.initial_std}, allowed: > 0")
        if self.initial_gamma < 0:
            raise ValueError(f"initial_gamma: value {self.initial_gamma}, allowed: >= 0")
        if self.bound is not None and self.bound <= 0:
            raise ValueError(f"bound: value {self.bound}, allowed: > 0, or None")
        if self.chunk < 0:
            raise ValueError(f"chunk: value {self.chunk}, allowed: >= 0")

    @torch.no_grad()
    def __call__(
        self, y: Tensor, operator: Operator, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Draw trajectories given y (cases, K, \\*obs).

        Raises:
            Diverged: A sample is not finite; `step` counts the steps of the diffusion.
            ValueError: L + K states are fewer than a window.
        """
        score = prior.transition
        shape = (members, score.context + y.shape[1], *score.shape)
        times = torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)
        alphas, sigmas = score.schedule(times)
        x = sigmas[0] * rng.normal(*shape).to(y)
        axes = tuple(range(2, x.ndim))
        for i in range(self.steps):
            alpha, sigma = alphas[i + 1], sigmas[i + 1]
            r = alpha / alphas[i]
            x = r * x + (sigma - r * sigmas[i]) * self._epsilon(x, y, operator, prior, times[i])
            for _ in range(self.corrections):
                s = -self._epsilon(x, y, operator, prior, times[i + 1]) / sigma
                delta = self.tau / s.square().mean(axes, keepdim=True)
                x = x + delta * s + (2 * delta).sqrt() * rng.normal(*shape).to(y)
            require_finite(x, i)
        return Posterior(x[:, :, score.context :])

    def _epsilon(
        self, x: Tensor, y: Tensor, operator: Operator, prior: StateSpace, t: Tensor
    ) -> Tensor:
        """The noise of trajectories (cases, members, L + K, \\*shape), guided to y."""
        chunks = x.split(self.chunk or x.shape[1], dim=1)
        return torch.cat([self._guided(part, y, operator, prior, t) for part in chunks], dim=1)

    def _guided(
        self, x: Tensor, y: Tensor, operator: Operator, prior: StateSpace, t: Tensor
    ) -> Tensor:
        score = prior.transition
        alpha, sigma = score.schedule(t)
        ratio = (sigma / alpha) ** 2
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            with torch.set_grad_enabled(not self.detach):
                noise = score.epsilon(x, t)
            estimate = (x - sigma * noise) / alpha
            later = estimate[:, :, score.context :]
            later = later if self.bound is None else later.clamp(-self.bound, self.bound)
            error = y.unsqueeze(1) - operator(later)
            misfit = error.square().sum() / (operator.noise_std**2 + self.gamma * ratio)
            if isinstance(prior.initial, Known):
                error = prior.initial.history.to(x).unsqueeze(1) - estimate[:, :, : score.context]
                variance = self.initial_std**2 + self.initial_gamma * ratio
                misfit = misfit + error.square().sum() / variance
            (gradient,) = torch.autograd.grad(-misfit / 2, x)
        return noise.detach() - sigma * gradient
