"""The configuration of the Space: the YAML block of the project's ``README.md``, made from the manifests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from huggingface_hub import SpaceCard, SpaceHardware

from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.hub.source import CheckpointError, HubSource
from hsemotion_space.hub.weights import HEADS_FILE

MOST_PRELOADS = 10  # a Space with more is refused
LONGEST_DESCRIPTION = 60
KEYS = (
    "title emoji colorFrom colorTo sdk python_version sdk_version suggested_hardware suggested_storage"
    " app_file app_build_command app_port base_path fullWidth header short_description models datasets tags"
    " thumbnail pinned hf_oauth hf_oauth_scopes hf_oauth_expiration_minutes hf_oauth_authorized_org"
    " disable_embedding startup_duration_timeout custom_headers preload_from_hub license"
)
"""Keys that the Hub documents for the configuration of a Space, separated by spaces."""
PYTHON = "3.12.12"
ZERO_GPU_PYTHON = ("3.12.12", "3.10.13")
ZERO_GPU_TORCH = ("2.8.0", "2.9.1", "2.10.0", "2.11.0", "2.12.1", "2.13.0")
THUMBNAIL = "docs/pictures/clip.webp"
FIELDS = """title: HSEmotion Space
emoji: 🙂
colorFrom: indigo
colorTo: pink
sdk: gradio
sdk_version: {sdk_version}
python_version: "{python_version}"
app_file: app.py
fullWidth: true
short_description: Open playground for facial affect
license: apache-2.0
suggested_hardware: zero-a10g
startup_duration_timeout: 30m
hf_oauth: true
hf_oauth_expiration_minutes: 480
tags:
  - facial-expression-recognition
  - affective-computing
  - valence-arousal
"""


def front_matter(
    checkpoints: Sequence[Checkpoint],
    sdk_version: str,
    python_version: str,
    repo: str = "",
    datasets: Sequence[str] = (),
) -> str:
    """Return the YAML between ``---`` lines; weights on the Hub are fetched while the Space is built.

    Args:
        checkpoints: of the project.
        sdk_version: of gradio.
        python_version: such as 3.12.
        repo: ``owner/name`` of the Space, for the address of its thumbnail; without one there is none.
        datasets: repositories that it uses.

    Raises:
        CheckpointError: if more checkpoints are on the Hub than a Space may preload.
    """
    text = FIELDS.format(sdk_version=sdk_version, python_version=python_version)
    if repo:
        text += f"thumbnail: https://huggingface.co/spaces/{repo}/resolve/main/{THUMBNAIL}\n"
    if datasets:
        text += _list("datasets", datasets)
    preloads = list(dict.fromkeys(_preload(item.source.hub, item) for item in checkpoints if item.source.hub))
    if not preloads:
        return text
    if len(preloads) > MOST_PRELOADS:
        raise CheckpointError(
            "A Space preloads at most {most} checkpoints, but {count} are on the Hub. Bundle some of them.",
            code="too_many",
            most=MOST_PRELOADS,
            count=len(preloads),
        )
    models = list(dict.fromkeys(line.split()[0] for line in preloads))
    return text + _list("models", models) + _list("preload_from_hub", preloads)


def _preload(hub: HubSource, checkpoint: Checkpoint) -> str:
    files = [hub.filename, *([HEADS_FILE] if checkpoint.source.heads.known else [])]
    return f"{hub.repo} {','.join(files)} {hub.revision}"


def read_front_matter(readme: str) -> dict[str, object]:
    """Return the configuration in a README.

    Raises:
        ValueError: if there is none, or it is no YAML.
    """
    try:
        found: dict[str, object] = SpaceCard(readme).data.to_dict()  # type: ignore[no-untyped-call]
    except Exception as error:  # the parser of YAML has many errors
        raise ValueError(str(error).partition("\n")[0]) from error
    return found


def pinned(requirements: str, package: str) -> str:
    """Return the version that a requirements file pins a package to; empty if it pins none."""
    found = re.search(rf"^{re.escape(package)}==([^\s;]+)", requirements, re.MULTILINE)
    return found[1] if found else ""


def find_faults(front: Mapping[str, object], requirements: str) -> list[str]:
    """Return why a Space with this configuration and these requirements would not start on ZeroGPU.

    The sentences are in English, for the command line.
    """
    torch, gradio = pinned(requirements, "torch"), pinned(requirements, "gradio")
    unknown = ", ".join(sorted(front.keys() - set(KEYS.split())))
    python, sdk, hardware = (
        front.get(key) for key in ("python_version", "sdk_version", "suggested_hardware")
    )
    preloads = front.get("preload_from_hub")
    checks = [
        (not unknown, f"README.md: the Hub does not know {unknown}."),
        (sdk == gradio, f"README.md: sdk_version is {sdk}, but requirements.txt pins gradio {gradio}."),
        (
            python in ZERO_GPU_PYTHON,
            f"README.md: python_version is {python}, but ZeroGPU runs {' or '.join(ZERO_GPU_PYTHON)}.",
        ),
        (hardware in set(SpaceHardware), f"README.md: suggested_hardware {hardware} does not exist."),
        (
            len(str(front.get("short_description", ""))) <= LONGEST_DESCRIPTION,
            f"README.md: short_description has more than {LONGEST_DESCRIPTION} characters.",
        ),
        (
            not isinstance(preloads, list) or len(preloads) <= MOST_PRELOADS,
            f"README.md: preload_from_hub has more than {MOST_PRELOADS} lines.",
        ),
        (
            torch in ZERO_GPU_TORCH,
            f"requirements.txt: ZeroGPU runs torch {', '.join(ZERO_GPU_TORCH)}, not {torch or 'any'}.",
        ),
    ]
    return [fault for passes, fault in checks if not passes]


def with_front_matter(readme: str, front: str) -> str:
    """Return a README whose YAML block is another."""
    body = readme.split("---\n", 2)[2] if readme.startswith("---\n") else readme
    return f"---\n{front}---\n{body}"


def _list(key: str, items: Sequence[str]) -> str:
    return f"{key}:\n" + "".join(f"  - {item}\n" for item in items)
