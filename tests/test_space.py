"""The configuration of the Space at the top of README.md."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from error_codes import raises_code

from hsemotion_space.hub.manifest import Checkpoint, CheckpointError
from hsemotion_space.hub.registry import list_checkpoints
from hsemotion_space.hub.source import Digest, HubSource
from hsemotion_space.hub.space import front_matter

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = list_checkpoints([ROOT / "checkpoints"])
REVISION = "0123456789abcdef0123456789abcdef01234567"
COLORS = "red yellow green blue indigo purple pink gray"
ACCEPTED = """title emoji colorFrom colorTo sdk python_version sdk_version suggested_hardware suggested_storage app_file app_build_command
    app_port base_path fullWidth header short_description models datasets tags thumbnail pinned hf_oauth hf_oauth_scopes
    hf_oauth_expiration_minutes hf_oauth_authorized_org disable_embedding startup_duration_timeout custom_headers preload_from_hub
    license"""


def pinned(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", (ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    assert found, f"{package} is not pinned"
    return found[1]


def published(name: str, *, heads: bool) -> Checkpoint:
    """A checkpoint of the project as if it were on the Hub."""
    model = CHECKPOINTS[0]
    digest = Digest("a" * 64, size_bytes=1) if heads else Digest()
    hub = HubSource(f"someone/{name}", REVISION, "model.safetensors")
    return replace(model, id=name, source=replace(model.source, hub=hub, heads=digest))


def test_the_readme_starts_with_what_the_manifests_say() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    wanted = front_matter(CHECKPOINTS, pinned("gradio"), "3.12")
    assert text.startswith(f"---\n{wanted}---\n")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_key_is_one_that_the_hub_accepts(count: int) -> None:
    table = yaml.safe_load(
        front_matter([published(f"model-{i}", heads=True) for i in range(count)], "6.31.0", "3.12")
    )
    assert table.keys() <= set(ACCEPTED.split())
    assert ("preload_from_hub" in table) == ("models" in table) == bool(count)
    assert {table["colorFrom"], table["colorTo"]} <= set(COLORS.split())
    assert len(table["short_description"]) <= 60
    assert table["sdk_version"] == "6.31.0"
    assert table["python_version"] == "3.12"  # a text: as a number 3.10 would be 3.1
    assert (ROOT / table["app_file"]).is_file()
    assert table["license"] == "apache-2.0"


def test_weights_on_the_hub_are_preloaded_at_their_commit() -> None:
    checkpoints = [
        published("one", heads=True),
        CHECKPOINTS[1],
        published("two", heads=False),
        published("one", heads=True),
    ]
    table = yaml.safe_load(front_matter(checkpoints, "6.31.0", "3.12"))
    assert table["models"] == ["someone/one", "someone/two"]
    assert table["preload_from_hub"] == [
        f"someone/one model.safetensors,heads.safetensors {REVISION}",
        f"someone/two model.safetensors {REVISION}",
    ]


def test_more_preloads_than_a_space_may_have_are_refused() -> None:
    front_matter([published(f"model-{i}", heads=True) for i in range(10)], "6.31.0", "3.12")
    with raises_code(CheckpointError, "too_many"):
        front_matter([published(f"model-{i}", heads=True) for i in range(11)], "6.31.0", "3.12")
