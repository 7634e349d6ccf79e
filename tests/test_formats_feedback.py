from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from error_codes import raises_code
from feedback_makers import hash_of, make_crop, make_record, make_stored
from training_makers import RECIPE

from hsemotion_space.feedback.dataset import decode, encode, to_table
from hsemotion_space.feedback.export import ExportOptions, export
from hsemotion_space.feedback.record import TIERS, FeedbackRecord, Values, Verdict
from hsemotion_space.tasks import (
    ACTION_UNITS,
    AFF_WILD2_EXPRESSION,
    COMPOUND_EXPRESSION,
    EXPRESSION,
    MIMICRY_INTENSITY,
    VALENCE_AROUSAL,
)
from hsemotion_space.training.data import TEST, TRAINING, TUNING, FaceImages, split_of
from hsemotion_space.training.files import DataError
from hsemotion_space.training.formats.annotations import read_labels
from hsemotion_space.training.formats.crops import list_faces
from hsemotion_space.training.formats.feedback import TIERS as TRAINING_TIERS
from hsemotion_space.training.formats.feedback import read_feedback, read_rows, unpack
from hsemotion_space.training.recipe import Source, read_recipe
from hsemotion_space.training.run import train
from hsemotion_space.training.sources import load_sources

PEOPLE = [hash_of("published" + hash_of(f"person {number}")) for number in range(20)]
SOURCE = Source("feedback", ("export",), 1.0, tuning=0.3, format="feedback")
UNITS = dict.fromkeys(ACTION_UNITS.label_names, 0.0)


def statement(
    number: int, person: int, corrected: dict[str, Values], verdict: Verdict = "wrong", created_s: float = 0.0
) -> FeedbackRecord:
    record = make_record(number, contributor=PEOPLE[person], corrected=corrected, verdict=verdict)
    return make_stored(record, number=number, created_s=created_s, crop=make_crop(number, 24))


def labels(number: int) -> dict[str, Values]:
    """Correct some tasks of picture ``number``: the expression of most, valence and arousal of every second,
    units of every third."""
    corrected: dict[str, Values] = {}
    if number % 5:
        corrected["expression"] = {EXPRESSION.label_names[number % 8]: 1.0}
    if number % 2 or number % 5 == 0:
        corrected["valence_arousal"] = {"Valence": number / 40 - 0.5, "Arousal": 0.5 - number / 60}
    if number % 3 == 0:
        corrected["action_units"] = UNITS | {"AU12": 0.75} if number % 2 else {"AU12": 0.75}
    return corrected


def forty() -> list[FeedbackRecord]:
    return [statement(number, number % 20, labels(number)) for number in range(40)]


def exported(folder: Path, stored: Sequence[FeedbackRecord], tiers: Sequence[str] = ("agreed",)) -> Path:
    grades = {one.id: tiers[number % len(tiers)] for number, one in enumerate(stored)}
    export(stored, folder, grades, ExportOptions("raw"))
    return folder


# from the export to a training step


def test_an_export_that_datasets_loads_trains_a_backbone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    exported(tmp_path / "export", forty())
    loaded = datasets.load_dataset(str(tmp_path / "export"), cache_dir=str(tmp_path / "cache"))["train"]
    (tmp_path / "recipe.toml").write_text(
        'arch = "test_byobnet"\nsize = 32\nsteps = 2\nsteps_per_epoch = 1\nbatch = 8\ncompile ='
        ' false\nbfloat16 = false\n[[sources]]\nname = "feedback"\nformat = "feedback"\nfiles ='
        ' ["export"]\nshare = 1.0\ntuning = 0.3\n'
    )
    recipe = read_recipe(tmp_path / "recipe.toml")
    [source], _ = load_sources(recipe, tmp_path)
    assert len(source) == len(loaded) == 40
    assert train(tmp_path / "recipe.toml", tmp_path, tmp_path / "run", None)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(np.isfinite(list(row["loss"].values())).all() and "expression" in row["loss"] for row in rows)
    assert f"{len(source.rows(TRAINING))} pictures for training" in capsys.readouterr().out


def test_labels_that_were_not_judged_are_masked(tmp_path: Path) -> None:
    stored = forty()
    exported(tmp_path / "export", stored)
    [faces], _ = load_sources(replace(RECIPE, sources=(SOURCE,), votes=""), tmp_path)
    rows = decode((tmp_path / "export" / "data" / "train-00000.parquet").read_bytes())
    assert [sample.image for sample in read_feedback([tmp_path / "export"], 0.3)] == [
        row.crop for row in rows
    ]
    for k, row in enumerate(rows):
        expression = row.corrected.get("expression")
        assert np.isnan(faces.expression[k]).all() == (expression is None)
        assert faces.counted[k] == (expression is not None)
        if expression:
            assert EXPRESSION.label_names[int(faces.expression[k].argmax())] in expression
        affect = row.corrected.get("valence_arousal")
        assert np.array_equal(
            faces.valence_arousal[k], [*affect.values()] if affect else [np.nan] * 2, equal_nan=True
        )


