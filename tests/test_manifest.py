from __future__ import annotations

import datetime
import functools
import itertools
import math
import operator
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_makers import HEADS, change_manifest, manifest_text

from hsemotion_space.hub.manifest import (
    MANIFEST,
    CheckpointError,
    InputSpec,
    find_checkpoint,
    list_checkpoints,
    read_manifest,
    read_registry,
)
from hsemotion_space.hub.resolve import locate

SHA256 = "0123456789abcdef" * 4
AU_HEAD = '[[heads]]\ntask = "action_units"\nkind = "scores"\nprovenance = "trained"\nlabels = ["AU1", "AU2"]\ncolumns = [0, 1]\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "checkpoints" / "small")


def write(folder: Path, **changes: str) -> Path:
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(manifest_text(folder.name, SHA256, **changes), "utf-8")
    return folder


def test_a_good_manifest(folder: Path) -> None:
    change_manifest(
        folder,
        ("columns = [0, 1, 2, 3, 4, 5, 6, 7]", 'columns = [7, 0]\nlabels = ["Neutral", "Anger"]\ntemperature = 2\nnote = "Two only."'),
        ('[[heads]]\ntask = "compound_expression"\nkind = "pair_mean"\nprovenance = "rule"\nsource = "expression"\n', ""),
    )
    checkpoint = read_manifest(folder)
    assert (checkpoint.id, checkpoint.sha256) == ("small", SHA256)
    assert (checkpoint.arch, checkpoint.arch_args) == ("mobilefacenet_small", {"img_size": 64})
    assert checkpoint.input == InputSpec(64, "square", 0.1, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert [head.task.name for head in checkpoint.heads] == ["expression", "valence_arousal"]
    head = checkpoint.head("expression")
    assert head is not None
    assert (head.task.label_names, head.columns, head.temperature, head.note) == (("Neutral", "Anger"), (7, 0), 2.0, "Two only.")
    assert checkpoint.head("action_units") is None
    assert checkpoint.weights_bytes == 0


def test_size_of_bundled_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"12345")
    assert read_manifest(folder).weights_bytes == 5


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/etc/passwd", "..", ".hidden", "a/b", "a\\b"])
def test_the_weights_file_cannot_lie_outside_of_the_folder(folder: Path, name: str) -> None:
    change_manifest(folder, ('"model.safetensors"', f"'{name}'"))
    with pytest.raises(CheckpointError, match="bundled must be a plain file name"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('id = "small"', 'id = "other"', "id must be the folder's name"),
        ("title = ", "titel = ", "lacks 'title'"),
        ('"MobileFaceNet"', '"ResNet"', "family must be one of .*ResNet"),
        (SHA256, SHA256.upper(), "sha256"),
        ("[source]", "[sauce]", "lacks 'source'"),
        (f'bundled = "model.safetensors"\nsha256 = "{SHA256}"', "", "must name bundled weights"),
        (f'sha256 = "{SHA256}"', "", "sha256 is missing"),
        ('bundled = "model.safetensors"', 'hub = "a/b"', "hub must be a table"),
        ('bundled = "model.safetensors"', 'hub = { repo = "a/b", revision = "main", filename = "m" }', "revision must be a commit of 40"),
        ('bundled = "model.safetensors"', f'hub = {{ repo = "a", revision = "{"0" * 40}", filename = "m" }}', "repo must be owner/name"),
        ('bundled = "model.safetensors"', f'hub = {{ repo = "a/b", revision = "{"0" * 40}" }}', "need a filename"),
        ('bundled = "model.safetensors"', 'bundled = "model.safetensors"\nbytes = "ten"', "bytes must be a number"),
        ('bundled = "model.safetensors"', 'upstream = { filename = "a.pt", git_blob_sha1 = "12" }', "git_blob_sha1 must be 40"),
        ("[backbone]", "[backbones]", "lacks 'backbone'"),
        ("dim = 512", "", "lacks 'dim'"),
        ("outputs = 10", 'outputs = "ten"', "ten"),
        ("outputs = 10", "outputs = 9", r"valence_arousal needs 2 columns from 0 to 8, got \[8, 9\]"),
        ("size = 64\ncrop", "size = 8\ncrop", "size from 16 to 1024"),
        ("margin = 0.1", "margin = -0.5", "margin"),
        ('"square"', '"oval"', "crop must be one of box, square, got 'oval'"),
        ("margin = 0.1", 'margin = 0.1\nresize = "nearest"', "resize"),
        ('"pair_mean"', '"pair_mean"\nleast_support = 0.6', "compound_expression least_support must be from 0 to 0.5"),
        ('"pair_mean"', '"pair_mean"\nleast_support = "1"', "least_support must be from 0 to 0.5"),
        ("columns = [8, 9]", "columns = [8, 9]\nleast_support = 0.1", "for labels with parts"),
        ("columns = [8, 9]", "columns = [8, 9]\nreliability = 3", "valence_arousal reliability must be a table"),
        ("columns = [8, 9]", "columns = [8, 9]\nreliability = { right = [1, 2] }", "reliability needs 2 counts for 'answers', got None"),
        ("columns = [8, 9]", "columns = [8, 9]\nreliability = { right = [1], answers = [3, 4] }", "reliability needs 2 counts for 'right'"),
        ("columns = [8, 9]", "columns = [8, 9]\nreliability = { right = [1, 0.5], answers = [3, 4] }", "needs 2 counts for 'right'"),
        ("columns = [8, 9]", "columns = [8, 9]\nreliability = { right = [1, 5], answers = [3, 4] }", "0 <= right <= answers"),
        ("columns = [8, 9]", "columns = [8, 9]\nreliability = { right = [1, -5], answers = [3, 4] }", "0 <= right <= answers"),
        ("mean = [0.5, 0.5, 0.5]", "mean = [0.5, 0.5]", "mean must be three numbers"),
        ("std = [0.5, 0.5, 0.5]", "std = [0.5, 0.0, 0.5]", "std must be positive"),
        ('task = "expression"', 'task = "emotion"', "no task 'emotion'"),
        ("columns = [8, 9]", 'columns = [8, 9]\nlabels = ["Valence", "Joy"]', "valence_arousal: .*no label 'Joy'"),
        ("columns = [8, 9]", "columns = [9]", "valence_arousal needs 2 columns"),
        ("columns = [8, 9]", "columns = [8, 10]", "valence_arousal needs 2 columns"),
        ('kind = "pair_mean"', 'kind = "forest"', "compound_expression kind must be one of .*forest"),
        ('kind = "pair_mean"', 'kind = "mlp"', "compound_expression source must name no task, got 'expression'"),
        ('kind = "pair_mean"', 'kind = "prior"', "compound_expression: a head of kind prior does not give values per frame"),
        ('columns = [8, 9]', 'columns = [8, 9]\nreads = "pixels"', "valence_arousal reads must be one of .*pixels"),
        ('kind = "pair_mean"\nprovenance = "rule"\nsource = "expression"', 'kind = "mlp"\nprovenance = "rule"', "heads_sha256 is missing"),
        ('provenance = "rule"', 'provenance = "guess"', "compound_expression provenance must be one of .*guess"),
        ("columns = [8, 9]", "columns = [8, 9]\ntemperature = 0", "valence_arousal temperature must be positive"),
        ("columns = [8, 9]", "columns = [8, 9]\nthresholds = [0.5]", "valence_arousal needs 2 thresholds or none, got 1"),
        ('source = "expression"', 'source = "action_units"', "compound_expression source must name one task that comes before it"),
        ('source = "expression"', 'source = "valence_arousal"', "compound_expression source valence_arousal lacks labels"),
        ('task = "valence_arousal"', 'task = "expression"\nlabels = ["Fear", "Anger"]', "expression is there twice"),
        ('task = "valence_arousal"', 'task = "mimicry_intensity"\nlabels = ["Joy", "Amusement"]', "scores does not give values per clip"),
        ("[input]", "[input", "cannot be read"),
    ],
)  # fmt: skip
def test_errors_name_checkpoint_and_key(folder: Path, old: str, new: str, key: str) -> None:
    change_manifest(folder, (old, new))
    with pytest.raises(CheckpointError, match=f"Checkpoint small: .*{key}") as caught:
        read_manifest(folder)
    assert str(folder.parent) not in str(caught.value)


