"""Continuous ratings as labels: means of people and passes at the frames of a clip, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from error_codes import raises_code
from feedback_makers import BEN, make_trace, refused

from hsemotion_space.cli import main
from hsemotion_space.feedback.dataset import encode
from hsemotion_space.feedback.export import export_traces
from hsemotion_space.feedback.trace import agreements
from hsemotion_space.tasks import VALENCE_AROUSAL
from hsemotion_space.training.files import DataError
from hsemotion_space.training.formats.annotations import read_labels
from hsemotion_space.training.formats.traces import read_traces

LEVEL = np.linspace(0, 0.6, 61)


def flat(value: float, number: int = 0, **changes: object) -> object:
    return replace(make_trace(number, **changes), values=tuple((LEVEL + value).round(4).tolist()))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    traces = [
        flat(0.0), flat(0.2, attempt="second"), flat(-0.3, contributor=BEN), flat(0.1, contributor=BEN, attempt="repair"),
        flat(0.9, 1, attempt="second", bounded=False, contributor="c" * 32), flat(-0.5, dimension="Arousal"),
    ]  # fmt: skip
    out = tmp_path / "traces.parquet"
    out.write_bytes(encode(traces))
    return out


def test_labels_are_the_mean_of_people_at_the_frames_of_the_clip(file: Path, tmp_path: Path) -> None:
    [series] = read_traces([file], 25)
    assert series.video == make_trace().clip and len(series.frames) == 151
    times = np.arange(151) / 25
    expected = np.stack([0.1 * times + 0.1, 0.1 * times - 0.5], 1)
    assert series.values == pytest.approx(expected, abs=1e-4), (
        "a mean of Anna's two passes and of Ben's repair"
    )
    [earlier] = read_traces([file.parent], 25, lag_s=2)
    assert earlier.values == pytest.approx(series.values[50:], abs=1e-4)
    command = ["learn", "traces", file, "--frame-rate", 25, "--lag", 2, "--out", tmp_path / "labels"]
    assert main(list(map(str, command))) == 0
    [read] = read_labels(tmp_path / "labels", VALENCE_AROUSAL)
    assert read.values == pytest.approx(earlier.values, abs=1e-4)


def test_frames_without_both_dimensions_are_not_annotated(tmp_path: Path) -> None:
    (tmp_path / "one.parquet").write_bytes(encode([flat(0.0)]))
    [series] = read_traces([tmp_path / "one.parquet"], 10)
    assert not len(series.known) and np.isfinite(series.values[:, 0]).all()


def test_other_files_are_refused(tmp_path: Path, file: Path) -> None:
    (tmp_path / "no.parquet").write_bytes(b"PAR1")
    with raises_code(DataError, "unusable"):
        list(read_traces([tmp_path / "no.parquet"], 25))
    with raises_code(DataError, "frame_rate"):
        list(read_traces([file], 0))


def test_exports_hold_what_may_be_published_and_tell_how_far_people_agree(tmp_path: Path) -> None:
    traces = [
        flat(0.0), flat(0.05, attempt="second"), flat(0.1, contributor=BEN, consent_scopes=("labels",)),
        flat(0.2, 1, superseded=True),
    ]  # fmt: skip
    assert export_traces(traces, tmp_path / "a.parquet", include_private=False) == 2
    assert export_traces(traces, tmp_path / "a.csv", include_private=True) == 3
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 61 and lines[1].endswith(",Valence,first,True,0.0,0.0")
    with refused("export_suffix"):
        export_traces(traces, tmp_path / "a.xlsx", include_private=True)
    with refused("empty"):
        export_traces(traces[2:], tmp_path / "b.csv", include_private=False)
    found = [(dimension, alone, one.ordinal) for dimension, alone, one in agreements(traces)]
    assert found == [("Valence", True, pytest.approx(1)), ("Valence", False, pytest.approx(1))]
