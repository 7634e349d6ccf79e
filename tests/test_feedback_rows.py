from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feedback_makers import ANNA, BEN, CARL, NOW_S, make_crop, make_record, make_stored, refused
from PIL import Image

from hsemotion_space.feedback.dataset import (
    COLUMNS,
    EXPORT_COLUMNS,
    EXPORT_SCHEMA,
    KINDS,
    MOST_ROWS,
    ROW_GROUP,
    SCHEMA,
    TRACE_COLUMNS,
    TRACE_SCHEMA,
    decode,
    encode,
    record_ids,
    to_table,
    write_table,
)
from hsemotion_space.feedback.export import FILE_ROWS, ExportOptions, export, export_own
from hsemotion_space.feedback.record import TIERS, FeedbackError, FeedbackRecord, Values, from_json, to_json
from hsemotion_space.tasks import TASKS, Task

DOCS = Path(__file__).resolve().parent.parent / "docs" / "feedback-dataset.md"
SECRET = "my name is Zaphod"


def answer(task: Task, rng: random.Random) -> Values:
    """Correct a task at random: one class, all dimensions, or some units."""
    if task.kind == "one_of":
        return {rng.choice(task.label_names): 1.0}
    names = (
        task.label_names
        if task.kind == "continuous"
        else rng.sample(task.label_names, rng.randint(1, len(task.labels)))
    )
    return {name: rng.uniform(task.low, task.high) for name in task.label_names if name in names}


def varied(count: int, seed: int = 0) -> list[FeedbackRecord]:
    """Make records of pictures and clips with any verdict, any subset of tasks, with and without crops."""
    rng, stored = random.Random(seed), []
    for number in range(count):
        kind = rng.choice(["image", "clip"])
        verdict = rng.choice(["wrong", "correct", "cannot_tell", "not_a_face"])
        tasks = [task for task in TASKS if task.scope == "frame" or kind == "clip"]
        chosen = rng.sample(tasks, rng.randint(1, len(tasks))) if verdict == "wrong" else []
        record = make_record(
            number, contributor=rng.choice([ANNA, BEN, CARL]), kind=kind, verdict=verdict, comment=SECRET, top=rng.randrange(8),
            span_s=(1.5, 2.25) if kind == "clip" and rng.random() < 0.5 else (),
            corrected={task.name: answer(task, rng) for task in chosen},
            scopes=rng.choice([("labels", "publish"), ("labels", "crop", "publish")]),
        )  # fmt: skip
        created = NOW_S + rng.random() * 1e6
        stored.append(
            make_stored(
                record,
                number=number,
                created_s=created,
                crop=make_crop(number) if rng.random() < 0.7 else b"",
            )
        )
    return stored


def close(first: Mapping[str, Values], second: Mapping[str, Values]) -> bool:
    return first.keys() == second.keys() and all(
        first[task] == pytest.approx(dict(second[task]), abs=1e-6) and list(first[task]) == list(second[task])
        for task in first
    )


# columns and the document


def test_every_task_has_the_same_set_of_columns() -> None:
    for task in TASKS:
        assert {name for name in COLUMNS if name.removeprefix("predicted_").removeprefix("corrected_").startswith(task.name)} == {
            f"predicted_{task.name}", f"predicted_{task.name}_provenance", f"corrected_{task.name}",
        }  # fmt: skip
    assert SCHEMA.names == list(COLUMNS)
    assert EXPORT_SCHEMA.names == [*COLUMNS, *EXPORT_COLUMNS]
    assert {task.name: list(task.label_names) for task in TASKS} == {
        name: given["labels"] for name, given in json.loads(SCHEMA.metadata[b"tasks"]).items()
    }


