"""Progress: a bar on a terminal, a line every tenth of the way elsewhere."""

__all__ = ["log", "track"]

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def log(message: str) -> None:
    """One line, with the time of day, to the job's log."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Go through `items` and show how far it is."""
    total = len(items) if total is None and isinstance(items, Sized) else total
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as rich_track

        yield from rich_track(items, description, total=total, console=Console(stderr=True))
        return
    begin, shown = time.monotonic(), 0
    for i, item in enumerate(items, start=1):
        yield item
        if total and i * 10 // total > shown:
            shown = i * 10 // total
            log(f"{description}: {i}/{total} ({time.monotonic() - begin:.1f} s)")
