"""What the settings of operators on images have to be."""

__all__ = ["check_dense", "check_kernel", "check_noise", "check_shape"]

import math
from collections.abc import Sequence

LARGEST = 4096  # pixels of an image whose dense matrix is decomposed: a minute a kernel


def check_shape(shape: Sequence[int]) -> None:
    """Raise ValueError unless `shape` is that of an image, (C, H, W)."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape: value {tuple(shape)}, allowed: channels, rows, columns")


def check_noise(noise_std: float) -> None:
    """Raise ValueError unless γ is finite and not negative."""
    if not 0 <= noise_std < math.inf:
        raise ValueError(f"noise_std: value {noise_std}, allowed: finite and not negative")


def check_kernel(size: int, shape: Sequence[int], boundary: str) -> None:
    """Raise ValueError unless a kernel of size × size has a centre and fits the image."""
    if boundary not in ("circular", "reflect"):
        raise ValueError(f"boundary: value {boundary!r}, allowed: 'circular', 'reflect'")
    side = min(shape[1:])
    largest = side if boundary == "circular" else 2 * side - 1
    if size < 1 or size % 2 == 0 or size > largest:
        raise ValueError(f"size: value {size}, allowed: odd, up to {largest} for this image")


def check_dense(shape: Sequence[int]) -> None:
    """Raise ValueError where a dense matrix for images of (C, H, W) would be too large."""
    if shape[1] * shape[2] > LARGEST:
        raise ValueError(
            f"boundary: value 'reflect', allowed: 'circular', as the image has more than {LARGEST} "
            "pixels"
        )
