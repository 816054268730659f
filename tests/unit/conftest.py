"""What several unit tests share."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from priorflow.stages.figures import style
from priorflow.stages.figures.base import Results


@pytest.fixture(scope="module")
def drawn(request, results):
    """Every figure of a module's FIGURES from its `results`, drawn once and without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {name: draw(results) for name, draw in request.module.FIGURES.items()}


@pytest.fixture(scope="session")
def results_of() -> Callable[..., Results]:
    """Makes the `Results` of a figure of a folder, as the command line does."""

    def make(
        folder: Path,
        tasks: Sequence[str],
        methods: Sequence[str],
        ran: Callable[[str, str], bool] = lambda method, task: True,
        **facts: Any,
    ) -> Results:
        return Results(
            folder=folder,
            methods=methods,
            tasks=tasks,
            models=(),
            posteriors={
                (m, t): [folder / f"posterior/{t}/{m}.zarr"]
                for m in methods
                for t in tasks
                if ran(m, t)
            },
            tables=[folder / "metrics.parquet"],
            facts={"base": folder, **facts},
        )

    return make


@pytest.fixture
def legible() -> Callable[[Figure], None]:
    """Asserts that a figure has its width, that its fonts are legible and nothing is cut off."""

    def check(figure: Figure) -> None:
        assert figure.get_figwidth() * style.INCH == pytest.approx(style.WIDE)
        texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
        assert min(text.get_fontsize() for text in texts) >= style.SMALLEST
        box, canvas = figure.get_tightbbox(), figure.bbox_inches
        assert min(box.x0, box.y0) >= -0.02
        assert box.x1 <= canvas.x1 + 0.02
        assert box.y1 <= canvas.y1 + 0.02

    return check
