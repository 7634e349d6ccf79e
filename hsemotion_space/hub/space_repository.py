"""The repository of a Space: what it holds, and how it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from huggingface_hub import CommitOperationAdd, HfApi, SpaceHardware

from hsemotion_space.hub import client
from hsemotion_space.hub.client import HubError
from hsemotion_space.hub.publish import refusal
from hsemotion_space.hub.source import CheckpointError

PARTS: Final = (
    "app.py", "README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md",
    "requirements.txt", "pyproject.toml", "hsemotion_space", "checkpoints", "examples", "docs",
)  # fmt: skip
"""What of the project a Space needs, and what its README links to."""


@dataclass(frozen=True, slots=True)
class Space:
    """A Space to be made.

    Attributes:
        repo: ``owner/name``.
        hardware: on which it runs, in the words of the Hub; an existing Space keeps its own.
        private: whether only its owner sees it.
        variables: of its environment; everybody can read them.
        secrets: of its environment.
    """

    repo: str
    hardware: str
    private: bool
    variables: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)


def read_files(root: Path) -> dict[str, bytes]:
    """Return the files of a Space by their path in the repository.

    Raises:
        CheckpointError: if the folder is not the project's, as where the package was installed without it.
    """
    if not (root / "app.py").is_file():
        raise CheckpointError(
            (
                "The files of the Space were not found. Run this command in a clone of the project's"
                " repository."
            ),
            code="no_project",
        )
    found = [
        file
        for part in PARTS
        for file in ([root / part] if (root / part).is_file() else (root / part).rglob("*"))
    ]
    return {
        file.relative_to(root).as_posix(): file.read_bytes()
        for file in sorted(found)
        if file.is_file()
        and not any(part.startswith((".", "__pycache__")) for part in file.relative_to(root).parts)
    }


def find_variables(repo: str, token: str) -> dict[str, str] | None:
    """Return the variables of a Space; None if there is no such Space.

    Raises:
        CheckpointError: if the Hub does not say so.
    """
    try:
        found = client.retry(lambda: HfApi(token=token).get_space_variables(repo))
    except (HubError, OSError) as error:
        if isinstance(error, HubError) and error.status == 404:
            return None
        raise refusal(error, repo) from error
    return {name: variable.value for name, variable in found.items()}


def create(space: Space, files: Mapping[str, bytes], token: str) -> str:
    """Make a Space, unless it is there, set its variables and secrets, commit its files; return its address.

    Doing it again does no harm: it brings an existing Space up to date.

    Args:
        space: what is made.
        files: content by path.
        token: of somebody who may do that; appears in no message.

    Raises:
        CheckpointError: saying what is wrong and what to do.
    """
    api = HfApi(token=token)
    try:
        return client.retry(lambda: _create(space, files, api), client.UPLOAD_TIMEOUT_S)
    except (HubError, OSError) as error:
        raise refusal(error, space.repo) from error


def _create(space: Space, files: Mapping[str, bytes], api: HfApi) -> str:
    url = api.create_repo(
        space.repo,
        repo_type="space",
        space_sdk="gradio",
        space_hardware=cast("SpaceHardware", space.hardware),
        private=space.private,
        exist_ok=True,
    )
    for name, value in space.variables.items():
        api.add_space_variable(space.repo, name, value)
    for name, value in space.secrets.items():
        api.add_space_secret(space.repo, name, value)
    adding = [CommitOperationAdd(path, content) for path, content in files.items()]
    api.create_commit(space.repo, adding, commit_message="HSEmotion Space", repo_type="space")
    return str(url)
