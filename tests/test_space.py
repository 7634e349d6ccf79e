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
from hsemotion_space.hub.space import (
    KEYS,
    PYTHON,
    find_faults,
    front_matter,
    pinned,
    read_front_matter,
    with_front_matter,
)

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = list_checkpoints([ROOT / "checkpoints"])
REVISION = "0123456789abcdef0123456789abcdef01234567"
COLORS = "red yellow green blue indigo purple pink gray"
REQUIREMENTS = (ROOT / "requirements.txt").read_text("utf-8")
GRADIO = pinned(REQUIREMENTS, "gradio")


def published(name: str, *, heads: bool) -> Checkpoint:
    """A checkpoint of the project as if it were on the Hub."""
    model = CHECKPOINTS[0]
    digest = Digest("a" * 64, size_bytes=1) if heads else Digest()
    hub = HubSource(f"someone/{name}", REVISION, "model.safetensors")
    return replace(model, id=name, source=replace(model.source, hub=hub, heads=digest))


def test_the_readme_starts_with_what_the_manifests_say() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    wanted = front_matter(CHECKPOINTS, GRADIO, PYTHON)
    assert text.startswith(f"---\n{wanted}---\n")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_key_is_one_that_the_hub_accepts(count: int) -> None:
    table = yaml.safe_load(
        front_matter([published(f"model-{i}", heads=True) for i in range(count)], "6.31.0", "3.12")
    )
    assert table.keys() <= set(KEYS.split())
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


def test_the_configuration_of_a_space_is_complete_and_can_run_for_free() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    front = front_matter([published("one", heads=True)], GRADIO, PYTHON, "ann/space", ["ann/corrections"])
    table = read_front_matter(with_front_matter(readme, front))
    wanted = """models datasets preload_from_hub hf_oauth hf_oauth_expiration_minutes thumbnail suggested_hardware
        startup_duration_timeout python_version"""
    assert set(wanted.split()) <= table.keys() <= set(KEYS.split())
    assert (table["suggested_hardware"], table["hf_oauth"]) == ("zero-a10g", True)
    assert table["datasets"] == ["ann/corrections"]
    thumbnail = str(table["thumbnail"]).removeprefix("https://huggingface.co/spaces/ann/space/resolve/main/")
    assert (ROOT / thumbnail).is_file()
    assert find_faults(table, REQUIREMENTS) == []
    assert with_front_matter(with_front_matter(readme, front), front).endswith(readme.split("---\n", 2)[2])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sdk_version", "6.0.0"), ("python_version", "3.10"), ("python_version", 3.12), ("suggested_hardware", "gpu"),
        ("short_description", "x" * 61), ("preload_from_hub", ["a/b"] * 11), ("suggested_harware", "zero-a10g"),
    ],
)  # fmt: skip
def test_each_fault_of_a_configuration_is_found(key: str, value: object) -> None:
    table = read_front_matter((ROOT / "README.md").read_text("utf-8"))
    assert find_faults(table, REQUIREMENTS) == []
    [fault] = find_faults({**table, key: value}, REQUIREMENTS)
    assert key in fault


@pytest.mark.parametrize("torch", ["torch==2.15.0", "torch>=2.8"])
def test_a_torch_that_zero_gpu_does_not_run_is_found(torch: str) -> None:
    table = read_front_matter((ROOT / "README.md").read_text("utf-8"))
    [fault] = find_faults(table, re.sub(r"^torch==.*$", torch, REQUIREMENTS, flags=re.MULTILINE))
    assert "torch" in fault


@pytest.mark.parametrize("readme", ["", "no block", "---\na: [\n---\n"])
def test_a_readme_without_a_configuration_is_refused(readme: str) -> None:
    try:
        assert find_faults(read_front_matter(readme), REQUIREMENTS)
    except ValueError as error:
        assert str(error)
