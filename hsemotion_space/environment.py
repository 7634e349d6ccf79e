"""Keeps secrets out of the initial environment of the server process, which others can read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from typing import Final

from hsemotion_space.settings import Settings

PAGE_SECRETS: Final = (*Settings.secret_variables(), "HF_TOKEN", "OAUTH_CLIENT_SECRET")
"""Secrets that the page needs."""
_SECRET: Final = re.compile(
    r"(?!HF_HUB_).*(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|KEY|KEY_ID|PAT|DSN|DATABASE(_UR[LI])?)",
    re.IGNORECASE,
)  # names that begin with HF_HUB_ switch things on and off
_HANDED: Final = "HSEMOTION_SECRETS_FILE"  # number of the descriptor from which the new process reads


def is_space() -> bool:
    """Return whether this process runs in a Space of the Hugging Face Hub."""
    return bool(os.environ.get("SPACE_ID"))


def is_zero_gpu() -> bool:
    """Return whether it runs in a Space that borrows a GPU for single calls; read as ``spaces`` reads it."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def is_secret(name: str) -> bool:
    """Return whether the name of a variable says that its value must not leave this process."""
    return bool(_SECRET.fullmatch(name))


def secrets() -> dict[str, str]:
    """Return the secrets that this process was started with, after starting it anew without any if need be.

    ``/proc/<pid>/environ`` shows the initial environment for as long as a process lives, whatever it deletes
    later. So a process whose environment has secrets replaces itself by the same program with a clean one,
    and hands over those of ``PAGE_SECRETS`` in a file without a name; others are dropped. To be called before
    anything else, as all of it happens twice.
    """
    if _HANDED in os.environ:
        with os.fdopen(int(os.environ.pop(_HANDED)), "rb") as file:
            given: dict[str, str] = json.load(file)
            return given
    found = {name: value for name, value in os.environ.items() if is_secret(name)}
    if found and os.name == "posix":
        _start_anew({name: found[name] for name in PAGE_SECRETS if name in found})
    return {name: os.environ.pop(name) for name in found if name in PAGE_SECRETS}


def _start_anew(handed: Mapping[str, str]) -> None:
    """Replace this process; returns only if that is impossible."""
    clean = {name: value for name, value in os.environ.items() if not is_secret(name)}
    with contextlib.suppress(OSError), tempfile.TemporaryFile() as file:
        file.write(json.dumps(handed).encode())
        file.seek(0)
        os.set_inheritable(file.fileno(), True)
        program = [sys.executable, *sys.orig_argv[1:]]
        # the same program again
        os.execve(sys.executable, program, {**clean, _HANDED: str(file.fileno())})  # noqa: S606


def hide_environment() -> None:
    """Keep other processes of this user from reading the memory of this one (Linux; elsewhere nothing)."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes  # noqa: PLC0415

        not_dumpable = 4  # PR_SET_DUMPABLE
        ctypes.CDLL(None).prctl(not_dumpable, 0, 0, 0, 0)
