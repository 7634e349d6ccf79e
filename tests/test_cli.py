from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from checkpoint_makers import make_checkpoint
from face_makers import picture_with
from media_makers import write_clip
from PIL import Image

from hsemotion_space.cli import main
from hsemotion_space.media.clips import open_clip
from hsemotion_space.settings import MediaLimits


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_checkpoint(tmp_path / "checkpoints" / "random")
    monkeypatch.setenv("HSEMOTION_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("HSEMOTION_ENGINE", "torch")
    Image.fromarray(picture_with([(10, 20), (170, 60)], (240, 320))).save(tmp_path / "two.png")
    return tmp_path


def test_analyze_prints_and_writes_every_format(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for suffix in ("csv", "json", "parquet"):
        assert main(["analyze", str(workplace / "two.png"), "--out", str(workplace / f"out.{suffix}")]) == 0
    printed = capsys.readouterr().out
    assert "two.png: picture, 320 x 240 px, 2 faces  [random]" in printed
    assert "Compound expression (rule, not trained)" in printed
    assert "the reliability of this checkpoint was not measured" in printed
    rows = list(csv.DictReader((workplace / "out.csv").read_text("utf-8").splitlines()))
    table = pq.read_table(workplace / "out.parquet").to_pylist()
    faces = json.loads((workplace / "out.json").read_text("utf-8"))
    assert len(rows) == len(table) == 2
    assert float(rows[1]["expression.Anger"]) == pytest.approx(table[1]["expression.Anger"])
    assert rows[0]["source"] == "two.png"
    assert "two.png" in json.dumps(faces)


def test_a_clip_is_rendered_and_a_spreadsheet_reads_its_name(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = workplace / "\u0444\u043e\u0442\u043e \U0001f600.ts"
    write_clip(clip, [picture_with([(10, 20)], (240, 320))] * 5, kind="mpegts", audio="aac")
    out, table = workplace / "faces.mp4", workplace / "faces.csv"
    assert main(["analyze", str(clip), "--render", str(out), "--out", str(table), "--csv-bom"]) == 0
    assert f"Wrote {out}" in capsys.readouterr().out
    assert table.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(table.read_text("utf-8-sig").splitlines()))
    assert len(rows) == 5 and rows[0]["source"] == clip.name and rows[0]["checkpoint_license"]
    frame = next(iter(open_clip(out, MediaLimits(), 0)))
    assert np.abs(frame.rgb.astype(int) - picture_with([(10, 20)], (240, 320))).max() > 100


def test_a_bad_file_does_not_stop_the_others(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "bad.jpg").write_bytes(b"nothing")
    assert main(["analyze", str(workplace / "bad.jpg"), str(workplace / "two.png")]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("hsemotion-space: bad.jpg: ")
    assert "two.png" in captured.out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--out", "x.xlsx"], "--out must be a folder or end in"),
        (["--fps", "1000"], "sample_fps"),
        (["--checkpoint", "none"], "'none'"),
        (["--out", "missing-folder/x.csv"], "Cannot write"),
        (["--resume"], "need --out FOLDER"),
        (["--out", "x.csv", "--embeddings"], "need --out FOLDER"),
    ],
)
def test_wrong_calls_say_what_is_wrong(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    assert main(["analyze", str(workplace / "two.png"), *arguments]) == 2
    assert text in capsys.readouterr().err


def test_ray_is_asked_for_before_anything_is_written(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["analyze", str(workplace), "--out", str(workplace / "study"), "--engine", "ray"]) == 2
    assert "pip install" in capsys.readouterr().err and not (workplace / "study").exists()


def test_checkpoints_are_listed_with_their_provenance(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["checkpoints", "list"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("random  ")
    assert "Compound expression: rule, not trained" in printed
