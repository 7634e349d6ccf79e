"""Inputs, the folder of a study and streamed files, without a network."""

from __future__ import annotations

import csv
import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from analysis_makers import make_analysis
from error_codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from hsemotion_space.analysis.embeddings import embedding_table
from hsemotion_space.analysis.events import events, shares
from hsemotion_space.analysis.export import ExportError, label_column, table, write
from hsemotion_space.analysis.summary import SUMMARY_COLUMNS, summarize
from hsemotion_space.batch.folder import EMBEDDINGS, FACES, FolderError, ResultFolder
from hsemotion_space.batch.inputs import Input, InputError, find_inputs, local_copy, version_of
from hsemotion_space.batch.records import MANIFEST_COLUMNS, Record, Study
from hsemotion_space.batch.stream import ExportStream
from hsemotion_space.media.formats import MediaError
from hsemotion_space.settings import PipelineConfig, Settings

STUDY = Study(Settings(), PipelineConfig(), False, "starter", "c" * 64, "")
TABLE = pa.table({"source": ["x"]})
DOCS = Path(__file__).parent.parent / "docs" / "study.md"


def sources(*arguments: object) -> list[str]:
    return [item.source for item in find_inputs([str(argument) for argument in arguments])[0]]


def faults(*arguments: object) -> dict[str, str]:
    found, _ = find_inputs([str(argument) for argument in arguments])
    return {item.source: item.fault.code for item in found if item.fault}


def put(path: Path, content: bytes = b"\xff\xd8\xff") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_files_folders_patterns_and_lists_name_each_input_once(tmp_path: Path) -> None:
    for name in ("a/x.jpg", "a/deep/x.jpg", "b/x.jpg", "a/.hidden/x.jpg", "b/[1].jpg"):
        put(tmp_path / name)
    put(tmp_path / "a" / "no suffix")
    put(tmp_path / "a" / "labels.csv", b"text")
    put(tmp_path / "a" / "damaged.png", b"text")
    listed = put(tmp_path / "list.txt", f"{tmp_path}/b/x.jpg\r\n\n{tmp_path}/b/[1].jpg\n".encode())
    inside = ["damaged.png", "no suffix", "x.jpg", "deep/x.jpg"]
    assert sources(tmp_path / "a") == inside
    assert find_inputs([str(tmp_path / "a")])[1] == 1
    assert sources(tmp_path / "a", tmp_path / "a" / "x.jpg") == inside
    assert sources(tmp_path / "a" / "x.jpg") == ["x.jpg"]
    assert sources(tmp_path / "a" / "x.jpg", f"@{listed}") == ["a/x.jpg", "b/x.jpg", "b/[1].jpg"]
    assert sources(tmp_path / "*" / "x.jpg") == ["a/x.jpg", "b/x.jpg"]
    assert sources(tmp_path / "**" / "deep") == ["a/deep/x.jpg"]


def test_what_is_no_file_has_words_of_its_own(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").symlink_to("nowhere")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    names = ("pipe", "socket", "empty", "broken", "none.jpg", "*.nothing")
    assert faults(*(tmp_path / name for name in names)) == {
        "pipe": "not_a_file", "socket": "not_a_file", "empty": "empty_folder", "broken": "missing",
        "none.jpg": "missing", "*.nothing": "no_match",
    }  # fmt: skip
    with raises_code(InputError, "list", name=f"{tmp_path}/none.txt"):
        find_inputs([f"@{tmp_path}/none.txt"])


def test_names_that_are_no_text_stay_apart(tmp_path: Path) -> None:
    for byte in (b"\xff", b"\xfe"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + byte + b".jpg")).write_bytes(b"\xff\xd8\xff")
    assert sorted(sources(tmp_path)) == [r"\udcfe.jpg", r"\udcff.jpg"]


def test_remote_files_are_listed_and_copied() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("/study/a/x.mp4", "/study/b/x.mp4", "/study/notes.txt"):
        memory.pipe(name, name.encode())
    found, others = find_inputs(["memory://study"])
    assert ([item.source for item in found], others) == (["a/x.mp4", "b/x.mp4"], 1)
    assert sources("memory://study/*/x.mp4") == ["a/x.mp4", "b/x.mp4"]
    with local_copy(found[0].path) as file:
        assert file.read_bytes() == b"/study/a/x.mp4"
    assert not file.exists()
    before = version_of(found[0].path)
    memory.pipe("/study/a/x.mp4", b"longer than it was before")
    assert version_of(found[0].path) != before
    assert faults("memory://study/none.mp4") == {"none.mp4": "missing"}
    with raises_code(MediaError, "not_downloaded"), local_copy("memory://study/none.mp4"):
        pass
    with raises_code(InputError, "remote"):
        find_inputs(["nosuchprotocol://study"])


