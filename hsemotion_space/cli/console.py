"""Shared by the commands: errors and progress on the console, handlers that are imported when they run."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Handler = Callable[[argparse.Namespace], int]


def printable(text: str) -> str:
    """Return a text without what moves a cursor or is no character: names of files may hold anything."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def say(text: str) -> None:
    """Write a line, above the bars of progress if there are any."""
    tqdm.write(printable(text), file=sys.stdout)


def report_error(message: object, status: int) -> int:
    """Write why a command failed and return its exit status."""
    tqdm.write("\n".join(map(printable, f"hsemotion-space: {message}".split("\n"))), file=sys.stderr)
    return status


def deferred(module: str, name: str) -> Handler:
    """Return a handler ``hsemotion_space.cli.<module>.<name>`` that is imported only when it runs.

    Errors of the data become a sentence and exit status 2.
    """

    def handler(options: argparse.Namespace) -> int:
        try:
            function: Handler = getattr(importlib.import_module(f"hsemotion_space.cli.{module}"), name)
            return function(options)
        except BrokenPipeError:
            raise
        except ValueError as error:  # DataError, CheckpointError, or an option out of its range
            return report_error(error, 2)
        except OSError as error:
            return report_error(f"{error.filename or 'A file'}: {error.strerror or error}.", 2)

    return handler


@contextmanager
def downloading(name: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a progress callback (bytes done, bytes in total) that draws a bar during a download."""
    bars: list[tqdm] = []

    def report(done: int, total: int) -> None:
        if not bars:
            bars.append(
                tqdm(
                    desc=name,
                    unit="B",
                    unit_scale=True,
                    unit_divisor=1000,
                    leave=False,
                    disable=not sys.stderr.isatty(),
                )
            )
        bars[0].total = total or None
        bars[0].update(done - bars[0].n)

    try:
        yield report
    finally:
        for bar in bars:
            bar.close()
