"""The configuration of the Space: the YAML block of the project's ``README.md``, made from the manifests."""

from __future__ import annotations

from collections.abc import Sequence

from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.hub.source import CheckpointError, HubSource
from hsemotion_space.hub.weights import HEADS_FILE

MOST_PRELOADS = 10  # a Space with more is refused
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
suggested_hardware: cpu-basic
tags:
  - facial-expression-recognition
  - affective-computing
  - valence-arousal
"""


def front_matter(checkpoints: Sequence[Checkpoint], sdk_version: str, python_version: str) -> str:
    """Return the YAML between ``---`` lines; weights on the Hub are fetched while the Space is built.

    Args:
        checkpoints: of the project.
        sdk_version: of gradio.
        python_version: such as 3.12.

    Raises:
        CheckpointError: if more checkpoints are on the Hub than a Space may preload.
    """
    text = FIELDS.format(sdk_version=sdk_version, python_version=python_version)
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


def _list(key: str, items: Sequence[str]) -> str:
    return f"{key}:\n" + "".join(f"  - {item}\n" for item in items)