# who is on which side


def sides_of(faces: FaceImages, places: Sequence[Path]) -> dict[str, set[int]]:
    """Return the sides on which the pictures of each contributor are."""
    sides: dict[str, set[int]] = {}
    for sample, side in zip(read_feedback(places, 0.3), faces.split.tolist(), strict=True):
        sides.setdefault(sample.group, set()).add(side)
    return sides


def test_nobody_and_no_face_is_on_two_sides(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    judged = [
        statement(
            number % 60, int(rng.integers(20)), {"expression": {EXPRESSION.label_names[number % 8]: 1.0}}
        )
        for number in range(140)
    ]
    stored = list({one.item + one.contributor: one for one in judged}.values())
    place = exported(tmp_path / "export", stored)
    [faces], _ = load_sources(replace(RECIPE, sources=(SOURCE,), votes=""), tmp_path)
    sides = sides_of(faces, [place])
    assert all(len(found) == 1 for found in sides.values())
    assert set.union(*sides.values()) == {TRAINING, TUNING, TEST}
    assert set(sides) <= set(PEOPLE)
    pictures: dict[bytes, set[int]] = {}
    for sample, side in zip(read_feedback([place], 0.3), faces.split.tolist(), strict=True):
        assert isinstance(sample.image, bytes)
        pictures.setdefault(sample.image, set()).add(side)
    wanted: dict[bytes, set[int]] = {}
    for one in stored:
        wanted.setdefault(one.crop, set()).add(split_of(one.contributor.encode(), None, 0.3))
    # no face is lost, only what some say about it
    assert pictures == {picture: {max(found)} for picture, found in wanted.items()}
    assert any(len(found) > 1 for found in wanted.values())


def test_the_side_of_a_contributor_does_not_depend_on_the_others(tmp_path: Path) -> None:
    few, many = exported(tmp_path / "few", forty()[:15]), exported(tmp_path / "export", forty())
    [faces], _ = load_sources(replace(RECIPE, sources=(SOURCE,), votes=""), tmp_path)
    sides = sides_of(faces, [many])
    for sample in read_feedback([few], 0.3):
        assert sides[sample.group] == {split_of(sample.group.encode(), None, 0.3)}


def test_too_few_contributors_are_told(tmp_path: Path) -> None:
    exported(tmp_path / "export", forty()[:1])
    with raises_code(DataError, "empty_split"):
        load_sources(replace(RECIPE, sources=(SOURCE,), votes=""), tmp_path)


# which rows count


def test_only_the_tiers_that_are_asked_for_count(tmp_path: Path) -> None:
    place = exported(tmp_path / "export", [*forty(), replace(statement(41, 1, labels(41)), crop=b"")], TIERS)
    for chosen in (("raw",), ("agreed",), ("reviewed",), ("agreed", "reviewed"), TIERS):
        rows = read_rows([place], chosen)
        assert {row.tier for row in rows} == set(chosen)
        assert abs(len(rows) - 40 * len(chosen) / 3) < 1
    assert {row.tier for row in read_rows([place])} == {"agreed", "reviewed"}
    with raises_code(DataError, "tier"):
        read_rows([place], ["good"])
    assert TRAINING_TIERS == TIERS
    (tmp_path / "batch.parquet").write_bytes(encode(forty()))
    assert read_rows([tmp_path / "batch.parquet"]) == []
    assert len(read_rows([tmp_path / "batch.parquet"], ["raw"])) == 40


def test_of_two_statements_in_published_batches_the_later_one_counts(tmp_path: Path) -> None:
    early, late = (
        statement(1, 0, {"expression": {name: 1.0}}, created_s=day * 86_400.0)
        for day, name in ((1, "Fear"), (2, "Surprise"))
    )
    for names in (("a", "b"), ("b", "a")):
        for name, one in zip(names, (early, late), strict=True):
            (tmp_path / f"{name}.parquet").write_bytes(encode([one]))
        [row] = read_rows([tmp_path], ["raw"])
        assert EXPRESSION.label_names[int(row.labels["expression"].argmax())] == "Surprise"


def test_a_confirmed_class_of_a_trained_head_counts_and_nothing_else_that_nobody_corrected(
    tmp_path: Path,
) -> None:
    for verdict in ("correct", "cannot_tell", "not_a_face"):
        one = statement(1, 0, {}, verdict=verdict)
        (tmp_path / "x.parquet").write_bytes(encode([one]))
        known = judged(tmp_path)
        if verdict == "correct":
            assert set(known) == {"expression", "compound_expression"}
            assert known["expression"].tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
            ruled = replace(one, provenance={**one.provenance, "compound_expression": "rule"})
            (tmp_path / "x.parquet").write_bytes(encode([ruled]))
            assert set(judged(tmp_path)) == {"expression"}
            units = statement(1, 0, {"action_units": {"AU2": 0.25}}, verdict=verdict)
            (tmp_path / "x.parquet").write_bytes(encode([units]))
            assert judged(tmp_path) == {}, "only what is named was confirmed"
        else:
            assert known == {}


def judged(folder: Path) -> dict[str, np.ndarray]:
    """Return the labels of the only row of a folder, of the tasks that were judged completely."""
    [row] = read_rows([folder], ["raw"])
    return {name: values for name, values in row.labels.items() if not np.isnan(values).any()}


def test_partly_judged_units_are_partly_known(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(
        encode([statement(1, 0, {"action_units": {"AU2": 0.25, "AU26": 1.0}})])
    )
    [row] = read_rows([tmp_path], ["raw"])
    values = row.labels["action_units"]
    assert {name: value for name, value in zip(ACTION_UNITS.label_names, values.tolist(), strict=True) if value == value} == {
        "AU2": 0.25, "AU26": 1.0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("schema_version", 2, "version"), ("contributor", "../../x", "identity"), ("item", "", "identity"), ("created", None, "unusable"),
        ("corrected_expression", "Bliss", "label"), ("corrected_action_units", [0.5] * 11, "numbers"),
        ("corrected_valence_arousal", [2.0, 0.0], "numbers"), ("verdict", ..., "columns"),
    ],
)  # fmt: skip
def test_read_rows_refuses_other_values(tmp_path: Path, column: str, value: object, code: str) -> None:
    table = to_table(forty()[:1])
    place = table.column_names.index(column)
    changed = (
        pa.array([value], None if column.endswith("units") else table.schema.field(column).type)
        if value is not ...
        else None
    )
    pq.write_table(
        table.remove_column(place) if changed is None else table.set_column(place, column, changed),
        tmp_path / "x.parquet",
    )
    with raises_code(DataError, code):
        unpack([tmp_path / "x.parquet"], tmp_path / "out", ["raw"])
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_feedback_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"nonsense")
    with raises_code(DataError, "unusable"):
        read_rows([tmp_path])
    with raises_code(DataError, "unreadable"):
        read_rows([tmp_path / "absent.parquet"])


