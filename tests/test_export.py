"""Exports: round trips through the three formats, safety of text cells, and documentation that names every
column."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from analysis_makers import make_analysis
from error_codes import raises_code
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hsemotion_space.analysis import export
from hsemotion_space.analysis.events import events, shares
from hsemotion_space.analysis.image_quality import face_sharpness
from hsemotion_space.analysis.markers import write_markers
from hsemotion_space.edits import Edits, Marker
from hsemotion_space.tasks import ACTION_UNITS, EXPRESSION, MIMICRY_INTENSITY, TASKS
from hsemotion_space.types import Analysis, Timeline

DOCS = Path(__file__).parent.parent / "docs" / "export.md"
SIGNS = "=+-@\t\r|\uff1d\uff0b\uff0d\uff20\uff5c"


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def faceless() -> Analysis:
    return dataclasses.replace(make_analysis(1, 5, seed=9), faces=())


def with_neutral(analysis: Analysis) -> Analysis:
    """Return an analysis whose first face has a name and a neutral at which every value is 0.25."""

    def neutral(line: Timeline) -> Timeline:
        comparable = line.task.kind != "one_of" and line.task.scope == "frame"
        marked = np.full(len(line.task.labels), 0.25, np.float32)
        return dataclasses.replace(line, neutral=marked) if comparable else line

    first, *others = analysis.faces
    first = dataclasses.replace(first, timelines=tuple(map(neutral, first.timelines)))
    edits = Edits(
        {1: "=Anna"}, {}, {1: 0.5}, (Marker("event", 0.2, 0.2, "@smile"), Marker("exclusion", 0, 0.1))
    )
    return dataclasses.replace(analysis, faces=(first, *others), edits=edits)


def test_export_has_names_values_relative_to_neutral_and_markers(tmp_path: Path) -> None:
    analysis = with_neutral(make_analysis(2, 12))
    rows = read_csv(export.write([analysis], tmp_path / "a.csv"))
    assert [row["face.name"] for row in rows] == ["'=Anna"] * 12 + [""] * 8
    for row in rows:
        named = row["track_id"] == "1"
        for column in ("valence_arousal.Arousal", "action_units.AU12"):
            relative = row[f"{column}.relative"]
            assert relative == (str(np.float32(row[column]) - np.float32(0.25)) if named else "")
        words = {"1": "trained, relative to your neutral", "2": ""}[row["track_id"]]
        assert row["action_units.relative.provenance"] == words
    assert not any(name.startswith("expression") and "relative" in name for name in rows[0])
    [entry] = export.document([analysis])["analyses"]  # type: ignore[misc]
    one, other = entry["faces"]
    assert (one["name"], one["neutral_time_s"], one["timelines"][1]["neutral"]) == ("=Anna", 0.5, [0.25] * 2)
    assert not {"name", "neutral_time_s"} & set(other) and "neutral" not in other["timelines"][1]
    table = read_csv(write_markers(analysis, tmp_path / "m.csv"))
    assert [(row["kind"], row["start_s"], row["end_s"], row["label"]) for row in table] == [
        ("exclusion", "0", "0.1", ""),
        ("event", "0.2", "0.2", "'@smile"),
    ]
    assert [row["media_sha256"] for row in table] == [analysis.media.sha256] * 2


def test_csv_holds_every_face_and_frame_with_exact_numbers(tmp_path: Path) -> None:
    analysis = make_analysis(2, 30)
    rows = read_csv(export.write([analysis], tmp_path / "a.csv", ["clip.mp4"]))
    assert len(rows) == 30 + 20
    assert [row["track_id"] for row in rows] == ["1"] * 30 + ["2"] * 20
    for face in analysis.faces:
        mine = [row for row in rows if row["track_id"] == str(face.track.track_id)]
        assert [int(row["frame_index"]) for row in mine] == face.track.frame_index.tolist()
        assert [float(row["time_s"]) for row in mine] == face.track.times_s.tolist()
        boxes = [[np.float32(row[f"box_{name}_px"]) for name in ("x0", "y0", "x1", "y1")] for row in mine]
        np.testing.assert_array_equal(boxes, face.track.boxes_xyxy)
        np.testing.assert_array_equal(
            [np.float32(row["detection_score"]) for row in mine], face.track.detection_scores
        )
        for line in face.timelines:
            cells = [
                [np.float32(row[export.label_column(line.task, name)]) for name in line.task.label_names]
                for row in mine
            ]
            np.testing.assert_array_equal(
                cells, np.broadcast_to(line.values, (len(mine), len(line.task.labels)))
            )
            assert {row[export.provenance_column(line.task)] for row in mine} == {line.provenance}
    assert {(row["media_sha256"], row["media_kind"], row["source"]) for row in rows} == {
        (analysis.media.sha256, "clip", "clip.mp4")
    }
    assert {(row["checkpoint_id"], row["checkpoint_sha256"], row["schema_version"]) for row in rows} == {
        ("starter", "c" * 64, "2")
    }


def test_parquet_and_csv_say_the_same(tmp_path: Path) -> None:
    analyses = [with_neutral(make_analysis(2, 12)), make_analysis(3, 1, kind="image", seed=1)]
    parquet = pq.read_table(export.write(analyses, tmp_path / "a.parquet"))
    rows = read_csv(export.write(analyses, tmp_path / "a.csv"))
    assert parquet.column_names == list(rows[0]) == list(export.COLUMNS)
    assert parquet.num_rows == len(rows) == 12 + 8 + 3
    assert parquet.schema.types == [pa.type_for_alias(kind) for kind, _ in export.COLUMNS.values()]
    assert (
        parquet.schema.field("action_units.AU12").metadata[b"description"]
        == export.COLUMNS["action_units.AU12"][1].encode()
    )
    assert parquet.schema.metadata[b"schema_version"] == b"2"
    np.testing.assert_array_equal(
        parquet["valence_arousal.Valence"].to_numpy(),
        np.asarray([np.float32(row["valence_arousal.Valence"]) for row in rows]),
    )


def test_json_is_strict_nested_and_exact(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    analyses = [make_analysis(2, 30), make_analysis(1, 1, kind="image", seed=1), faceless()]
    path = export.write(analyses, tmp_path / "a.json", ["clip.mp4", "bild\u00e4.jpg", "leer.mp4"])
    read = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    assert read["schema_version"] == export.SCHEMA_VERSION
    assert [entry["source"] for entry in read["analyses"]] == ["clip.mp4", "bild\u00e4.jpg", "leer.mp4"]
    first, image, nobody = read["analyses"]
    assert nobody["faces"] == [] and nobody["frame_times_s"] == analyses[2].frame_times_s.tolist()
    assert first["media"] == dataclasses.asdict(analyses[0].media) | {
        "notices": list(analyses[0].media.notices)
    }
    assert first["checkpoint"] == dataclasses.asdict(analyses[0].checkpoint)
    assert first["notices"] == ["A face was too small."]
    for face, entry in zip(analyses[0].faces, first["faces"], strict=True):
        frame_lines = [line for line in face.timelines if line.task.scope == "frame"]
        np.testing.assert_array_equal(np.float32(entry["boxes_xyxy_px"]), face.track.boxes_xyxy)
        assert (
            entry["times_s"] == face.track.times_s.tolist()
            and entry["frame_index"] == face.track.frame_index.tolist()
        )
        for line, made in zip(frame_lines, entry["timelines"], strict=True):
            assert (made["task"], made["provenance"], made["labels"]) == (
                line.task.name,
                line.provenance,
                list(line.task.label_names),
            )
            np.testing.assert_array_equal(np.float32(made["values"]), line.values)
        (clip,) = entry["clip_values"]
        assert (
            clip["task"] == "mimicry_intensity" and clip["provenance"] == "prior" and len(clip["values"]) == 6
        )
        for prediction, made in zip(face.predictions, entry["predictions"], strict=True):
            np.testing.assert_array_equal(np.float32(made["values"]), prediction.values)
            assert made["frames"] == prediction.frames
            if prediction.task.scope == "frame":
                np.testing.assert_array_equal(np.float32(made["spread"]), prediction.spread)
    assert image["faces"][0]["predictions"][0]["spread"] == [None] * 8
    assert not {"embeddings", "thumbnail"} & set(first["faces"][0])


def turned_face() -> Analysis:
    """Return a clip with a cut before its fifth frame, a face that leaves the picture, and landmarks."""
    analysis = make_analysis(1, 10, gap=False)
    face = analysis.faces[0]
    boxes = np.tile(np.float32([10, 20, 90, 120]), (10, 1))
    boxes[7] = -40, 20, 40, 120
    points = np.tile(np.float32([[30, 60], [70, 60], [60, 80], [40, 100], [60, 100]]), (10, 1, 1))
    points[3] = np.nan
    track = dataclasses.replace(face.track, boxes_xyxy=boxes, landmarks=points)
    lines = tuple(dataclasses.replace(line, half_width_s=0.25) for line in face.timelines)
    return dataclasses.replace(
        analysis,
        faces=(dataclasses.replace(face, track=track, timelines=lines),),
        checkpoint=dataclasses.replace(analysis.checkpoint, license="research use only"),
        cuts_s=analysis.frame_times_s[4:5],
    )


def test_rows_tell_how_far_to_trust_them(tmp_path: Path) -> None:
    analysis = turned_face()
    face = analysis.faces[0]
    rows = pq.read_table(export.write([analysis], tmp_path / "a.parquet")).to_pylist()
    assert [row["shot"] for row in rows] == [1] * 4 + [2] * 6
    assert {row["face_side_px"] for row in rows} == {80}
    assert [row["face_outside"] for row in rows] == [0] * 7 + [0.5] + [0] * 2
    assert [row["yaw"] for row in rows] == [0.25] * 3 + [None] + [0.25] * 6
    assert {row["sharpness"] for row in rows} == {np.float32(face_sharpness(face.track, analysis.media))}
    assert {row["checkpoint_license"] for row in rows} == {"research use only"}
    assert {row["expression.smoothing_s"] for row in rows} == {0.25}
    for row, values in zip(rows, face.timelines[0].values, strict=True):
        second, first = np.sort(values)[-2:]
        assert row["expression.top"] == EXPRESSION.label_names[values.argmax()]
        assert row["expression.top.lead"] == first - second
    read = json.loads(export.write([analysis], tmp_path / "a.json").read_text("utf-8"))["analyses"][0]
    assert read["cuts_s"] == analysis.cuts_s.tolist() and read["checkpoint"]["license"] == "research use only"
    assert read["faces"][0]["outside"][7] == 0.5
    assert read["faces"][0]["yaw_pitch_roll_deg"][2:4] == [[0.25, 0.5, 0.0], [None] * 3]


def test_csv_with_a_byte_order_mark_is_utf_8_for_spreadsheets(tmp_path: Path) -> None:
    analysis, names = make_analysis(1, kind="image"), ["\u0444\u043e\u0442\u043e \U0001f600.jpg"]
    plain = export.write([analysis], tmp_path / "a.csv", names).read_bytes()
    marked = export.write([analysis], tmp_path / "b.csv", names, bom=True).read_bytes()
    assert marked == b"\xef\xbb\xbf" + plain


def test_document_has_events_and_shares_of_time_of_a_clip() -> None:
    analysis = make_analysis(1, 30)
    [face] = export.document([analysis])["analyses"][0]["faces"]  # type: ignore[index, call-overload]
    [line] = [one for one in face["timelines"] if one["task"] == "expression"]
    [timeline] = [one for one in analysis.faces[0].timelines if one.task is EXPRESSION]
    assert [event["label"] for event in line["events"]] == [
        EXPRESSION.labels[one.column].name for one in events(timeline)
    ]
    assert line["events"] and line["share_of_time"] == pytest.approx(shares(timeline).tolist(), abs=1e-4)


def test_values_that_are_not_finite_are_null_everywhere(tmp_path: Path) -> None:
    analysis = make_analysis(1, 4, gap=False, tasks=(EXPRESSION,))
    line = analysis.faces[0].timelines[0]
    line.values[1, 0], line.values[2, 0] = np.nan, np.inf
    rows = read_csv(export.write([analysis], tmp_path / "a.csv"))
    assert [row["expression.Anger"] == "" for row in rows] == [False, True, True, False]
    assert export.table([analysis])["expression.Anger"].null_count == 2
    made = json.loads(export.write([analysis], tmp_path / "a.json").read_text("utf-8"))
    assert [row[0] is None for row in made["analyses"][0]["faces"][0]["timelines"][0]["values"]] == [
        False,
        True,
        True,
        False,
    ]


def test_checkpoints_with_different_labels_share_a_file(tmp_path: Path) -> None:
    seven = EXPRESSION.subset(["Surprise", "Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sadness"])
    one, two = (
        make_analysis(1, 3, gap=False, tasks=(seven,)),
        make_analysis(1, 2, tasks=(EXPRESSION, MIMICRY_INTENSITY), seed=1),
    )
    rows = read_csv(export.write([one, two], tmp_path / "a.csv"))
    labels = [name for name in rows[0] if "." in name]
    assert labels == [
        *(f"expression.{name}" for name in EXPRESSION.label_names),
        "expression.top",
        "expression.top.lead",
        "expression.top.precision",
        "expression.top.answers",
        "expression.smoothing_s",
        "expression.provenance",
        *(f"clip.mimicry_intensity.{name}" for name in MIMICRY_INTENSITY.label_names),
        "mimicry_intensity.provenance",
    ]
    assert [row["expression.Contempt"] == "" for row in rows] == [True] * 3 + [False] * 2
    assert [row["mimicry_intensity.provenance"] for row in rows] == [""] * 3 + ["prior"] * 2
    assert np.float32(rows[0]["expression.Surprise"]) == one.faces[0].timelines[0].values[0, 0]
    alone = read_csv(export.write([one], tmp_path / "b.csv"))
    assert "expression.Contempt" not in alone[0] and not any(
        name.startswith("action_units") for name in alone[0]
    )


def test_frames_filled_by_smoothing_have_values_but_no_box(tmp_path: Path) -> None:
    analysis = make_analysis(1, 6, gap=True, tasks=(EXPRESSION,))
    face = analysis.faces[0]
    assert len(face.track.times_s) == 4
    filled = Timeline(EXPRESSION, "trained", analysis.frame_times_s, np.full((6, 8), 0.125, np.float32))
    analysis = dataclasses.replace(analysis, faces=(dataclasses.replace(face, timelines=(filled,)),))
    rows = read_csv(export.write([analysis], tmp_path / "a.csv"))
    assert [row["box_x0_px"] == "" for row in rows] == [False, False, True, True, False, False]
    assert [row["frame_index"] for row in rows] == ["0", "3", "", "", "12", "15"]
    assert {row["expression.Fear"] for row in rows} == {"0.125"}
    np.testing.assert_allclose([float(row["time_s"]) for row in rows], analysis.frame_times_s, atol=1e-9)


def test_no_face_gives_a_header(tmp_path: Path) -> None:
    path = export.write([faceless()], tmp_path / "a.csv")
    header = next(csv.reader(path.read_text("utf-8").splitlines()))
    assert read_csv(path) == [] and header == [name for name in export.COLUMNS if "." not in name]
    table = pq.read_table(export.write([faceless()], tmp_path / "a.parquet"))
    assert table.num_rows == 0 and table.column_names == header
    assert export.write([], tmp_path / "b.csv").read_bytes() == path.read_bytes()


@settings(deadline=None)
@given(st.text(max_size=12) | st.text(st.sampled_from(SIGNS + " a1\n\u200b\ufeff,;\"'"), max_size=6))
def test_no_text_cell_starts_a_formula(text: str) -> None:
    safe = export.safe_cell(text)
    assert safe in (text, f"'{text}")
    assert not safe.startswith(tuple(SIGNS))
    assert not safe.strip().startswith(tuple(SIGNS.strip()))
    if re.match(r"[\w.]", text):
        assert safe == text


@settings(max_examples=40, deadline=None)
@example("clip\udcff.mp4")  # a file name that is not UTF-8
@given(st.text(max_size=20))
def test_any_source_survives_a_csv_file(tmp_path_factory: pytest.TempPathFactory, source: str) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    (row,) = read_csv(export.write([make_analysis(1, kind="image", tasks=(EXPRESSION,))], path, [source]))
    assert row["source"] == export.safe_cell(source.encode("utf-8", "replace").decode())
    assert None not in row and all(value is not None for value in row.values())


@pytest.mark.parametrize("sign", SIGNS)
def test_text_is_guarded_and_numbers_are_not(tmp_path: Path, sign: str) -> None:
    analysis = make_analysis(1, 30)
    rows = read_csv(export.write([analysis], tmp_path / "a.csv", [f"{sign}cmd"]))
    assert {row["source"] for row in rows} == {f"'{sign}cmd"}
    valence = [row["valence_arousal.Valence"] for row in rows]
    assert any(cell.startswith("-") for cell in valence) and all(float(cell) <= 1 for cell in valence)
    assert (
        pq.read_table(export.write([analysis], tmp_path / "a.parquet", [f"{sign}cmd"]))["source"][0].as_py()
        == f"{sign}cmd"
    )


@pytest.mark.parametrize("name", ["a.xlsx", "a", "csv", "a.csv.gz"])
def test_other_suffixes_are_refused_with_the_choices(tmp_path: Path, name: str) -> None:
    with raises_code(export.ExportError, "unknown_suffix"):
        export.write([make_analysis()], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_suffix_may_be_upper_case(tmp_path: Path) -> None:
    assert len(read_csv(export.write([make_analysis(1, 3, gap=False)], tmp_path / "A.CSV"))) == 3


def test_wrong_number_of_sources_is_refused(tmp_path: Path) -> None:
    for name in ("a.csv", "a.json"):
        with raises_code(export.ExportError, "source_count"):
            export.write([make_analysis()], tmp_path / name, ["a", "b"])


@pytest.mark.parametrize("suffix", export.SUFFIXES)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("old")

    def full(self: Path, target: Path) -> None:
        assert self.stat().st_size > 0 and target.read_text() == "old"  # complete before the old file goes
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with raises_code(export.ExportError, "unwritable"):
        export.write([make_analysis()], path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name] and path.read_text() == "old"


def test_write_into_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("nowhere", "file"):
        for suffix in export.SUFFIXES:
            with raises_code(export.ExportError, "unwritable"):
                export.write([make_analysis()], tmp_path / folder / f"a{suffix}")


def test_columns_cover_all_tasks_in_the_public_order() -> None:
    names = list(export.COLUMNS)
    for task in TASKS:
        places = [names.index(export.label_column(task, name)) for name in task.label_names]
        assert places == list(range(places[0], places[0] + len(task.labels)))
    assert export.label_column(ACTION_UNITS, "AU12") == "action_units.AU12"
    assert export.label_column(MIMICRY_INTENSITY, "Joy") == "clip.mimicry_intensity.Joy"


def test_documentation_has_every_column_and_no_other() -> None:
    documented = re.findall(
        r"^\| `([a-z][^`]*)` \| (string|int64|float64|float32) \| (.+) \|$",
        DOCS.read_text("utf-8"),
        re.MULTILINE,
    )
    assert {name: (kind, about) for name, kind, about in documented} == export.COLUMNS
    assert len(documented) == len(export.COLUMNS)
    assert f"schema version {export.SCHEMA_VERSION}" in DOCS.read_text("utf-8")


def test_the_table_schema_describes_every_column(tmp_path: Path) -> None:
    described = json.loads((DOCS.parent / "export.schema.json").read_text("utf-8"))
    assert described == export.table_schema()
    fields = {field["name"]: field for field in described["fields"]}
    assert list(fields) == list(export.COLUMNS)
    read = {"string": str, "integer": int, "number": float}
    for row in read_csv(export.write([make_analysis(2, 12), turned_face()], tmp_path / "a.csv")):
        for name, cell in row.items():
            if cell not in described["missingValues"]:
                value, bounds = read[fields[name]["type"]](cell), fields[name].get("constraints")
                assert bounds is None or bounds["minimum"] <= value <= bounds["maximum"]


def test_documentation_names_every_key_of_the_document() -> None:
    text = DOCS.read_text("utf-8")
    described = text[text.index("## Document") :]

    def keys(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {key for part in value.values() for key in keys(part)}
        return {key for part in value for key in keys(part)} if isinstance(value, list) else set()

    missing = {
        key
        for key in keys(export.document([with_neutral(make_analysis())]))
        if not re.search(rf"\b{key}\b", described)
    }
    assert not missing