def test_the_document_describes_every_column() -> None:
    text = DOCS.read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `") and line.count("|") == 4]
    expected = [
        f"| `{name}` | {column.kind} | {column.about} |"
        for name, column in [*COLUMNS.items(), *EXPORT_COLUMNS.items(), *TRACE_COLUMNS.items()]
    ]
    assert rows == expected


def test_the_types_told_to_datasets_are_those_of_the_file() -> None:
    from datasets import Features

    known = ((SCHEMA, COLUMNS), (EXPORT_SCHEMA, COLUMNS | EXPORT_COLUMNS), (TRACE_SCHEMA, TRACE_COLUMNS))
    for schema, columns in known:
        features = Features.from_dict(json.loads(schema.metadata[b"huggingface"])["info"]["features"])
        assert features.arrow_schema.remove_metadata().equals(schema.remove_metadata())
        pictures = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
        assert pictures == [name for name in columns if name == "image"]
        assert list(features) == list(columns)
    assert {column.kind for _, columns in known for column in columns.values()} == set(KINDS)


# rows


def test_a_batch_gives_back_what_was_said() -> None:
    stored = varied(250)
    body = encode(stored)
    rows = {row.id: row for row in decode(body)}
    assert record_ids(body) == tuple(sorted(one.id for one in stored))
    for one in stored:
        record, row = one, rows[one.id]
        assert row.item == record.item
        assert (row.kind, row.face, row.span_s, row.verdict) == (
            record.kind, record.face, record.span_s, record.verdict
        )  # fmt: skip
        assert row.box_xyxy == record.box_xyxy
        assert close(row.corrected, record.corrected)
        assert close(row.predicted, record.predicted)
        assert row.provenance == record.provenance
        assert (row.checkpoint, row.checkpoint_sha256, row.heads_sha256, row.preprocessing) == (
            record.checkpoint, record.checkpoint_sha256, record.heads_sha256, record.preprocessing
        )  # fmt: skip
        assert (row.consent_version, row.consent_scopes) == (record.consent_version, record.consent_scopes)
        assert (row.tier, row.review) == ("", "")


def test_labels_of_a_smaller_checkpoint_are_null_where_it_has_none() -> None:
    record = make_record()
    fewer = {label: value for label, value in record.predicted["expression"].items() if label != "Contempt"}
    given = make_stored(replace(record, predicted={"expression": fewer}))
    table = to_table([given])
    assert table.column("predicted_expression").to_pylist()[0][1] is None
    assert table.column("predicted_action_units").to_pylist() == [None]
    assert list(decode(write_table(table))[0].predicted) == ["expression"]
    assert "Contempt" not in decode(write_table(table))[0].predicted["expression"]


def test_equal_records_give_equal_bytes_in_any_order_and_small_row_groups() -> None:
    stored = varied(230)
    body = encode(stored)
    assert encode(stored[::-1]) == body
    with pq.ParquetFile(io.BytesIO(body)) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert max(sizes) == ROW_GROUP
    assert sum(sizes) == 230
    assert decode(encode([])) == []


def test_a_batch_tells_neither_who_nor_when_nor_what_they_wrote() -> None:
    stored = varied(60)
    body = encode(stored)
    table = pq.read_table(io.BytesIO(body))
    text = repr(table.drop_columns(["image"]).to_pylist())
    assert SECRET not in text and SECRET.encode() not in body
    assert {moment.minute + moment.second for moment in table.column("created").to_pylist()} == {0}
    for one, row in zip(sorted(stored, key=lambda one: one.id), decode(body), strict=True):
        assert 0 <= one.created_s - row.created_s < 3600
        assert row.contributor == one.contributor


def test_a_crop_is_published_only_where_that_was_agreed_to() -> None:
    stored = varied(80)
    rows = {row.id: row for row in decode(encode(stored))}
    shown = {one.id for one in stored if one.crop and "crop" in one.consent_scopes}
    assert 0 < len(shown) < sum(1 for one in stored if one.crop)
    for one in stored:
        assert rows[one.id].crop == (one.crop if one.id in shown else b"")


def changed(name: str, value: object) -> bytes:
    """Return a batch of one record in which a column has another value, of whatever type."""
    table = to_table([make_stored(make_record(corrected={"action_units": {"AU1": 1.0}}))])
    return write_table(table.set_column(table.column_names.index(name), name, pa.array([value])))


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("id", "../../x", "record_id"), ("id", None, "row_cell"), ("id", "A" * 32, "record_id"), ("id", "a" * 33, "record_id"),
        ("item", "x", "record_id"), ("contributor", None, "row_cell"), ("contributor", "../x", "record_id"),
        ("schema_version", 2, "row_version"), ("schema_version", None, "row_version"), ("verdict", "maybe", "verdict"),
        ("kind", "sound", "record_face"), ("kind", None, "row_cell"), ("face", 0, "record_face"), ("face", None, "row_cell"),
        ("created", None, "row_cell"), ("box", None, "row_cell"), ("box", [0.0, 0.0, 0.0, None], "row_cell"),
        ("box", [0.0, 0.0, 2.0, 1.0], "record_face"), ("box", [0.0, 0.0, 1.0, float("nan")], "record_face"),
        ("box", [0.0], "parquet"), ("span_start_s", 1.0, "record_span"), ("corrected_expression", "Smug", "label"),
        ("corrected_valence_arousal", [0.0], "row_numbers"), ("corrected_valence_arousal", [0.0, 7.0], "row_range"),
        ("corrected_action_units", [float("nan")] * 12, "row_range"), ("corrected_action_units", ["x"] * 12, "parquet"),
        ("predicted_expression", [float("inf")] * 8, "row_range"), ("predicted_expression", "text", "parquet"),
        ("predicted_expression_provenance", "guessed", "record_provenance"), ("consent_scopes", "labels", "parquet"),
        ("image", 5, "parquet"), ("created", "yesterday", "parquet"), ("created", 2**60, "parquet"),
    ],
)  # fmt: skip
def test_decode_of_a_foreign_row_is_refused(name: str, value: object, code: str) -> None:
    with pytest.raises(FeedbackError) as caught:
        decode(changed(name, value))
    assert caught.value.code == code


def test_whatever_is_no_batch_is_refused() -> None:
    body = encode(varied(20))
    rng = np.random.default_rng(0)
    missing = write_table(to_table(varied(2)).drop_columns(["verdict"]))
    many = pa.table(
        {name: pa.nulls(MOST_ROWS + 1, field.type) for name, field in zip(SCHEMA.names, SCHEMA, strict=True)}
    )
    with refused("rows"):
        record_ids(write_table(many))
    for foreign in (b"", b"PAR1", b"x" * 1000, body[:-20], body[:2000], body[::-1], missing):
        for read in (decode, record_ids):
            with pytest.raises(FeedbackError):
                read(foreign)
    for _ in range(150):  # bytes flipped anywhere: a sentence, or rows if only a picture is hit
        broken = bytearray(body)
        for place in rng.integers(0, len(body), 8):
            broken[place] ^= int(rng.integers(1, 256))
        try:
            decode(bytes(broken))
        except FeedbackError as error:
            assert str(error)


def test_a_file_of_large_cells_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsemotion_space.feedback.dataset.MOST_BYTES", 10_000_000)
    table = to_table([make_stored(make_record(number)) for number in range(200)])
    bomb = table.set_column(
        table.column_names.index("preprocessing"), "preprocessing", pa.array(["a" * 1_000_000] * 200)
    )
    body = write_table(bomb)
    assert len(body) < 500_000
    with refused("bytes"):
        decode(body)


# exports


def graded(stored: list[FeedbackRecord]) -> dict[str, str]:
    return {one.id: TIERS[number % 3] for number, one in enumerate(stored)}


def load(folder: Path, cache: Path):
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(str(folder), cache_dir=str(cache))


def test_an_export_loads_with_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    stored = varied(40)
    report = export(stored, tmp_path / "out", graded(stored), ExportOptions("raw"))
    loaded = load(tmp_path / "out", tmp_path / "cache")
    assert list(loaded) == ["train"]
    rows = loaded["train"]
    assert rows.column_names == [*COLUMNS, *EXPORT_COLUMNS]
    assert len(rows) == report.rows == 40
    by_id = {one.id: one for one in stored}
    assert {row["id"]: row["tier"] for row in rows} == graded(stored)
    for row in rows:
        crop = by_id[row["id"]].crop if "crop" in by_id[row["id"]].consent_scopes else b""
        assert (row["image"] is not None) == bool(crop)
        if crop:
            assert np.array_equal(np.asarray(row["image"]), np.asarray(Image.open(io.BytesIO(crop))))
    assert sum(row["image"] is not None for row in rows) == report.crops > 0


def test_a_batch_loads_with_datasets(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    (tmp_path / "one.parquet").write_bytes(encode(varied(6)))
    rows = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "one.parquet"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert isinstance(rows.features["image"], datasets.Image)
    assert rows.features.arrow_schema.remove_metadata().equals(SCHEMA.remove_metadata())


def test_an_export_leaves_out_what_does_not_count(tmp_path: Path) -> None:
    fine = make_stored(make_record(1), number=1)
    private = make_stored(make_record(2, scopes=("labels",)), number=2, crop=make_crop(2))
    others = {
        "superseded": make_stored(make_record(3), number=3, superseded=True), "reverted": make_stored(make_record(4), reverted=True),
        "rejected": make_stored(make_record(5), review="rejected"), "not to be published": private,
        "below the tier": make_stored(make_record(6)),
    }  # fmt: skip
    tiers = {one.id: "agreed" for one in (fine, *others.values())} | {others["below the tier"].id: "raw"}
    report = export([fine, *others.values()], tmp_path / "all", tiers)
    assert report.left_out == dict.fromkeys(others, 1)
    assert (report.rows, dict(report.by_tier)) == (1, {"agreed": 1})
    [row] = decode((tmp_path / "all" / "data" / "train-00000.parquet").read_bytes())
    assert (row.id, row.tier) == (fine.id, "agreed")
    include_private = export(
        [fine, *others.values()], tmp_path / "own", tiers, ExportOptions(include_private=True)
    )
    assert include_private.rows == 2
    assert "not to be published" not in include_private.left_out
    assert "Not for publication" in (tmp_path / "own" / "README.md").read_text("utf-8")
    rows = decode((tmp_path / "own" / "data" / "train-00000.parquet").read_bytes())
    assert [row.crop for row in rows] == [b"", b""]  # the crop was not agreed to


def test_large_exports_are_several_files(tmp_path: Path) -> None:
    many = [make_stored(make_record(number)) for number in range(FILE_ROWS + 5)]
    report = export(many, tmp_path / "many", {}, ExportOptions("raw", card="A card of mine.\n"))
    sizes = [pq.read_metadata(file).num_rows for file in sorted((tmp_path / "many" / "data").iterdir())]
    assert (report.files, sizes) == (2, [FILE_ROWS, 5])
    assert (tmp_path / "many" / "README.md").read_text("utf-8") == "A card of mine.\n"
    assert load(tmp_path / "many", tmp_path / "cache")["train"].num_rows == FILE_ROWS + 5


def test_an_export_of_nothing_says_why_there_is_nothing(tmp_path: Path) -> None:
    stored = [make_stored(make_record(number), superseded=number == 0) for number in range(3)]
    with refused("empty") as caught:
        export(stored, tmp_path / "none", {})
    assert caught.value.message.values["reasons"] == "1 superseded, 2 below the tier"
    with refused("empty"):
        export([], tmp_path / "none", {})
    assert not (tmp_path / "none").exists()


def test_an_export_takes_no_place_of_anything(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with refused("folder"):
        export([], tmp_path / "full", {})
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "below", tmp_path / "file"):
        with refused("export_write") as caught:
            export([make_stored()], place, {}, ExportOptions("raw"))
        assert str(tmp_path) not in str(caught.value)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "full"]
    with refused("tier"):
        ExportOptions("best")


def test_a_contributor_gets_everything_that_is_kept_of_them(tmp_path: Path) -> None:
    stored = [replace(one, superseded=number == 1) for number, one in enumerate(varied(12))]
    assert export_own(stored, tmp_path / "my-data.json") == 12
    document = json.loads((tmp_path / "my-data.json").read_text("utf-8"))
    for one, given in zip(stored, document["records"], strict=True):
        assert to_json(from_json(FeedbackRecord, given["record"])) == to_json(one)
        assert given["record"]["comment"] == SECRET
        assert base64.b64decode(given["crop_png_base64"]) == one.crop
        assert (given["superseded"], given["state"]) == (one.superseded, one.state)
    assert [item.name for item in tmp_path.iterdir()] == ["my-data.json"]
    with refused("export_write"):
        export_own(stored, tmp_path / "nowhere" / "my-data.json")
