"""What every command writes to the console."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


def complain(words: str, status: int) -> int:
    """Write why a command failed and return its exit status."""
    print(f"hsemotion-space: {words}", file=sys.stderr)
    return status


@contextmanager
def downloading(name: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that takes bytes done and bytes in total and draws a progress bar, if anything is downloaded at all."""
    bars: list[tqdm] = []

    def report(done: int, total: int) -> None:
        if not bars:
            bars.append(tqdm(desc=name, unit="B", unit_scale=True, unit_divisor=1000, leave=False, disable=not sys.stderr.isatty()))
        bars[0].total = total or None
        bars[0].update(done - bars[0].n)

    try:
        yield report
    finally:
        for bar in bars:
            bar.close()
