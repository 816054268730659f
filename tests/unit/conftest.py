"""What several unit tests share."""

import warnings

import pytest


@pytest.fixture(scope="module")
def drawn(request, results):
    """Every figure of a module's FIGURES from its `results`, drawn once and without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {name: draw(results) for name, draw in request.module.FIGURES.items()}
