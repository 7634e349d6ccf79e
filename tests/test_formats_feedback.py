from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from feedback_makers import hash_of, make_crop, make_record, make_stored
from learn_makers import RECIPE

from hsemotion_space.feedback.dataset import decode, encode, to_table, write_table
from hsemotion_space.feedback.export import ExportOptions, export
from hsemotion_space.feedback.record import TIERS, FeedbackRecord, Values, Verdict
from hsemotion_space.tasks import (
    ACTION_UNITS,
    AFF_WILD2_EXPRESSION,
    COMPOUND_EXPRESSION,
    EXPRESSION,
    MIMICRY_INTENSITY,
    TASKS,
    VALENCE_AROUSAL,
)
from hsemotion_space.training.data import TEST, TRAINING, TUNING, DataError, FaceImages, split_of
from hsemotion_space.training.formats.affwild2 import list_faces, read_labels
from hsemotion_space.training.formats.feedback import read_feedback, read_rows, said, unpack
from hsemotion_space.training.recipe import Source, read_recipe
from hsemotion_space.training.run import train
from hsemotion_space.training.sources import load_sources

PEOPLE = [hash_of("published" + hash_of(f"person {number}")) for number in range(20)]
SOURCE = Source("feedback", ("export",), 1.0, tuning=0.3, format="feedback")
UNITS = dict.fromkeys(ACTION_UNITS.label_names, 0.0)


def statement(number: int, person: int, corrected: dict[str, Values], verdict: Verdict = "wrong", created_s: float = 0.0) -> FeedbackRecord:
    record = make_record(number, contributor=PEOPLE[person], corrected=corrected, verdict=verdict)
    return make_stored(record, number=number, created_s=created_s, crop=make_crop(number, 24))


def labels(number: int) -> dict[str, Values]:
    """Correct some tasks of picture ``number``: the expression of most, valence and arousal of every second, units of every third."""
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


def test_an_export_that_datasets_loads_trains_a_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import datasets

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    exported(tmp_path / "export", forty())
    loaded = datasets.load_dataset(str(tmp_path / "export"), cache_dir=str(tmp_path / "cache"))["train"]
    (tmp_path / "recipe.toml").write_text(
        'arch = "test_byobnet"\nsize = 32\nsteps = 2\nsteps_per_epoch = 1\nbatch = 8\ncompile = false\nbfloat16 = false\n'
        '[[sources]]\nname = "feedback"\nformat = "feedback"\nfiles = ["export"]\nshare = 1.0\ntuning = 0.3\n'
    )
    recipe = read_recipe(tmp_path / "recipe.toml")
    [source], _ = load_sources(recipe, tmp_path)
    assert len(source) == len(loaded) == 40
    assert train(tmp_path / "recipe.toml", tmp_path, tmp_path / "run", None)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(np.isfinite(list(row["loss"].values())).all() and "expression" in row["loss"] for row in rows)
    assert f"{len(source.rows(TRAINING))} for training" in capsys.readouterr().out


def test_labels_that_were_not_judged_are_masked(tmp_path: Path) -> None:
    stored = forty()
    exported(tmp_path / "export", stored)
    [faces], _ = load_sources(replace(RECIPE, sources=(SOURCE,), votes=""), tmp_path)
    rows = decode((tmp_path / "export" / "data" / "train-00000.parquet").read_bytes())
    assert [sample.image for sample in read_feedback([tmp_path / "export"], 0.3)] == [row.crop for row in rows]
    for k, row in enumerate(rows):
        expression = row.corrected.get("expression")
        assert np.isnan(faces.expression[k]).all() == (expression is None)
        assert faces.counted[k] == (expression is not None)
        if expression:
            assert EXPRESSION.label_names[int(faces.expression[k].argmax())] in expression
        affect = row.corrected.get("valence_arousal")
        assert np.array_equal(faces.valence_arousal[k], [*affect.values()] if affect else [np.nan] * 2, equal_nan=True)


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
        statement(number % 60, int(rng.integers(20)), {"expression": {EXPRESSION.label_names[number % 8]: 1.0}}) for number in range(140)
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
    assert pictures == {picture: {max(found)} for picture, found in wanted.items()}  # no face is lost, only what some say about it
    assert any(len(found) > 1 for found in wanted.values())


def test_the_side_of_a_contributor_does_not_depend_on_the_others(tmp_path: Path) -> None:
    few, many = exported(tmp_path / "few", forty()[:15]), exported(tmp_path / "export", forty())
    [faces], _ = load_sources(replace(RECIPE, sources=(SOURCE,), votes=""), tmp_path)
    sides = sides_of(faces, [many])
    for sample in read_feedback([few], 0.3):
        assert sides[sample.group] == {split_of(sample.group.encode(), None, 0.3)}