def test_a_missing_manifest_is_told_without_a_path(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Checkpoint none: manifest\.toml cannot be read \(No such file") as caught:
        read_manifest(tmp_path / "none")
    assert str(tmp_path) not in str(caught.value)


def test_a_rule_follows_what_it_reads(tmp_path: Path) -> None:
    first, *others = HEADS.split("[[heads]]")[1:]
    write(tmp_path / "late", heads="".join("[[heads]]" + text for text in (*others, first)))
    with pytest.raises(CheckpointError, match="compound_expression source must name one task that comes before it"):
        read_manifest(tmp_path / "late")


def test_heads_keep_order_and_thresholds(tmp_path: Path) -> None:
    checkpoint = read_manifest(write(tmp_path / "units", heads=AU_HEAD + "thresholds = [0.4, 1]\n"))
    assert checkpoint.heads[0].thresholds == (0.4, 1.0)


def test_the_folder_is_the_registry(folder: Path) -> None:
    root = folder.parent
    write(root / "big")
    (root / "notes").mkdir()
    assert [checkpoint.id for checkpoint in list_checkpoints([root])] == ["big", "small"]
    assert find_checkpoint([root], "big").id == "big"
    with pytest.raises(CheckpointError, match="no checkpoint 'large'; there are big, small"):
        find_checkpoint([root], "large")
    (folder / "model.safetensors").write_bytes(b"1")
    assert find_checkpoint([root], "").id == "small"  # the first one that has its weights


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="HSEMOTION_CHECKPOINTS"):
        list_checkpoints([tmp_path / "nowhere"])


def test_a_bad_manifest_takes_no_other_checkpoint_down(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder.parent / "bad")
    change_manifest(folder.parent / "bad", ("size = 64\ncrop", "size = 8\ncrop"))
    roots = [folder.parent]
    for _ in range(3):
        assert [checkpoint.id for checkpoint in list_checkpoints(roots)] == ["small"]
    [message] = caplog.messages
    assert message.startswith(f"{folder.parent / 'bad'} is left out: Checkpoint bad: [input] needs a size")
    assert read_registry(roots).faults == {"bad": message.split(": ", 1)[1]}
    assert find_checkpoint(roots, "small").id == "small"
    with pytest.raises(CheckpointError, match=r"^Checkpoint bad: \[input\] needs a size"):
        find_checkpoint(roots, "bad")
    change_manifest(folder, ("size = 64\ncrop", "size = 8\ncrop"))
    with pytest.raises(CheckpointError, match=r"^No checkpoint can be used\. Checkpoint bad: .* Checkpoint small: \[input\] needs a size"):
        list_checkpoints(roots)


def paths(table: object, before: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to every value of a manifest, tables included."""
    inner = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, value in inner:
        yield (*before, key)
        yield from paths(value, (*before, key))


ODD = (math.inf, math.nan, -1, 10**30, True, "", "\0", "/", [], [[]], {}, {"a": 1}, datetime.date(2020, 1, 1), "é")
"""Values that TOML can hold."""


def test_no_value_whatever_of_one_manifest_hides_the_others(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("ERROR")
    other = write(folder.parent / "other")
    good, loads = (other / MANIFEST).read_text("utf-8"), tomllib.loads
    places = list(paths(loads(good)))
    assert len(places) > 40
    for place, odd in itertools.product(places, ODD):
        table = loads(good)
        inner = functools.reduce(operator.getitem, place[:-1], table)
        inner[place[-1]] = odd
        with monkeypatch.context() as patch:
            patch.setattr(tomllib, "loads", lambda text, table=table: table if text == good else loads(text))
            registry = read_registry([folder.parent])
        assert "small" in [checkpoint.id for checkpoint in registry.checkpoints], (place, odd)
        assert len(registry.checkpoints) + len(registry.faults) == 2
        for checkpoint in registry.checkpoints:
            locate(checkpoint, folder)
    for text in ("[" * 5000, "\0", "a = [" + "[" * 3000, "\ufeff" + good):
        (other / MANIFEST).write_text(text, "utf-8")
        assert [checkpoint.id for checkpoint in list_checkpoints([folder.parent])] == ["small"]
    (other / MANIFEST).unlink()
    (other / MANIFEST).mkdir()
    assert [checkpoint.id for checkpoint in list_checkpoints([folder.parent])] == ["small"]