def record(item: Input, **changes: object) -> Record:
    digest = version_of(item.path)
    done = replace(
        Record.started(item, STUDY), status="done", digest=digest, version=digest, file=f"{digest}.parquet"
    )
    return replace(done, **changes)  # type: ignore[arg-type]


def items(folder: Path, count: int = 3) -> list[Input]:
    for number in range(count):
        put(folder / f"{number}.jpg", b"\xff\xd8\xff%d" % number)
    return find_inputs([str(folder)])[0]


def names(inputs: list[Input]) -> list[str]:
    return [item.source for item in inputs]


def rows(folder: Path, name: str = "manifest") -> list[dict[str, object]]:
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def test_a_result_counts_for_the_same_content_name_and_settings(tmp_path: Path) -> None:
    inputs = items(tmp_path / "in")
    with ResultFolder(tmp_path / "out") as folder:
        for item in inputs[:2]:
            folder.add(record(item), {FACES: TABLE})
        folder.add(Record.failed(inputs[2], STUDY, "damaged", "It is damaged."))
    with raises_code(FolderError, "has_results"):
        ResultFolder(tmp_path / "out")
    again = ResultFolder(tmp_path / "out", resume=True)
    assert names(again.pending(inputs, STUDY)) == ["2.jpg"]
    assert len(again.pending(inputs, replace(STUDY, config=PipelineConfig(end_s=5)))) == 3
    assert len(again.pending(inputs, replace(STUDY, checkpoint_sha256="d" * 64))) == 3
    assert len(again.pending([replace(item, source="other") for item in inputs], STUDY)) == 3
    put(Path(inputs[0].path), b"\xff\xd8\xffnew")
    assert names(again.pending(inputs, STUDY)) == ["0.jpg", "2.jpg"]
    with again:
        again.add(record(inputs[0]), {FACES: TABLE})
    assert sorted(file.name for file in (tmp_path / "out" / FACES).iterdir()) == sorted(
        str(row["file"]) for row in rows(tmp_path / "out") if row["file"]
    )
    (tmp_path / "out" / FACES / record(inputs[1]).file).unlink()
    assert names(ResultFolder(tmp_path / "out", resume=True).pending(inputs, STUDY)) == ["1.jpg", "2.jpg"]


def test_parts_write_to_one_folder(tmp_path: Path) -> None:
    inputs = items(tmp_path / "in", 4)
    first = ResultFolder(tmp_path / "out", "1-of-2")
    with ResultFolder(tmp_path / "out", "2-of-2") as second:
        first.add(record(inputs[0]), {FACES: TABLE}, summarize(make_analysis(), "0.jpg"))
        second.add(record(inputs[1]), {FACES: TABLE})
    first.add(record(inputs[2]), {FACES: TABLE})
    first.finish()
    assert [row["source"] for row in rows(tmp_path / "out")] == ["0.jpg", "1.jpg", "2.jpg"]
    assert set(rows(tmp_path / "out")[0]) == MANIFEST_COLUMNS.keys()
    assert {row["source"] for row in rows(tmp_path / "out", "summary")} == {"0.jpg"}
    assert names(ResultFolder(tmp_path / "out", resume=True).pending(inputs, STUDY)) == ["3.jpg"]


@given(cut=st.floats(0, 1))
def test_a_journal_that_ends_anywhere_is_completed(
    tmp_path_factory: pytest.TempPathFactory, cut: float
) -> None:
    place = tmp_path_factory.mktemp("cut")
    inputs = items(place / "in")
    folder = ResultFolder(place / "out")
    for item in inputs:
        folder.add(Record.started(item, STUDY))
        folder.add(record(item, error="Zeilen\num\u2028bruch \udcff"), {FACES: TABLE})
    journal = place / "out" / "journal" / "all.jsonl"
    content = journal.read_bytes()
    journal.write_bytes(content[: round(cut * len(content))])
    with ResultFolder(place / "out", resume=True) as again:
        for item in again.pending(inputs, STUDY):
            again.add(record(item), {FACES: TABLE})
    assert [row["source"] for row in rows(place / "out")] == names(inputs)
    assert {row["status"] for row in rows(place / "out")} == {"done"}
    assert not ResultFolder(place / "out", resume=True).pending(inputs, STUDY)


