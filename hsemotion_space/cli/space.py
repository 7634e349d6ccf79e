"""``hsemotion-space space``: make a Space of the Hugging Face Hub, and check what would fail there."""

from __future__ import annotations

import argparse
import getpass
import os
import secrets
import sys
from dataclasses import fields
from pathlib import Path
from typing import Final

from hsemotion_space.cli.console import report_error
from hsemotion_space.settings import ENV_PREFIX, Settings, SettingsError

ROOT: Final = Path(__file__).resolve().parents[2]
FREE: Final = "zero-a10g"
GIT_BYTES: Final = 10 * 2**20  # larger files need LFS, which not everybody who pushes a copy has
REPO, SECRET, REVIEWERS = (
    f"{ENV_PREFIX}{name}" for name in ("FEEDBACK_REPO", "FEEDBACK_SECRET", "REVIEWERS")
)
CREATE: Final = f"""
Creates the Space and asks for the values of its variables and secrets, or updates the files of an existing
one. {REPO}, {SECRET} and {REVIEWERS} are taken from the environment where they are set there.
HF_TOKEN must be allowed to create Spaces; the Space itself gets another token, which should be able to write
to the dataset alone.
"""


def add_space(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    create = commands.add_parser("create", help="create or update a Space", description=CREATE)
    create.add_argument("repo", metavar="OWNER/NAME")
    create.add_argument(
        "--hardware",
        default=FREE,
        help="default: %(default)s, which is ZeroGPU and free; cpu-basic needs a paid plan",
    )
    create.add_argument("--private", action="store_true")
    create.set_defaults(handler=_create)
    commands.add_parser("check", help="say what would fail in a Space").set_defaults(handler=_check)


def _create(options: argparse.Namespace) -> int:
    from hsemotion_space.hub.registry import list_checkpoints  # noqa: PLC0415  heavy
    from hsemotion_space.hub.space import PYTHON, front_matter, pinned, with_front_matter  # noqa: PLC0415
    from hsemotion_space.hub.space_repository import Space, create, find_variables, read_files  # noqa: PLC0415

    files = read_files(ROOT)
    token = os.environ.get("HF_TOKEN") or _ask_secret("Token that may create Spaces")
    if not token:
        return report_error("HF_TOKEN is not set. Create a token with write access and set it.", 2)
    there = find_variables(options.repo, token)
    variables, hidden = _ask_settings() if there is None else ({}, {})
    Settings.from_env({**variables, **hidden})  # refuses what the Space would refuse
    datasets = list(filter(None, [(there or variables).get(REPO)]))
    gradio = pinned(files["requirements.txt"].decode(), "gradio")
    front = front_matter(list_checkpoints([ROOT / "checkpoints"]), gradio, PYTHON, options.repo, datasets)
    files["README.md"] = with_front_matter(files["README.md"].decode(), front).encode()
    url = create(Space(options.repo, options.hardware, options.private, variables, hidden), files, token)
    print(f"{url} has the files. The Hub builds it now, which takes some minutes.")
    return 0


def _ask_settings() -> tuple[dict[str, str], dict[str, str]]:
    """Return the variables and the secrets of the Space; what is empty is left out."""
    variables = {
        REPO: _ask(REPO, "Dataset for corrections (owner/name; empty: the Space takes none)"),
        REVIEWERS: _ask(REVIEWERS, "User names of reviewers (separated by commas; empty: nobody reviews)"),
    }
    hidden = {}
    if variables[REPO]:
        hidden[SECRET] = os.environ.get(SECRET) or secrets.token_urlsafe(30)
        if SECRET not in os.environ:
            print(
                f"{SECRET}={hidden[SECRET]}\nKeep it: with another one, contributors cannot erase their rows."
            )
        hidden["HF_TOKEN"] = _ask_secret(f"Token that may write to {variables[REPO]}")
        if not hidden["HF_TOKEN"]:
            print("Set the secret HF_TOKEN in the settings of the Space; until then it takes no corrections.")
    return (
        {name: value for name, value in variables.items() if value},
        {name: value for name, value in hidden.items() if value},
    )


def _ask(name: str, question: str) -> str:
    if name in os.environ or not sys.stdin.isatty():
        return os.environ.get(name, "")
    return input(f"{question}: ").strip()


def _ask_secret(question: str) -> str:
    return getpass.getpass(f"{question}: ").strip() if sys.stdin.isatty() else ""


def _check(_: argparse.Namespace) -> int:
    from hsemotion_space.hub.space import find_faults, read_front_matter  # noqa: PLC0415  heavy
    from hsemotion_space.hub.space_repository import read_files  # noqa: PLC0415

    files = read_files(ROOT)
    faults = [
        f"{path}: {len(content) / 1e6:.1f} MB; `git push` refuses files over 10 MiB without LFS."
        for path, content in files.items()
        if len(content) > GIT_BYTES
    ]
    try:
        faults += find_faults(
            read_front_matter(files["README.md"].decode()), files["requirements.txt"].decode()
        )
    except ValueError as error:
        faults.append(f"README.md: the configuration cannot be read ({error}).")
    faults += _storage_faults()
    for fault in faults:
        print(fault)
    if not (os.environ.get(REPO) or os.environ.get(f"{ENV_PREFIX}FEEDBACK_DATABASE")):
        print(f"Note: {REPO} is not set, so the Space takes no corrections.")
    size = sum(map(len, files.values()))
    print(f"{len(files)} files, {size / 1e6:.1f} MB; {'no' if not faults else len(faults)} faults")
    return 1 if faults else 0


def _storage_faults() -> list[str]:
    """Return what is wrong with the settings of this environment, as if it were that of the Space."""
    from hsemotion_space.feedback.mounts import network_type  # noqa: PLC0415

    known = {ENV_PREFIX + item.name.upper() for item in fields(Settings)}
    faults = [
        f"{name}: there is no such setting."
        for name in sorted(os.environ)
        if name.startswith(ENV_PREFIX) and name not in known
    ]
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        return [*faults, str(error)]
    if settings.feedback == "off" or settings.feedback_database:
        return faults
    if settings.feedback_repo and not (settings.feedback_secret and os.environ.get("HF_TOKEN")):
        faults.append(f"{REPO} is set, but {SECRET} or HF_TOKEN is not: the Space takes no corrections.")
    if kind := network_type(settings.feedback_data):
        faults.append(
            f"{settings.feedback_data} lies on a network mount ({kind}): the Space takes no corrections."
        )
    return faults
