"""The places that the truth and the members visit: projections of the state space."""

__all__ = ["draw"]

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from priorflow.stages.figures.base import Results, natural, units
from priorflow.stages.figures.style import (
    TRUTH,
    axis_label,
    house_style,
    legend_below,
    look,
    panels,
    wrapped,
)
from priorflow.stages.figures.trajectories import broken, median_case, transitions


@house_style
def draw(
    results: Results,
    case: int | None = None,
    names: Sequence[str] = ("x", "y", "z"),
    planes: Sequence[Sequence[int]] = ((0, 2), (0, 1)),
    members: int = 8,
) -> Figure:
    """Rows are projections, columns methods; members are drawn transition by transition.

    Args:
        results: Needs posteriors and observations; of the tasks the first is shown.
        case: As in `trajectories.draw`.
        names: Names of the components.
        planes: Pairs of components, horizontal and vertical.
        members: Members that are drawn.
    """
    task = results.tasks[0]
    methods = results.shown(task)
    drawn = {method: results.matched(method, task) for method in methods}
    if case is None:
        reference = results.facts["limit"]
        case = median_case(*drawn[reference if reference in drawn else methods[0]])
    case = min(case, *(posterior.sizes["case"] - 1 for posterior, _ in drawn.values()))
    rows, columns = len(planes), len(methods)
    figure, axes = panels(rows, columns, height=1.8 + 3.9 * rows, sharex="row", sharey="row")
    for j, method in enumerate(methods):
        posterior, observations = drawn[method]
        pairs = transitions(posterior, observations, case)[:members]
        truth = natural(observations.truth.values[case], observations)
        colour = look(method, results.facts).colour
        for axis, plane in zip(axes[:, j], planes, strict=True):
            for member in pairs:
                lines = [broken(member[:, :, component]) for component in plane]
                axis.plot(*lines, color=colour, lw=0.5, alpha=0.5)
            axis.plot(*truth[:, list(plane)].T, color=TRUTH, lw=1.0)
            axis.plot(*truth[0, list(plane)], "o", color=TRUTH, ms=3)
            axis.set_xlabel(axis_label(names[plane[0]], units(observations, False)))
        axes[0, j].set_title(wrapped(results.label(method), 46 // columns + 6))
    for i, plane in enumerate(planes):
        axes[i, 0].set_ylabel(axis_label(names[plane[1]], units(observations, False)))
    handles = [
        Line2D([], [], color=TRUTH, lw=1.2, marker="o", ms=3, markevery=(0, 2)),
        Line2D([], [], color="#777777", lw=0.8),
    ]
    shown = min(members, len(pairs))
    labels = [
        f"truth (case {case}, {len(truth)} states from the dot)",
        f"transitions of {shown} members",
    ]
    legend_below(figure, handles, labels)
    return figure