def test_what_ended_the_process_comes_last(tmp_path: Path) -> None:
    inputs = items(tmp_path / "in")
    ResultFolder(tmp_path / "out").add(Record.started(inputs[0], STUDY))
    again = ResultFolder(tmp_path / "out", resume=True)
    assert names(again.pending(inputs, STUDY)) == ["1.jpg", "2.jpg", "0.jpg"]


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path: Path) -> None:
    put(tmp_path / "file")
    with raises_code(FolderError, "unwritable", name="out"):
        ResultFolder(tmp_path / "file" / "out")


def test_a_summary_says_what_predictions_shares_and_events_say() -> None:
    analysis = make_analysis(2, 40)
    made = summarize(analysis, "clip.mp4")
    assert [row["track_id"] for row in made] == [1, 2]
    for face, row in zip(analysis.faces, made, strict=True):
        assert row.keys() <= SUMMARY_COLUMNS.keys()
        for line, prediction in zip(face.timelines, face.predictions, strict=True):
            for column, label in enumerate(line.task.label_names):
                name = label_column(line.task, label)
                assert row[f"{name}.mean"] == pytest.approx(prediction.values[column])
                if line.task.kind == "one_of":
                    assert row[f"{name}.share"] == pytest.approx(shares(line)[column])
                    assert row[f"{name}.events"] == [event.column for event in events(line)].count(column)


def test_embeddings_are_lists_of_fixed_size() -> None:
    analysis = make_analysis(2, 12)
    table = embedding_table(analysis, "clip.mp4")
    assert table.schema.field("embedding").type.list_size == 4
    tracks = [face.track for face in analysis.faces]
    assert table["embedding"].to_pylist() == [row for track in tracks for row in track.embeddings.tolist()]
    assert table["scores"].to_pylist() == [row for track in tracks for row in track.scores.tolist()]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_a_streamed_file_is_the_file_that_is_written_at_once(tmp_path: Path, suffix: str) -> None:
    faceless = replace(make_analysis(1, 5, seed=9), faces=())
    analyses = [faceless, make_analysis(3, kind="image"), make_analysis(2, 30, seed=1), faceless]
    labels = ["=1", "b.png", 'c, "d"\n.mp4', "e"]
    for count in (0, 1, 4):
        with ExportStream(tmp_path / f"stream.{suffix}") as stream:
            for analysis, label in zip(analyses[:count], labels, strict=False):
                stream.add(analysis, label)
        write(analyses[:count], tmp_path / f"once.{suffix}", labels[:count])
        assert content(tmp_path / f"stream.{suffix}") == content(tmp_path / f"once.{suffix}")
    assert len(list(tmp_path.iterdir())) == 2


def content(path: Path) -> object:
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return table.schema, table.schema.metadata, table.to_pylist()
    return path.read_bytes() if path.suffix == ".csv" else json.loads(path.read_text("utf-8"))


def test_a_streamed_file_is_written_when_the_user_stops_and_not_after_an_error(tmp_path: Path) -> None:
    for error, written in ((KeyboardInterrupt, True), (ValueError, False)):
        path = tmp_path / f"{error.__name__}.csv"
        with pytest.raises(error), ExportStream(path) as stream:
            stream.add(make_analysis(1, 5, gap=False), "a")
            raise error
        assert path.exists() == written
    with path.with_name("KeyboardInterrupt.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 5
    with raises_code(ExportError, "unwritable"):
        ExportStream(tmp_path / "none" / "x.csv")


def test_the_page_about_studies_lists_every_column_and_its_programs_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = DOCS.read_text("utf-8")
    for name, (kind, about) in MANIFEST_COLUMNS.items():
        assert f"| `{name}` | {kind} | {about} |" in text
    assert {f"`{name}`" for name in list(SUMMARY_COLUMNS)[:10]} <= set(re.findall("`[a-z0-9_]+`", text))
    with ResultFolder(tmp_path / "RESULTS") as folder:
        for number, item in enumerate(items(tmp_path / "in", 4)):
            analysis = make_analysis(1, 40, gap=False, seed=number)
            tables = {
                FACES: table([analysis], [item.source]),
                EMBEDDINGS: embedding_table(analysis, item.source),
            }
            folder.add(record(item, file=f"{number}.parquet"), tables, summarize(analysis, item.source))
    rows = [f"{number}.jpg,{number},{start},{start + 2},{start}" for number in range(4) for start in (0, 2)]
    (tmp_path / "labels.csv").write_text("\n".join(["source,person,start_s,end_s,label", *rows]))
    monkeypatch.chdir(tmp_path)
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        exec(program, {})
    assert "weighted avg" in capsys.readouterr().out and (tmp_path / "study.html").exists()
    assert len(programs[1].splitlines()) <= 20
