"""What every command writes to the console."""

from __future__ import annotations

import sys


def complain(words: str, status: int) -> int:
    """Write why a command failed and return its exit status."""
    print(f"hsemotion-space: {words}", file=sys.stderr)
    return status