# heads


def test_unpacked_feedback_has_the_layout_that_heads_are_trained_on(tmp_path: Path) -> None:
    stored = [
        *forty(),
        statement(50, 3, {"expression": {"Contempt": 1.0}}),
        statement(51, 3, {"compound_expression": {"Sadly angry": 1.0}}),
    ]
    place = exported(tmp_path / "export", stored)
    counts = unpack([place], tmp_path / "out")
    faces = {
        (face.video, face.frame): face.image.read_bytes() for face in list_faces([tmp_path / "out" / "faces"])
    }
    rows = {row.crop: row for row in stored}
    assert len(faces) == len(rows) == 42
    assert all(rows[picture].contributor == video for (video, _), picture in faces.items())
    found = dict.fromkeys(counts, 0)
    for task in (AFF_WILD2_EXPRESSION, VALENCE_AROUSAL, ACTION_UNITS, COMPOUND_EXPRESSION):
        for series in read_labels(tmp_path / "out" / "labels" / task.name, task):
            for place_in_series in series.known:
                row = rows[faces[series.video, int(series.frames[place_in_series])]]
                values, given = series.values[place_in_series], row.corrected[task.name]
                if task.kind == "one_of":
                    assert [task.label_names[int(values[0])]] == [
                        name if name != "Contempt" else "Other" for name in given
                    ]
                elif task.kind == "continuous":
                    assert values.tolist() == pytest.approx([*given.values()])
                else:
                    assert values.tolist() == [float(given[name] >= 0.5) for name in task.label_names]
                found[task.name] += 1
    assert found == counts
    assert counts == {
        "expression": 33, "valence_arousal": sum("valence_arousal" in labels(n) for n in range(40)),
        "action_units": sum(len(labels(n).get("action_units", {})) == 12 for n in range(40)), "compound_expression": 1,
    }  # fmt: skip
    assert MIMICRY_INTENSITY.name not in counts
    with raises_code(DataError, "not_empty"):
        unpack([place], tmp_path / "out")
