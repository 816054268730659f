"""Draw the stages of the workflow, and what each of them writes: `python docs/pipeline.py`.

Boxes are opaque and arrows grey, on no background, so that a page may be light or dark.
"""

__all__ = ["picture"]

from html import escape
from pathlib import Path

WIDTH, HEIGHT = 138, 96  # of a box
GAP_X, GAP_Y, MARGIN = 30, 26, 8

# stage: (column, row, jobs, what it writes)
STAGES = {
    "simulate": (0, 0.5, "a job per split\nand shard", "data/raw/"),
    "chunk": (1, 0.5, "a job per split", "data/{split}.zarr"),
    "observe": (2, 0, "a job per task", "observations/\n{task}.zarr"),
    "train": (2, 1, "a job per network", "models/{model}/\nweights.safetensors"),
    "infer": (3, 0, "a job per method,\ntask and shard", "posterior/{task}/\n{method}.zarr"),
    "assess": (3, 1, "a job per denoiser", "models/{model}/\nassessment.zarr"),
    "evaluate": (4, 0, "a job per method", "metrics/\n{method}.parquet"),
    "tables": (5, 0, "a job per table", "tables/*.{csv,md,\ntex,html}"),
    "figures": (5, 1, "a job per figure", "figures/\n{figure}.{png,svg}"),
    "report": (6, 0.5, "once", "report.html"),
}
ARROWS = [
    ("simulate", "chunk"),
    ("chunk", "observe"),
    ("chunk", "train"),
    ("observe", "infer"),
    ("train", "infer"),
    ("train", "assess"),
    ("assess", "figures"),
    ("infer", "evaluate"),
    ("infer", "figures"),
    ("evaluate", "tables"),
    ("evaluate", "figures"),
    ("tables", "report"),
    ("figures", "report"),
]
SANS = "-apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"


def picture() -> str:
    """The picture as SVG."""
    columns = 1 + max(column for column, *_ in STAGES.values())
    width = columns * WIDTH + (columns - 1) * GAP_X + 2 * MARGIN
    height = 2 * HEIGHT + GAP_Y + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="Stages of the workflow and the files that they write">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#848d97"/></marker></defs>',
        '<g fill="none" stroke="#848d97" stroke-width="1.6" marker-end="url(#tip)">',
        *(_arrow(_corner(a), _corner(b)) for a, b in ARROWS),
        "</g>",
        *(_box(name) for name in STAGES),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _corner(stage: str) -> tuple[float, float]:
    column, row, *_ = STAGES[stage]
    return MARGIN + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y)


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    """From the right side of a box, with a bend before the next column, to the left of another."""
    (x, y), (u, v) = start, end
    x, y, v = x + WIDTH, y + HEIGHT / 2, v + HEIGHT / 2
    middle, bent = x + GAP_X / 2, x + GAP_X - 8
    return (
        f'<path d="M{x:g} {y:g}C{middle:g} {y:g} {middle - 4:g} {v:g} {bent:g} {v:g}H{u - 1:g}"/>'
    )


def _box(stage: str) -> str:
    x, y = _corner(stage)
    _, _, jobs, files = STAGES[stage]
    lines = [
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="7" fill="#f6f8fa" '
        'stroke="#57606a" stroke-width="1.2"/>',
        _text(x, y + 20, stage, f'font-family="{SANS}" font-size="14" font-weight="600"'),
    ]
    at = y + 37
    for line in jobs.split("\n"):
        lines.append(_text(x, at, line, f'font-family="{SANS}" font-size="11"', "#57606a"))
        at += 13
    at = y + HEIGHT - 10 - 14 * (files.count("\n"))
    for line in files.split("\n"):
        lines.append(_text(x, at, line, f'font-family="{MONO}" font-size="11"', "#0550ae"))
        at += 14
    return "\n".join(lines)


def _text(x: float, y: float, text: str, font: str, colour: str = "#1f2328") -> str:
    return (
        f'<text x="{x + WIDTH / 2:g}" y="{y:g}" text-anchor="middle" fill="{colour}" {font}>'
        f"{escape(text)}</text>"
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(picture())
