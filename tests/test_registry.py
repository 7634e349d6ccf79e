"""The registry: what is listed, in which order, and when a manifest is parsed."""

from __future__ import annotations

from pathlib import Path

import pytest
from error_codes import raises_code
from manifest_makers import change_manifest, manifest_text

from hsemotion_space.hub import registry
from hsemotion_space.hub.manifest import MANIFEST, CheckpointError, read_manifest
from hsemotion_space.hub.registry import find_checkpoint, list_checkpoints, read_registry

BAD = ("size = 64\ncrop", "size = 8\ncrop")


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(manifest_text(folder.name, "0123456789abcdef" * 4), "utf-8")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "checkpoints" / "small").parent


def test_find_checkpoint_by_id_or_the_first_with_its_weights(root: Path, tmp_path: Path) -> None:
    write(root / "big")
    (root / "notes").mkdir()
    assert [checkpoint.id for checkpoint in list_checkpoints([root])] == ["big", "small"]
    assert find_checkpoint([root], "big").id == "big"
    with raises_code(CheckpointError, "unknown_checkpoint"):
        find_checkpoint([root], "large")
    (root / "small" / "model.safetensors").write_bytes(b"1")
    assert find_checkpoint([root], "").id == "small"
    with raises_code(CheckpointError, "none"):
        find_checkpoint([tmp_path / "nowhere"], "")


def test_read_registry_parses_each_manifest_once_until_it_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []

    def read(folder: Path) -> object:
        parsed.append(folder.name)
        return read_manifest(folder)

    monkeypatch.setattr(registry, "read_manifest", read)
    write(root / "big")
    for _ in range(3):
        assert len(read_registry([root]).checkpoints) == 2
    assert sorted(parsed) == ["big", "small"]
    change_manifest(root / "small", ("Test small", "Text small"))  # as long as before
    assert find_checkpoint([root], "small").title == "Text small"
    change_manifest(root / "small", BAD)
    for _ in range(3):
        assert [checkpoint.id for checkpoint in list_checkpoints([root])] == ["big"]
    assert sorted(parsed) == ["big", "small", "small", "small"]
    (root / "small" / MANIFEST).unlink()
    assert read_registry([root]).faults == {}


def test_a_bad_manifest_takes_no_other_checkpoint_down(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    change_manifest(write(root / "bad"), BAD)
    (root / "folder" / MANIFEST).mkdir(parents=True)
    for _ in range(3):
        assert [checkpoint.id for checkpoint in list_checkpoints([root])] == ["small"]
    assert [message.split(" is left out: ")[0] for message in caplog.messages] == [
        str(root / "bad"),
        str(root / "folder"),
    ]
    with raises_code(CheckpointError, "invalid_value"):
        find_checkpoint([root], "bad")
    with raises_code(CheckpointError, "unreadable"):
        find_checkpoint([root], "folder")
    change_manifest(root / "small", BAD)
    with raises_code(CheckpointError, "none_usable"):
        find_checkpoint([root], "small")
