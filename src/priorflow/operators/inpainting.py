"""Inpainting: some pixels are observed, others are not; all channels of a pixel are alike.

y holds the observed pixels only, so that there is noise only where something is observed. U and V
are permutations: coefficients are images, and s is 1 where a pixel is observed, else 0.
"""

__all__ = ["BoxInpainting", "Mask", "Pixels", "RandomInpainting"]

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from priorflow.operators.checks import check_noise, check_shape
from priorflow.operators.decomposed import Decomposed
from priorflow.rng import generator


class Mask(Decomposed):
    """y = m pixels of an image, + γ η on those only.

    Attributes:
        index: The observed pixels as positions in a flattened channel, shape (…, m), where …
            broadcasts with the images' (…, C).
        shape: (C, H, W).
    """

    index: Tensor
    shape: Sequence[int]

    @cached_property
    def singular_values(self) -> Tensor:
        """1 where a pixel is observed, else 0: shape (…, H, W)."""
        return self.to_left(torch.ones(self.index.shape))

    def to_right(self, x: Tensor) -> Tensor:
        """The image itself."""
        return x

    def from_right(self, c: Tensor) -> Tensor:
        """The image itself."""
        return c

    def to_left(self, y: Tensor) -> Tensor:
        """Observations (…, C, m) to images (…, C, H, W), zero where nothing is observed."""
        y, index = torch.broadcast_tensors(y, self.index.to(y.device))
        height, width = self.shape[1:]
        x = y.new_zeros(*y.shape[:-1], height * width)
        return x.scatter(-1, index, y).unflatten(-1, (height, width))

    def from_left(self, c: Tensor) -> Tensor:
        """Images (…, C, H, W) to observations (…, C, m)."""
        index = self.index.to(c.device).expand(*c.shape[:-2], -1)
        return c.flatten(-2).gather(-1, index)

    def picture(self, y: Tensor) -> Tensor:
        """Observations as a figure shows them: images (…, C, H, W), grey where hidden."""
        return self.to_left(y)


@dataclass(frozen=True, eq=False)
class Pixels(Mask):
    """Observations of given pixels.

    Attributes:
        index: See `Mask`.
        shape: (C, H, W).
        noise_std: γ, on the scale of the images, [-1, 1].
    """

    index: Tensor
    shape: Sequence[int]
    noise_std: float = 0.05


@dataclass(frozen=True, eq=False)
class BoxInpainting(Mask):
    """A rectangle is hidden, the same one in all images.

    Published: rows and columns 100 to 200 of 256 (DCDP, arXiv 2403.06054). For 32²: 12 to 25.

    Attributes:
        shape: (C, H, W).
        rows: The first row that is hidden and the first one after it that is not.
        columns: The same of the columns.
        noise_std: γ, on the scale of the images, [-1, 1].
    """

    shape: Sequence[int]
    rows: Sequence[int] = (100, 200)
    columns: Sequence[int] = (100, 200)
    noise_std: float = 0.05

    def __post_init__(self) -> None:
        check_shape(self.shape)
        sides = zip(("rows", "columns"), (self.rows, self.columns), self.shape[1:], strict=True)
        for name, span, side in sides:
            if len(span) != 2 or not 0 <= span[0] < span[1] <= side:
                raise ValueError(f"{name}: value {tuple(span)}, allowed: a span within 0 to {side}")
        if self.index.numel() == 0:
            raise ValueError(
                f"rows, columns: values {tuple(self.rows)}, {tuple(self.columns)}, "
                "allowed: spans that leave a pixel to be seen"
            )
        check_noise(self.noise_std)

    @cached_property
    def index(self) -> Tensor:
        """The pixels outside the box in ascending order, shape (m,)."""
        seen = torch.ones(*self.shape[1:], dtype=torch.bool)
        seen[slice(*self.rows), slice(*self.columns)] = False
        return seen.flatten().nonzero().flatten()


@dataclass(frozen=True)
class RandomInpainting:
    """Pixels at random are observed, others in every image.

    DPS (arXiv 2209.14687) hides every pixel with one probability for an image, 0.3 to 0.7; here the
    number is exact, so that all y have one shape.

    Attributes:
        shape: (C, H, W).
        share: Observed pixels per pixel.
        noise_std: γ, on the scale of the images, [-1, 1].
        seed: Which pixels.
    """

    shape: Sequence[int]
    share: float = 0.3
    noise_std: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_shape(self.shape)
        if not 0.5 < self.share * self.shape[1] * self.shape[2] <= self.shape[1] * self.shape[2]:
            raise ValueError(f"share: value {self.share}, allowed: at least one pixel, up to 1")
        check_noise(self.noise_std)

    def at(self, cases: Sequence[int]) -> Pixels:
        """The operator of these images: x (cases, members, C, H, W) to y (cases, members, C, m)."""
        index = torch.stack([self.pixels(case) for case in cases])
        return Pixels(index[:, None, None], self.shape, self.noise_std)

    def pixels(self, case: int) -> Tensor:
        """The observed pixels of one image in ascending order, shape (m,)."""
        pixels = self.shape[1] * self.shape[2]
        order = torch.randperm(pixels, generator=generator(self.seed, "mask", case))
        return order[: round(self.share * pixels)].sort().values
