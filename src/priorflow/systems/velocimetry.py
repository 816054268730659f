"""Displacements from two pictures of particles: by correlation, and by tracking.

`correlate` is particle image velocimetry (PIV) with the library OpenPIV, which is under the GPL and
an optional part, `pip install priorflow[piv]`; nothing else needs it. `track` is particle tracking
(PTV): one vector at each particle, as published for FlowDAS.

Pixels have whole numbers as their centres, and every pair of numbers is (y, x), rows first.

References:
    | A New Two-Frame Particle Tracking Algorithm Using Match Probability (Baek & Lee, 1996)
    | Universal Outlier Detection for PIV Data (Westerweel & Scarano, 2005)
    | Iterative Image Deformation Methods in PIV (Scarano, 2002)
    | FlowDAS (Chen et al., 2025), D.4, arXiv 2501.16642
"""

__all__ = ["Error", "Vectors", "correlate", "detect", "error", "example", "track"]

import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO

import numpy as np


@dataclass(frozen=True)
class Vectors:
    """Displacements between two exposures.

    Attributes:
        positions: (y, x) in pixels, half way between the exposures, shape (m, 2).
        displacements: (y, x) in pixels, shape (m, 2).
        valid: Whether they were measured, shape (m,); others were put in the place of outliers.
    """

    positions: np.ndarray
    displacements: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class Error:
    """Measured minus true displacements of valid vectors, in pixels.

    Attributes:
        bias: The mean, (y, x).
        rms: Root mean square of a component, the bias included.
        median: Of the absolute error of a component: outliers do not count.
        valid: The share of vectors that are valid.
    """

    bias: tuple[float, float]
    rms: float
    median: float
    valid: float


def error(vectors: Vectors, truth: np.ndarray) -> Error:
    """How far vectors are from the true displacements (m, 2) at their positions.

    Raises:
        ValueError: No vector is valid.
    """
    if not vectors.valid.any():
        raise ValueError("vectors: none is valid, allowed: at least one")
    off = (vectors.displacements - np.asarray(truth))[vectors.valid]
    bias = off.mean(0)
    return Error(
        bias=(float(bias[0]), float(bias[1])),
        rms=float(np.sqrt(np.square(off).mean())),
        median=float(np.median(np.abs(off))),
        valid=float(vectors.valid.mean()),
    )


