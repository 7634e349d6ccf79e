"""From a file to faces, times and values."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import fields, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from checkpoint_makers import change_manifest, make_checkpoint
from error_codes import raises_code
from face_makers import FACE_BOX, picture_with
from media_makers import write_clip
from pipeline_makers import EVERY_FRAME, LEFT, RIGHT, Cancelled, GreenDetector, clip, draw, indices, picture

from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.inference.batcher import BATCH, PREVIEW_SIDE, THUMBNAIL_SIDE
from hsemotion_space.inference.network import Network
from hsemotion_space.inference.pipeline import NO_FACE, NO_FACE_DARK, Pipeline
from hsemotion_space.inference.postprocess import read_track
from hsemotion_space.media.clips import Clip, MediaError, open_clip
from hsemotion_space.settings import MediaLimits, PipelineConfig, Settings, SettingsError
from hsemotion_space.types import FaceTrack, FloatArray
from hsemotion_space.vision.alignment import align_face
from hsemotion_space.vision.engine import normalize
from hsemotion_space.vision.tracking import overlap


def test_a_picture_with_two_faces(pipeline: Pipeline, detector: GreenDetector, tmp_path: Path) -> None:
    pixels = draw([RIGHT, LEFT])
    analysis = pipeline.analyze(picture(tmp_path, pixels), PipelineConfig())
    assert (analysis.media.kind, analysis.frame_times_s.tolist(), analysis.notices) == ("image", [0.0], ())
    assert (analysis.checkpoint.id, analysis.checkpoint.sha256) == (
        "small",
        pipeline.network("small").checkpoint.sha256,
    )
    assert [face.track.track_id for face in analysis.faces] == [1, 2]
    assert [face.track.boxes_xyxy[0].tolist() for face in analysis.faces] == [
        [16, 32, 48, 64],
        [96, 32, 128, 64],
    ]
    assert np.array_equal(analysis.preview, pixels)
    assert (detector.searches, detector.follows, detector.thorough) == (1, 0, True)
    for face in analysis.faces:
        assert [line.task.name for line in face.timelines] == [
            "expression",
            "valence_arousal",
            "compound_expression",
        ]
        assert np.isnan(face.predictions[0].spread).all()
        assert max(face.track.thumbnail.shape) <= THUMBNAIL_SIDE
        assert face.track.thumbnail[20, 20].tolist() == [20, 220, 20]


def test_a_range_of_a_clip_keeps_the_times_of_the_clip(pipeline: Pipeline, tmp_path: Path) -> None:
    path = clip(tmp_path, [[LEFT]] * 10)
    times = pipeline.analyze(path, EVERY_FRAME).frame_times_s
    part = pipeline.analyze(path, replace(EVERY_FRAME, start_s=times[3], end_s=times[7]))
    assert part.frame_times_s.tolist() == part.faces[0].track.times_s.tolist() == times[3:7].tolist()
    with raises_code(MediaError, "ends_before_range", start=times[-1] + 1):
        pipeline.analyze(path, replace(EVERY_FRAME, start_s=times[-1] + 1))
    for start_s, end_s in ((2, 1), (-1, 1), (1, 1), (float("nan"), 1)):
        with raises_code(SettingsError, "out_of_range"):
            PipelineConfig(start_s=start_s, end_s=end_s)


def test_a_picture_without_a_face(pipeline: Pipeline, tmp_path: Path) -> None:
    analysis = pipeline.analyze(picture(tmp_path, draw([])), PipelineConfig())
    assert (analysis.faces, analysis.notices) == ((), (NO_FACE,))


@pytest.mark.parametrize(
    ("level", "expected"), [(0, NO_FACE_DARK), (25, NO_FACE_DARK), (60, NO_FACE), (255, NO_FACE)]
)
def test_darkness_is_named_where_no_face_is_found(
    level: int, expected: str, pipeline: Pipeline, tmp_path: Path
) -> None:
    pixels = np.full((96, 160, 3), level, np.uint8)
    assert pipeline.analyze(picture(tmp_path, pixels), PipelineConfig()).notices == (expected,)
    black = np.zeros_like(pixels)
    fading = write_clip(tmp_path / "clip.mp4", [black, black, pixels, black])
    assert pipeline.analyze(fading, EVERY_FRAME).notices == (expected,), "one light frame is enough"


def test_scores_are_those_of_each_aligned_face(pipeline: Pipeline, tmp_path: Path) -> None:
    file = clip(tmp_path, [[LEFT, RIGHT]] * 3 + [[RIGHT]] * 2)
    analysis, network = pipeline.analyze(file, EVERY_FRAME), pipeline.network("small")
    assert indices(analysis) == [[0, 1, 2], [0, 1, 2, 3, 4]]
    with open_clip(file, MediaLimits(), 0) as opened:
        frames = [frame.rgb for frame in opened]
    spec = network.checkpoint.input
    for face in analysis.faces:
        track = face.track
        faces = [
            align_face(frames[index], box, spec)
            for index, box in zip(track.frame_index, track.boxes_xyxy, strict=True)
        ]
        embeddings, scores = network.run(normalize(np.stack(faces), spec.mean, spec.std))
        np.testing.assert_allclose(track.embeddings, embeddings, atol=1e-4)
        np.testing.assert_allclose(track.scores, scores, atol=1e-4)


def test_faces_go_through_the_backbone_in_batches(
    pipeline: Pipeline, network: Network, tmp_path: Path
) -> None:
    sizes = []

    def run(batch: FloatArray) -> tuple[FloatArray, ...]:
        sizes.append(len(batch))
        return network.run(batch)

    pipeline._networks["small"] = replace(network, run=run)
    pipeline.analyze(clip(tmp_path, [[LEFT, RIGHT]] * 20), EVERY_FRAME)
    assert sizes == [BATCH, 40 - BATCH]


def test_landmarks_are_the_detectors_frame_by_frame(pipeline: Pipeline, tmp_path: Path) -> None:
    file = clip(tmp_path, [[(16 + 2 * step, 32), (96, 40)] for step in range(4)])
    analysis = pipeline.analyze(file, replace(EVERY_FRAME, detect_every=2))
    for face in analysis.faces:
        track = face.track
        assert track.landmarks.shape == (4, 5, 2)
        assert track.landmarks.dtype == np.float32
        assert np.isnan(track.landmarks[[1, 3]]).all()  # followed, and this detector then gives none
        np.testing.assert_array_equal(track.landmarks[[0, 2], 2], track.boxes_xyxy[[0, 2], :2] + 16)
    still = pipeline.analyze(picture(tmp_path, draw([LEFT])), PipelineConfig())
    assert still.faces[0].track.landmarks[0].tolist() == [[24, 42], [40, 42], [32, 48], [26, 56], [38, 56]]


def test_a_track_takes_landmarks_of_every_frame_or_none(pipeline: Pipeline, tmp_path: Path) -> None:
    track = pipeline.analyze(clip(tmp_path, [[LEFT]] * 3), EVERY_FRAME).faces[0].track
    unknown = {item.name: getattr(track, item.name) for item in fields(track) if item.name != "landmarks"}
    assert FaceTrack(**unknown).landmarks.shape == (0, 5, 2)
    for wrong in (track.landmarks[:2], track.landmarks[:, :4], track.landmarks[..., 0]):
        with pytest.raises(ValueError, match=r"FaceTrack\.landmarks: expected shape \(3, 5, 2\)"):
            replace(track, landmarks=wrong)


def test_a_face_that_returns_within_a_second_is_one_track(pipeline: Pipeline, tmp_path: Path) -> None:
    analysis = pipeline.analyze(clip(tmp_path, [[LEFT]] * 4 + [[]] * 5 + [[LEFT]] * 4), EVERY_FRAME)
    assert indices(analysis) == [[0, 1, 2, 3, 9, 10, 11, 12]]
    assert len(analysis.frame_times_s) == 13


def test_a_face_that_returns_later_is_a_new_track(pipeline: Pipeline, tmp_path: Path) -> None:
    analysis = pipeline.analyze(
        clip(tmp_path, [[LEFT]] * 4 + [[]] * 11 + [[LEFT]] * 6), replace(EVERY_FRAME, detect_every=1)
    )
    assert indices(analysis) == [[0, 1, 2, 3], [15, 16, 17, 18, 19, 20]]
    assert [face.track.track_id for face in analysis.faces] == [1, 2]


def test_a_clip_without_a_face(pipeline: Pipeline, tmp_path: Path) -> None:
    analysis = pipeline.analyze(clip(tmp_path, [[]] * 3), EVERY_FRAME)
    assert (analysis.faces, analysis.notices, len(analysis.frame_times_s)) == ((), (NO_FACE,), 3)
    assert analysis.preview.shape == (96, 160, 3)


def test_a_clip_of_one_frame(pipeline: Pipeline, tmp_path: Path) -> None:
    analysis = pipeline.analyze(clip(tmp_path, [[LEFT]]), PipelineConfig())
    assert (analysis.media.kind, analysis.frame_times_s.tolist(), indices(analysis)) == ("clip", [0.0], [[0]])


def test_times_are_presentation_times(pipeline: Pipeline, tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.35, 0.4, 1.0, 1.7]
    analysis = pipeline.analyze(clip(tmp_path, [[LEFT]] * 6, times), EVERY_FRAME)
    assert analysis.frame_times_s == pytest.approx(times, abs=0.001)
    assert analysis.faces[0].track.times_s == pytest.approx(times, abs=0.001)
    assert analysis.faces[0].timelines[0].times_s == pytest.approx(times, abs=0.001)


def test_fewer_frames_on_request(pipeline: Pipeline, tmp_path: Path) -> None:
    analysis = pipeline.analyze(clip(tmp_path, [[LEFT]] * 10), PipelineConfig(sample_fps=5))
    assert indices(analysis) == [[0, 2, 4, 6, 8]]


def test_smoothing_is_the_readouts(pipeline: Pipeline, tmp_path: Path) -> None:
    analysis = pipeline.analyze(
        clip(tmp_path, [[(16 + 2 * step, 32)] for step in range(10)]), replace(EVERY_FRAME, smoothing=0.5)
    )
    expected = read_track(analysis.faces[0].track, pipeline.network("small").checkpoint, 0.5)
    for ours, theirs in zip(analysis.faces[0].timelines, expected.timelines, strict=True):
        assert np.array_equal(ours.values, theirs.values)


def test_progress_counts_frames_and_can_stop_the_analysis(pipeline: Pipeline, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        calls.append((done, total))
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        pipeline.analyze(clip(tmp_path, [[LEFT]] * 6), EVERY_FRAME, report)
    assert [done for done, _ in calls] == [1, 2, 3]
    assert all(total == 6 for _, total in calls)
    assert indices(pipeline.analyze(tmp_path / "clip.mp4", EVERY_FRAME)) == [[0, 1, 2, 3, 4, 5]]


def test_brief_detections_are_left_out_of_long_clips_and_tracks_renumbered(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    config = replace(EVERY_FRAME, detect_every=1)
    long = pipeline.analyze(clip(tmp_path, [[LEFT]] * 2 + [[RIGHT]] * 8), config)
    assert indices(long) == [[2, 3, 4, 5, 6, 7, 8, 9]]
    assert long.faces[0].track.track_id == 1
    assert [(one.code, one.values["count"]) for one in long.notices] == [("brief", 1)]  # type: ignore[attr-defined]
    short = pipeline.analyze(clip(tmp_path, [[LEFT]] * 2 + [[RIGHT]] * 7), config)
    assert indices(short) == [[0, 1], [2, 3, 4, 5, 6, 7, 8]]
    assert not short.notices


def test_a_hard_cut_ends_every_track(pipeline: Pipeline, detector: GreenDetector, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shots = [
        np.kron(rng.integers(0, 160, (6, 10, 1), np.uint8), np.ones((16, 16, 3), np.uint8)) for _ in range(2)
    ]
    for shot in shots:
        shot[32:64, 16:48] = (20, 220, 20)  # a face in the same place
    path = write_clip(tmp_path / "clip.mp4", [shots[0]] * 6 + [shots[1]] * 6)
    analysis = pipeline.analyze(path, replace(EVERY_FRAME, detect_every=30, smoothing=1))
    assert indices(analysis) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert analysis.cuts_s == pytest.approx([0.6])
    assert [(one.code, one.values["count"]) for one in analysis.notices] == [("cuts", 1)]  # type: ignore[attr-defined]
    assert detector.searches == 2, "the whole picture is searched after the cut"
    still = pipeline.analyze(write_clip(path, [shots[0]] * 12), EVERY_FRAME)
    assert len(still.faces) == 1 and not len(still.cuts_s) and not still.notices


def test_the_preview_shows_the_most_faces(pipeline: Pipeline, tmp_path: Path) -> None:
    analysis = pipeline.analyze(
        clip(tmp_path, [[]] + [[LEFT]] * 3 + [[LEFT, RIGHT]] * 3 + [[RIGHT]] * 2),
        replace(EVERY_FRAME, detect_every=1),
    )
    assert analysis.preview_time_s == pytest.approx(0.4)
    assert [analysis.preview[48, x, 1] > 170 for x in (32, 72, 112)] == [True, False, True]


def test_a_large_preview_is_scaled_down(pipeline: Pipeline, tmp_path: Path) -> None:
    analysis = pipeline.analyze(picture(tmp_path, draw([LEFT], (900, 1600))), PipelineConfig())
    assert analysis.preview.shape == (720, PREVIEW_SIDE, 3)
    assert analysis.faces[0].track.boxes_xyxy[0].tolist() == [16, 32, 48, 64]


def test_the_whole_picture_is_searched_seldom(
    pipeline: Pipeline, detector: GreenDetector, tmp_path: Path
) -> None:
    pipeline.analyze(clip(tmp_path, [[LEFT]] * 20), replace(EVERY_FRAME, detect_every=5))
    assert (detector.searches, detector.follows) == (4, 16)


def test_a_lost_face_is_searched_at_once(pipeline: Pipeline, tmp_path: Path) -> None:
    analysis = pipeline.analyze(
        clip(tmp_path, [[LEFT]] * 3 + [[RIGHT]] * 3), replace(EVERY_FRAME, detect_every=30)
    )
    assert indices(analysis) == [[0, 1, 2], [3, 4, 5]]


def test_memory_does_not_grow_with_the_clip(
    pipeline: Pipeline, detector: GreenDetector, tmp_path: Path
) -> None:
    analysis = pipeline.analyze(clip(tmp_path, [[LEFT]] * 60), EVERY_FRAME)
    assert detector.most_alive <= 4
    assert all(ref() is None for ref in detector.alive)
    track = analysis.faces[0].track
    assert (
        sum(getattr(track, name).nbytes for name in track.__slots__ if name != "track_id")
        < 60 * 4 * 600 + 3 * THUMBNAIL_SIDE**2
    )


def test_files_that_are_no_media_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("hello there")
    with pytest.raises(MediaError):
        pipeline.analyze(tmp_path / "notes.jpg", PipelineConfig())


def test_a_network_is_loaded_once_and_again_after_a_change_of_its_manifest(
    settings: Settings, tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "new", size=32).folder
    pipeline = Pipeline(replace(settings, checkpoints=tmp_path), GreenDetector())
    first = pipeline.network("")
    assert pipeline.network("new") is first
    change_manifest(folder, ("margin = 0.1", "margin = 0.3"))
    assert pipeline.network("new").checkpoint.input.margin == 0.3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dim = 512", "dim = 256"),
        ("img_size = 32", "img_size = 48"),
        ("outputs = 10", "outputs = 12"),
        ("mobilefacenet_small", "mobilefacenet_tiny"),
    ],
)
def test_network_weights_that_do_not_fit(settings: Settings, tmp_path: Path, old: str, new: str) -> None:
    folder = make_checkpoint(tmp_path / "odd", size=32).folder
    change_manifest(folder, (old, new))
    with pytest.raises(CheckpointError) as caught:
        Pipeline(replace(settings, checkpoints=tmp_path), GreenDetector()).network("odd")
    assert caught.value.message.values["title"] == "Test odd"


def test_network_file_without_tensors(settings: Settings, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "odd", size=32)
    content = b"not tensors at all"
    (checkpoint.folder / "model.safetensors").write_bytes(content)
    change_manifest(checkpoint.folder, (checkpoint.sha256, hashlib.sha256(content).hexdigest()))
    with raises_code(CheckpointError, "unloadable"):
        Pipeline(replace(settings, checkpoints=tmp_path), GreenDetector()).network("odd")


def test_with_the_real_detector(settings: Settings, tmp_path: Path) -> None:
    frames = [picture_with([(20 + 4 * step, 60), (190, 100)]) for step in range(6)]
    analysis = Pipeline(settings).analyze(
        write_clip(tmp_path / "faces.mp4", frames), PipelineConfig(sample_fps=0)
    )
    assert indices(analysis) == [[0, 1, 2, 3, 4, 5]] * 2
    moving = next(face.track for face in analysis.faces if face.track.boxes_xyxy[0, 0] < 100)
    expected = np.array(FACE_BOX, np.float32) * 120 + np.array([40, 60, 40, 60], np.float32)
    assert overlap(moving.boxes_xyxy[-1:], expected[None])[0, 0] > 0.7
    # the eyes, in the last frame, by the last stage alone
    drawn = np.array([[0.377, 0.457], [0.623, 0.457]]) * 120 + [40, 60]
    assert np.abs(moving.landmarks[-1, :2] - drawn).max() < 8


@pytest.mark.parametrize("place", ["decoder", "detector", "backbone", "report"])
def test_an_error_anywhere_stops_the_analysis_and_every_thread(
    place: str,
    pipeline: Pipeline,
    network: Network,
    detector: GreenDetector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> NoReturn:
        raise Cancelled(place)

    if place == "decoder":
        monkeypatch.setattr(Clip, "_rgb", fail)
    elif place == "detector":
        monkeypatch.setattr(detector, "follow", fail)
    elif place == "backbone":
        pipeline._networks["small"] = replace(network, run=fail)
    with pytest.raises(Cancelled, match=place):
        pipeline.analyze(
            clip(tmp_path, [[LEFT, RIGHT]] * 40), EVERY_FRAME, fail if place == "report" else None
        )
    assert [thread for thread in threading.enumerate() if thread.name.startswith(("ahead", "backbone"))] == []
