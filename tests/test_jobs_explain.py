"""Jobs that explain a value of a face: the same pixels as the analysis, the same value, and sentences for
what goes wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoint_makers import make_checkpoint
from error_codes import raises_code
from face_makers import draw_face, picture_with
from jobs_makers import code_of, wait
from media_makers import write_clip
from PIL import Image

from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.jobs import Explained, JobError, JobRunner, Place
from hsemotion_space.jobs.table import array_bytes
from hsemotion_space.media.clips import read_image
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import Analysis, FaceTrack
from hsemotion_space.vision.alignment import align_face


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    make_checkpoint(folder / "checkpoints" / "small", size=32, settled=True)
    make_checkpoint(folder / "checkpoints" / "zero", size=32)
    (folder / "checkpoints" / "zero" / "model.safetensors").unlink()
    Image.fromarray(picture_with([(20, 60), (180, 40)])).save(folder / "faces.png")
    pictures = [picture_with([(20 + 4 * number, 60)]) for number in range(20)]
    moments = np.cumsum([0, *[0.1, 0.033, 0.2] * 7])[:20]
    options = {"preset": "medium", "bf": "3", "g": "8"}
    write_clip(folder / "even.mp4", pictures, kind="mp4", options=options)
    write_clip(folder / "uneven.mkv", pictures, moments, kind="matroska", options=options)
    write_clip(
        folder / "turned.mov",
        [np.ascontiguousarray(np.rot90(one, 1)) for one in pictures],
        kind="mov",
        turn=(270, False),
    )
    write_clip(folder / "moving.avi", pictures, kind="avi", codec="mjpeg")
    return folder


@pytest.fixture(scope="module")
def runner(folder: Path) -> Iterator[JobRunner]:
    runner = JobRunner(
        Settings(
            checkpoints=folder / "checkpoints", cache=folder / "cache", engine="torch", threads=1, workers=1
        ),
        root=folder,
    )
    yield runner
    runner.close()


def analyze(runner: JobRunner, file: Path, *checkpoints: str) -> tuple[Analysis, ...]:
    status = wait(
        runner,
        runner.submit(
            file, PipelineConfig(smoothing=0, sample_fps=0, detect_every=2), checkpoints or ("small",)
        ),
    )
    assert status.state == "done", status.message
    return status.analyses


def place_of(track: FaceTrack, row: int) -> Place:
    x0, y0, x1, y1 = track.boxes_xyxy[row].tolist()
    return Place(float(track.times_s[row]), (x0, y0, x1, y1))


def ask(
    runner: JobRunner,
    file: Path,
    checkpoint: str,
    place: Place,
    what: tuple[str, str] = ("expression", "Happiness"),
) -> Explained:
    status = wait(runner, runner.explain(file, checkpoint, place, what))
    assert (status.state, status.message, status.analyses) == ("done", "", ())
    assert status.checkpoints == (checkpoint,)
    assert status.explained is not None
    return status.explained


def test_explain_of_a_picture_uses_the_face_of_the_analysis(runner: JobRunner, folder: Path) -> None:
    info, frame = read_image(folder / "faces.png", runner.settings.limits)
    for analysis in analyze(runner, folder / "faces.png", "small"):
        assert analysis.media == info and len(analysis.faces) == 2
        checkpoint = find_checkpoint(runner.settings.checkpoint_roots, analysis.checkpoint.id)
        for face in analysis.faces:
            for task, label in (
                ("expression", "Sadness"),
                ("valence_arousal", "Arousal"),
                ("compound_expression", "Happily surprised"),
            ):
                line = next(one for one in face.timelines if one.task.name == task)
                got = ask(runner, folder / "faces.png", checkpoint.id, place_of(face.track, 0), (task, label))
                assert got.saliency.value == pytest.approx(line.values[0, line.task.index(label)], abs=1e-4)
                assert (got.saliency.label, got.saliency.provenance) == (label, line.provenance)
            expected = align_face(frame.rgb, face.track.boxes_xyxy[0], checkpoint.input)
            np.testing.assert_array_equal(got.face, expected)


@pytest.mark.parametrize("name", ["even.mp4", "uneven.mkv", "turned.mov", "moving.avi"])
def test_explain_of_a_clip_uses_the_pixels_of_the_frame(runner: JobRunner, folder: Path, name: str) -> None:
    (analysis,) = analyze(runner, folder / name)
    face = analysis.faces[0]
    assert len(face.track.times_s) > 15
    line = next(one for one in face.timelines if one.task.name == "expression")
    column = int(np.argmax(np.ptp(line.values, axis=0)))
    label = line.task.label_names[column]
    for row in (0, 4, len(line.values) - 1):
        got = ask(runner, folder / name, "small", place_of(face.track, row), ("expression", label))
        assert got.saliency.value == pytest.approx(line.values[row, column], abs=1e-4)
    assert np.ptp(line.values[:, column]) > 1e-3, "another frame would have been noticed"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"what": ("expression", "Envy")}, "no_label"),
        ({"place": Place(0.0, (900.0, 10.0, 950.0, 60.0))}, "outside_picture"),
        ({"checkpoint": "huge"}, ""),
        ({"checkpoint": "zero"}, ""),
        ({"path": "broken.png"}, "damaged"),
        ({"path": "broken.mp4"}, "damaged"),
    ],
)
def test_explain_fails_with_a_code(
    runner: JobRunner, folder: Path, changes: dict[str, object], code: str
) -> None:
    (folder / "broken.png").write_bytes((folder / "faces.png").read_bytes()[:500])
    (folder / "broken.mp4").write_bytes((folder / "even.mp4").read_bytes()[:600])
    asked: dict[str, object] = {
        "path": "faces.png",
        "checkpoint": "small",
        "place": Place(0.0, (40.0, 80.0, 120.0, 170.0)),
    }
    asked |= {"what": ("expression", "Anger")} | changes
    status = wait(runner, runner.explain(folder / str(asked.pop("path")), **asked))  # type: ignore[arg-type]
    assert (status.state, status.explained) == ("failed", None)
    assert status.message and code in ("", code_of(status))
    assert str(folder) not in status.message


def test_cancel_of_an_explanation_leaves_the_worker_alive(runner: JobRunner, folder: Path) -> None:
    (analysis,) = analyze(runner, folder / "faces.png")
    process = runner._lanes[0].worker.process
    job_id = runner.explain(
        folder / "faces.png", "small", place_of(analysis.faces[0].track, 0), ("expression", "Fear")
    )
    wait(runner, job_id, lambda status: status.state != "queued")
    runner.cancel(job_id)
    assert wait(runner, job_id).state in ("cancelled", "done")
    ask(runner, folder / "faces.png", "small", place_of(analysis.faces[0].track, 0))
    assert runner._lanes[0].worker.process is process


def test_explain_keeps_the_file_until_it_is_done(runner: JobRunner, folder: Path, tmp_path: Path) -> None:
    upload = folder / "upload.png"
    Image.fromarray(draw_face(200)).save(upload)
    (analysis,) = analyze(runner, upload)
    job_id = runner.explain(upload, "small", place_of(analysis.faces[0].track, 0), ("expression", "Fear"))
    upload.unlink()
    assert wait(runner, job_id).explained is not None
    with raises_code(JobError, "file_gone"):
        runner.explain(upload, "small", Place(0.0, (0.0, 0.0, 9.0, 9.0)), ("expression", "Fear"))


def test_explanations_take_no_room_from_analyses(
    runner: JobRunner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsemotion_space.jobs.table.MAX_KEPT", 1)
    kept = runner.submit(folder / "faces.png", PipelineConfig())
    place = place_of(wait(runner, kept).analyses[0].faces[0].track, 0)
    ids = [runner.explain(folder / "faces.png", "small", place, ("expression", "Fear")) for _ in range(3)]
    statuses = [wait(runner, job_id) for job_id in ids]
    assert all(status.explained for status in statuses)
    assert runner.status(kept).state == "done"
    explained = statuses[0].explained
    assert explained is not None
    assert array_bytes(explained) == explained.face.nbytes + explained.saliency.map.nbytes
    with runner._table.changed:
        for job_id in ids:
            runner._table.jobs[job_id].ended_s -= 61
        runner._table.tidy(time.monotonic())
    assert set(ids).isdisjoint(runner._table.jobs) and kept in runner._table.jobs
