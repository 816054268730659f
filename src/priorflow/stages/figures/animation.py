"""One case of one task over time, as pictures that move."""

__all__ = ["draw"]

from typing import Literal

from priorflow.stages.figures.base import Animation, Results
from priorflow.stages.figures.fields import lay_out, picked
from priorflow.stages.figures.style import house_style


@house_style
def draw(
    results: Results,
    case: int | None = None,
    member: int | None = 0,
    name: str = "vorticity",
    colours: Literal["signed", "vil"] = "signed",
    pause: float = 1 / 3,
    time_unit: str = "",
) -> Animation:
    """A frame for every observed state: what `fields.draw` shows of the first task.

    Args:
        results, case, member, name, colours: As in `fields.draw`.
        pause: Seconds between two frames.
        time_unit: In which the system has its time.
    """
    task = results.tasks[0]
    rows, observations = picked(results, case, member)
    figure, show = lay_out(results, {task: rows[task]}, observations, name, colours, time_unit)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what has found its place stays there
    return Animation(figure, show, len(rows[task].truth), pause)
