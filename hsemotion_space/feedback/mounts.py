"""File systems of other machines: buckets and network shares, whose locks and reads SQLite cannot trust."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
NETWORK: Final = re.compile(r"fuse(\..*)?|nfs\d?|cifs|smb3?|9p")
"""Types of file systems; a bucket of the Hub is mounted as ``fuse`` or ``nfs``."""


def network_type(folder: Path) -> str:
    """Return the type of the network mount that a folder lies on, whether or not the folder exists.

    Empty if it lies on none, on the root of the file system, or on a platform that does not tell (not Linux).
    """
    found, kind = Path("/"), ""
    with suppress(OSError):
        place = folder.resolve()
        for line in MOUNTS.read_text("utf-8", "surrogateescape").splitlines():
            about, _, system = line.partition(" - ")
            # a space in a name is written as \\040
            name = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), about.split()[4])
            point = Path(name)
            if place.is_relative_to(point) and len(point.parts) >= len(found.parts):
                found, kind = point, system.split()[0]
    return kind if found != Path("/") and NETWORK.fullmatch(kind) else ""
