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
from error_codes import raises_code
from manifest_makers import HEADS, change_manifest, manifest_text

from hsemotion_space.hub.manifest import MANIFEST, CheckpointError, InputSpec, read_manifest
from hsemotion_space.hub.weights import locate

SHA256 = "0123456789abcdef" * 4
AU_HEAD = """[[heads]]
task = "action_units"
kind = "scores"
provenance = "trained"
labels = ["AU1", "AU2"]
columns = [0, 1]
thresholds = [0.4, 1]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "checkpoints" / "small")


def write(folder: Path, **changes: str) -> Path:
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(manifest_text(folder.name, SHA256, **changes), "utf-8")
    return folder


def test_read_manifest_of_a_checkpoint(folder: Path) -> None:
    changed = 'columns = [7, 0]\nlabels = ["Neutral", "Anger"]\ntemperature = 2\nnote = "Two only."'
    rule = HEADS[HEADS.index('[[heads]]\ntask = "compound') :]
    change_manifest(folder, ("columns = [0, 1, 2, 3, 4, 5, 6, 7]", changed), (rule, ""))
    checkpoint = read_manifest(folder)
    assert (checkpoint.id, checkpoint.sha256, checkpoint.weights_bytes) == ("small", SHA256, 0)
    assert (checkpoint.arch, checkpoint.arch_args) == ("mobilefacenet_small", {"img_size": 64})
    assert checkpoint.input == InputSpec(64, "square", 0.1, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert [head.task.name for head in checkpoint.heads] == ["expression", "valence_arousal"]
    head = checkpoint.head("expression")
    assert head is not None
    assert (head.task.label_names, head.columns) == (("Neutral", "Anger"), (7, 0))
    assert (head.temperature, head.note) == (2.0, "Two only.")
    assert checkpoint.head("action_units") is None
    (folder / "model.safetensors").write_bytes(b"12345")
    assert read_manifest(folder).weights_bytes == 5


SOURCE = 'bundled = "model.safetensors"'
AFFECT = "columns = [8, 9]"


@pytest.mark.parametrize(
    ("old", "new", "code", "key"),
    [
        ('id = "small"', 'id = "other"', "invalid_value", "id"),
        ("title = ", "titel = ", "missing_key", "'title'"),
        ('"MobileFaceNet"', '"ResNet"', "invalid_value", "family"),
        *((SOURCE, f"bundled = '{name}'", "invalid_value", "[source] bundled") for name in ("../a", "/etc/passwd", "..", ".a", "a\\b")),
        (SHA256, SHA256.upper(), "invalid_value", "sha256"),
        ("[source]", "[sauce]", "missing_key", "'source'"),
        (f'{SOURCE}\nsha256 = "{SHA256}"', "", "no_source", None),
        (f'sha256 = "{SHA256}"', "", "no_digest", None),
        (SOURCE, 'hub = "a/b"', "invalid_value", "[source] hub"),
        (SOURCE, 'hub = { repo = "a/b", revision = "main", filename = "m" }', "invalid_value", "[source] hub revision"),
        (SOURCE, f'hub = {{ repo = "a", revision = "{"0" * 40}", filename = "m" }}', "invalid_value", "[source] hub repo"),
        (SOURCE, f'hub = {{ repo = "a/b", revision = "{"0" * 40}" }}', "no_filename", None),
        (SOURCE, f'{SOURCE}\nbytes = "ten"', "invalid_value", "[source] bytes"),
        (SOURCE, 'upstream = { filename = "a.pt", git_blob_sha1 = "12" }', "invalid_value", "git_blob_sha1"),
        ("dim = 512", "", "missing_key", "'dim'"),
        ("outputs = 10", 'outputs = "ten"', "unreadable", None),
        ("outputs = 10", "outputs = 9", "invalid_value", "[[heads]] valence_arousal columns"),
        ("size = 64\ncrop", "size = 8\ncrop", "invalid_value", "[input] size"),
        ("margin = 0.1", "margin = -0.5", "invalid_value", "[input] margin"),
        ('"square"', '"oval"', "invalid_value", "[input] crop"),
        ("margin = 0.1", 'margin = 0.1\nresize = "nearest"', "invalid_value", "[input] resize"),
        ("mean = [0.5, 0.5, 0.5]", "mean = [0.5, 0.5]", "invalid_value", "[input] mean"),
        ("std = [0.5, 0.5, 0.5]", "std = [0.5, 0.0, 0.5]", "invalid_value", "[input] std"),
        ('task = "expression"', 'task = "emotion"', "bad_head", "[[heads]] emotion"),
        (AFFECT, f'{AFFECT}\nlabels = ["Valence", "Joy"]', "bad_head", "[[heads]] valence_arousal"),
        (AFFECT, f"{AFFECT}\nreliability = 3", "invalid_value", "[[heads]] valence_arousal reliability"),
        (AFFECT, f"{AFFECT}\nreliability = {{ right = [1, 2] }}", "invalid_value", "[[heads]] valence_arousal reliability answers"),
        (AFFECT, f"{AFFECT}\nreliability = {{ right = [1, 0.5], answers = [3, 4] }}", "invalid_value", None),
        (AFFECT, f"{AFFECT}\nreliability = {{ right = [1, 5], answers = [3, 4] }}", "bad_head", "[[heads]] valence_arousal"),
        (AFFECT, f"{AFFECT}\nleast_support = 0.1", "invalid_value", "[[heads]] valence_arousal least_support"),
        (AFFECT, "columns = [9]", "invalid_value", "[[heads]] valence_arousal columns"),
        (AFFECT, "columns = [8, 10]", "invalid_value", "[[heads]] valence_arousal columns"),
        (AFFECT, f'{AFFECT}\nreads = "pixels"', "invalid_value", "[[heads]] valence_arousal reads"),
        (AFFECT, f"{AFFECT}\ntemperature = 0", "invalid_value", "[[heads]] valence_arousal temperature"),
        (AFFECT, f"{AFFECT}\nthresholds = [0.5]", "invalid_value", "[[heads]] valence_arousal thresholds"),
        ('"pair_mean"', '"pair_mean"\nleast_support = 0.6', "invalid_value", "[[heads]] compound_expression least_support"),
        ('"pair_mean"', '"forest"', "invalid_value", "[[heads]] compound_expression kind"),
        ('"pair_mean"', '"mlp"', "invalid_value", "[[heads]] compound_expression source"),
        ('"pair_mean"', '"prior"', "invalid_value", "[[heads]] compound_expression kind"),
        ('"pair_mean"\nprovenance = "rule"\nsource = "expression"', '"mlp"\nprovenance = "rule"', "no_digest", None),
        ('provenance = "rule"', 'provenance = "guess"', "invalid_value", "[[heads]] compound_expression provenance"),
        ('source = "expression"', 'source = "action_units"', "invalid_value", "[[heads]] compound_expression source"),
        ('source = "expression"', 'source = "valence_arousal"', "invalid_value", "[[heads]] compound_expression source"),
        ('task = "valence_arousal"', 'task = "expression"\nlabels = ["Fear", "Anger"]', "invalid_value", "[[heads]] task"),
        ('task = "valence_arousal"', 'task = "mimicry_intensity"\nlabels = ["Joy", "Amusement"]', "invalid_value", None),
        ("[input]", "[input", "unreadable", None),
    ],
)  # fmt: skip
def test_read_manifest_names_checkpoint_and_key(
    folder: Path, old: str, new: str, code: str, key: str | None
) -> None:
    change_manifest(folder, (old, new))
    with pytest.raises(CheckpointError) as caught:
        read_manifest(folder)
    values = caught.value.message.values
    assert (caught.value.code, values["id"]) == (code, "small")
    assert key in (None, values["reason"].values.get("key"))
    assert str(folder.parent) not in str(caught.value)


def test_read_manifest_of_an_empty_folder(tmp_path: Path) -> None:
    with raises_code(CheckpointError, "unreadable") as caught:
        read_manifest(tmp_path / "none")
    assert str(tmp_path) not in str(caught.value)


def test_read_manifest_of_a_rule_before_what_it_reads(tmp_path: Path) -> None:
    first, *others = HEADS.split("[[heads]]")[1:]
    write(tmp_path / "late", heads="".join("[[heads]]" + text for text in (*others, first)))
    with pytest.raises(CheckpointError) as caught:
        read_manifest(tmp_path / "late")
    assert caught.value.message.values["reason"].values["key"] == "[[heads]] compound_expression source"


def test_read_manifest_with_thresholds(tmp_path: Path) -> None:
    checkpoint = read_manifest(write(tmp_path / "units", heads=AU_HEAD))
    assert checkpoint.heads[0].thresholds == (0.4, 1.0)


def paths(table: object, before: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to every value of a manifest, tables included."""
    inner = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, value in inner:
        yield (*before, key)
        yield from paths(value, (*before, key))


ODD = (math.inf, math.nan, -1, 10**30, True, "", "\0", "/", [], [[]], {}, {"a": 1}, datetime.date(2020, 1, 1), "é")  # fmt: skip
"""Values that TOML can hold."""


def test_read_manifest_with_any_value(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, loads = (folder / MANIFEST).read_text("utf-8"), tomllib.loads
    places = list(paths(loads(good)))
    assert len(places) > 40
    for place, odd in itertools.product(places, ODD):
        table = loads(good)
        inner = functools.reduce(operator.getitem, place[:-1], table)
        inner[place[-1]] = odd
        monkeypatch.setattr(tomllib, "loads", lambda _, table=table: table)
        try:
            locate(read_manifest(folder), folder)
        except CheckpointError as error:
            assert error.code, (place, odd)
    monkeypatch.undo()
    for text in ("[" * 5000, "\0", "a = [" + "[" * 3000, "\ufeff" + good):
        (folder / MANIFEST).write_text(text, "utf-8")
        with pytest.raises(CheckpointError):
            read_manifest(folder)