def test_too_few_contributors_are_told(tmp_path: Path) -> None:
    exported(tmp_path / "export", forty()[:1])
    with pytest.raises(DataError, match="feedback needs a row for training"):
        load_sources(replace(RECIPE, sources=(SOURCE,), votes=""), tmp_path)


# which rows count


def test_only_the_tiers_that_are_asked_for_count(tmp_path: Path) -> None:
    place = exported(tmp_path / "export", [*forty(), replace(statement(41, 1, labels(41)), crop=b"")], TIERS)
    for chosen in (("raw",), ("agreed",), ("reviewed",), ("agreed", "reviewed"), TIERS):
        rows = read_rows([place], chosen)
        assert {row.tier for row in rows} == set(chosen)
        assert abs(len(rows) - 40 * len(chosen) / 3) < 1
    assert {row.tier for row in read_rows([place])} == {"agreed", "reviewed"}
    with pytest.raises(DataError, match="no tier 'good'; the tiers are raw, agreed, reviewed"):
        read_rows([place], ["good"])
    (tmp_path / "batch.parquet").write_bytes(encode(forty()))
    assert read_rows([tmp_path / "batch.parquet"]) == []
    assert len(read_rows([tmp_path / "batch.parquet"], ["raw"])) == 40


def test_of_two_statements_in_published_batches_the_later_one_counts(tmp_path: Path) -> None:
    early, late = (statement(1, 0, {"expression": {name: 1.0}}, created_s=day * 86_400.0) for day, name in ((1, "Fear"), (2, "Surprise")))
    for names in (("a", "b"), ("b", "a")):
        for name, one in zip(names, (early, late), strict=True):
            (tmp_path / f"{name}.parquet").write_bytes(encode([one]))
        [row] = read_rows([tmp_path], ["raw"])
        assert list(row.corrected["expression"]) == ["Surprise"]


def test_a_confirmed_class_of_a_trained_head_counts_and_nothing_else_that_nobody_corrected(tmp_path: Path) -> None:
    for verdict in ("correct", "cannot_tell", "not_a_face"):
        one = statement(1, 0, {}, verdict=verdict)
        (tmp_path / "x.parquet").write_bytes(encode([one]))
        [row] = read_rows([tmp_path], ["raw"])
        known = {task.name: said(row, task) for task in TASKS if not np.isnan(said(row, task)).any()}
        if verdict == "correct":
            assert set(known) == {"expression", "compound_expression"}
            assert known["expression"].tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
            ruled = replace(row, provenance={**row.provenance, "compound_expression": "rule"})
            assert np.isnan(said(ruled, COMPOUND_EXPRESSION)).all()
        else:
            assert known == {}


def test_partly_judged_units_are_partly_known(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(encode([statement(1, 0, {"action_units": {"AU2": 0.25, "AU26": 1.0}})]))
    [row] = read_rows([tmp_path], ["raw"])
    values = said(row, ACTION_UNITS)
    assert {name: value for name, value in zip(ACTION_UNITS.label_names, values.tolist(), strict=True) if value == value} == {
        "AU2": 0.25, "AU26": 1.0
    }  # fmt: skip


def test_files_that_are_no_feedback_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"x\.parquet cannot be read: This is not a feedback file"):
        read_rows([tmp_path])
    with pytest.raises(DataError, match=r"absent\.parquet cannot be read: No such file"):
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
    faces = {(face.video, face.frame): face.image.read_bytes() for face in list_faces([tmp_path / "out" / "faces"])}
    rows = {row.crop: row for row in read_rows([place])}
    assert len(faces) == len(rows) == 42
    assert all(rows[picture].contributor == video for (video, _), picture in faces.items())
    found = dict.fromkeys(counts, 0)
    for task in (AFF_WILD2_EXPRESSION, VALENCE_AROUSAL, ACTION_UNITS, COMPOUND_EXPRESSION):
        for series in read_labels(tmp_path / "out" / "labels" / task.name, task):
            for place_in_series in series.known:
                row = rows[faces[series.video, int(series.frames[place_in_series])]]
                values, given = series.values[place_in_series], row.corrected[task.name]
                if task.kind == "one_of":
                    assert [task.label_names[int(values[0])]] == [name if name != "Contempt" else "Other" for name in given]
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
    with pytest.raises(DataError, match="is not empty"):
        unpack([place], tmp_path / "out")


def test_a_foreign_contributor_leads_out_of_no_folder(tmp_path: Path) -> None:
    table = to_table(forty()[:1])
    column = table.column_names.index("contributor")
    (tmp_path / "x.parquet").write_bytes(write_table(table.set_column(column, "contributor", pa.array(["../../x"]))))
    with pytest.raises(DataError, match="and the pseudonym of a contributor"):
        unpack([tmp_path / "x.parquet"], tmp_path / "out", ["raw"])
    assert not (tmp_path / "out").exists()
