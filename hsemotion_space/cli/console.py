"""What every command writes to the console."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Handler = Callable[[argparse.Namespace], int]


def complain(words: str, status: int) -> int:
    """Write why a command failed and return its exit status."""
    print(f"hsemotion-space: {words}", file=sys.stderr)
    return status


def guarded(work: Handler) -> Handler:
    """Return a handler that turns a problem with the data into a sentence and exit status 2."""

    def handler(options: argparse.Namespace) -> int:
        try:
            return work(options)
        except ValueError as error:  # DataError, CheckpointError, or an option out of its range
            return complain(str(error), 2)
        except OSError as error:
            return complain(f"{error.filename or 'A file'}: {error.strerror or error}.", 2)

    return handler


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