def correlate(
    first: np.ndarray,
    second: np.ndarray,
    windows: Sequence[int] = (64, 32, 16),
    overlap: float = 0.5,
    furthest: float = 16.0,
    outlier: float = 2.0,
) -> Vectors:
    """Cross-correlation of windows that the last pass has deformed, by OpenPIV.

    After each pass vectors are validated by their length and by the normalised median test, and
    outliers replaced by the mean of their neighbours. A window should hold some ten particles.

    Args:
        first: Grey levels, shape (rows, columns); axes are those of the pictures, y downwards.
        second: The same a moment later.
        windows: Sides of the windows of each pass, in pixels.
        overlap: Share of a window that the next one shares.
        furthest: Largest component of a displacement, in pixels.
        outlier: Threshold of the normalised median test.

    Returns:
        A vector for each window of the last pass, row by row.

    Raises:
        ModuleNotFoundError: OpenPIV is not installed.
        ValueError: A pass has fewer than four windows along a side, or no vector is valid.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: value {overlap}, allowed: 0 to 1, without 1")
    for side in windows:
        if side < 4 or side + 3 * (side - round(overlap * side)) > min(first.shape):
            raise ValueError(
                f"windows: value {side}, allowed: at least 4 pixels, and four windows along a side"
            )
    # The library silences all warnings, for good, and prints its progress.
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        from openpiv.settings import PIVSettings
        from openpiv.windef import simple_multipass

        settings = PIVSettings(
            windowsizes=tuple(windows),
            overlap=tuple(round(overlap * side) for side in windows),
            num_iterations=len(windows),
            correlation_method="linear",
            normalized_correlation=True,
            min_max_u_disp=(-furthest, furthest),
            min_max_v_disp=(-furthest, furthest),
            std_threshold=np.inf,  # of no use for a flow that is not uniform
            median_normalized=True,
            median_threshold=outlier,
        )
        x, y, u, v, flags = simple_multipass(
            first.astype(np.float32), second.astype(np.float32), settings
        )
    # The library ends with y upwards, and counts places from the edge of the first pixel.
    positions = np.stack((y[::-1], x), axis=-1) - 0.5
    displacements = np.stack((-v, u), axis=-1)
    return Vectors(
        positions.reshape(-1, 2), displacements.reshape(-1, 2), ~np.asarray(flags, bool).ravel()
    )


def detect(picture: np.ndarray, threshold: float = 25.0) -> np.ndarray:
    """Where particles are: local maxima, to a fraction of a pixel by three-point Gaussian fits.

    Args:
        picture: Grey levels, shape (rows, columns).
        threshold: The least grey level of a maximum.

    Returns:
        (y, x), shape (m, 2). A picture's outermost pixels hold none.
    """
    from scipy.ndimage import maximum_filter

    picture = np.asarray(picture, float)
    # A plateau has one maximum: ties are broken by a slope too small to move any other.
    slope = np.add.outer(np.arange(picture.shape[0]), np.sqrt(2) * np.arange(picture.shape[1]))
    ranked = picture + 1e-6 * slope
    peak = (ranked == maximum_filter(ranked, size=3)) & (picture >= threshold)
    peak[[0, -1]] = peak[:, [0, -1]] = False
    rows, columns = np.nonzero(peak)
    log = np.log(np.maximum(picture, 0.5))  # half a grey level is what a zero may have been
    middle = log[rows, columns]
    offsets = []
    for row, column in ((1, 0), (0, 1)):
        before, after = log[rows - row, columns - column], log[rows + row, columns + column]
        curvature = np.minimum(before + after - 2 * middle, -1e-9)
        offsets.append(np.clip((before - after) / (2 * curvature), -0.5, 0.5))
    return np.stack((rows, columns), axis=-1) + np.stack(offsets, axis=-1)


def track(
    first: np.ndarray,
    second: np.ndarray,
    reach: float = 8.0,
    guess: np.ndarray | None = None,
    neighbours: int = 8,
    tolerance: float = 1.0,
    outlier: float = 2.0,
) -> Vectors:
    """Partners of particles, the neighbours of which move alike.

    Every particle within `reach` of where one is expected may be its partner. The vote for a
    candidate counts those neighbours that, displaced alike, come within `tolerance` of a particle,
    each of them the less the farther. The best pairs are kept, so that no particle is in two. Valid
    are those for which half of the neighbours vote and that pass the normalised median test.

    Args:
        first: Particles of the first exposure, (y, x) in pixels, shape (m, 2): those of `detect`,
            or known ones.
        second: Particles of the second exposure, shape (n, 2).
        reach: In pixels. With a density of 0.03 ten candidates are as near as 10 pixels.
        guess: Expected displacements of the first ones, such as those of a correlation, shape
            (m, 2); None for 0.
        neighbours: How many of them vote.
        tolerance: In pixels: what displacements of neighbours may differ by.
        outlier: Threshold of the normalised median test.

    Returns:
        A vector for each pair, half way between its particles.

    Raises:
        ValueError: There are too few particles, or too few have a partner.
    """
    from scipy.spatial import cKDTree

    if len(first) <= neighbours or not len(second):
        raise ValueError(
            f"first, second: {len(first)} and {len(second)} particles, allowed: more than "
            f"{neighbours} and at least one"
        )
    guess = np.zeros_like(first) if guess is None else guess
    there = cKDTree(second)
    found = there.query_ball_point(first + guess, reach)
    a = np.repeat(np.arange(len(first)), [len(f) for f in found])
    b = np.concatenate([np.asarray(f, int) for f in found])
    others = cKDTree(first).query(first, neighbours + 1)[1][:, 1:]
    # Neighbours share the candidate's departure from the guess, so that the guess may vary.
    departure = second[b] - first[a] - guess[a]
    expected = (first + guess)[others[a]] + departure[:, None]
    distance = there.query(expected, distance_upper_bound=tolerance)[0]
    votes = np.clip(1 - distance / tolerance, 0, None).sum(1)
    support = np.isfinite(distance).mean(1)
    taken_a, taken_b = np.zeros(len(first), bool), np.zeros(len(second), bool)
    kept = []
    for i in np.argsort(-votes, kind="stable"):
        if not (taken_a[a[i]] or taken_b[b[i]]):
            taken_a[a[i]] = taken_b[b[i]] = True
            kept.append(i)
    if len(kept) <= neighbours:
        raise ValueError(f"reach: value {reach}, allowed: more, as {len(kept)} have a partner")
    a, b, supported = a[kept], b[kept], support[kept] >= 0.5
    positions, displacements = (first[a] + second[b]) / 2, second[b] - first[a]
    regular = _regular(positions, displacements, neighbours, outlier)
    return Vectors(positions, displacements, supported & regular)


def _regular(
    positions: np.ndarray, displacements: np.ndarray, neighbours: int, outlier: float
) -> np.ndarray:
    """Which vectors pass the normalised median test, with a tenth of a pixel for the noise."""
    from scipy.spatial import cKDTree

    around = displacements[cKDTree(positions).query(positions, neighbours + 1)[1][:, 1:]]
    middle = np.median(around, axis=1)
    spread = np.median(np.abs(around - middle[:, None]), axis=1)
    return (np.abs(displacements - middle) < outlier * (spread + 0.1)).all(1)


def example(windows: Sequence[int] = (64, 32)) -> tuple[np.ndarray, np.ndarray, Vectors]:
    """A real pair of pictures, a part of OpenPIV, and its correlation.

    Args:
        windows: See `correlate`.

    Returns:
        The pictures, grey levels of shape (369, 511), and the vectors.

    Raises:
        ModuleNotFoundError: OpenPIV is not installed.
    """
    from importlib.resources import files

    from PIL import Image

    folder = files("openpiv") / "data" / "test1"
    pictures = []
    for name in ("exp1_001_a.bmp", "exp1_001_b.bmp"):
        with (folder / name).open("rb") as file:
            pictures.append(np.asarray(Image.open(file).convert("L")))
    return *pictures, correlate(*pictures, windows)
