from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_makers import manifest_text
from error_codes import raises_code

from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, read_manifest
from hsemotion_space.hub.source import Digest
from hsemotion_space.inference.heads import softmax
from hsemotion_space.inference.postprocess import read_track, read_tracks, reread
from hsemotion_space.inference.temporal import smooth
from hsemotion_space.types import Analysis, CheckpointRef, FaceTrack, MediaInfo, Timeline

SHA256 = "ab" * 32


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "manifest.toml").write_text(manifest_text("small", SHA256), "utf-8")
    return read_manifest(folder)


def make_track(track_id: int, frames: int = 30) -> FaceTrack:
    rng = np.random.default_rng(track_id)
    return FaceTrack(
        track_id, np.arange(frames), np.arange(frames) / 10, np.zeros((frames, 4), np.float32), np.ones(frames, np.float32),
        np.zeros((frames, 4), np.float32), rng.normal(0, 1, (frames, 10)).astype(np.float32), np.zeros((1, 1, 3), np.uint8),
    )  # fmt: skip


def make_analysis(checkpoint: Checkpoint, smoothing: float) -> Analysis:
    media, ref = (
        MediaInfo("00", "clip", 4, 4, 3.0),
        CheckpointRef(checkpoint.id, checkpoint.title, checkpoint.sha256),
    )
    return Analysis(
        media, ref, np.arange(40) / 10, read_tracks([make_track(1), make_track(2)], checkpoint, smoothing)
    )


def test_every_head_gives_a_timeline_and_its_summary(checkpoint: Checkpoint) -> None:
    track = make_track(1)
    face = read_track(track, checkpoint, 0)
    assert [(line.task.name, line.provenance) for line in face.timelines] == [
        ("expression", "trained"), ("valence_arousal", "trained"), ("compound_expression", "rule"),
    ]  # fmt: skip
    np.testing.assert_allclose(face.timelines[0].values, softmax(track.scores[:, :8]), rtol=1e-6)
    for line, prediction in zip(face.timelines, face.predictions, strict=True):
        assert line.task is prediction.task
        np.testing.assert_allclose(prediction.values, line.values.mean(0), rtol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_smoothing_scales_each_tasks_own_window(checkpoint: Checkpoint, factor: float) -> None:
    track = make_track(1)
    raw, smoothed = read_track(track, checkpoint, 0), read_track(track, checkpoint, factor)
    for before, after in zip(raw.timelines, smoothed.timelines, strict=True):
        expected: Timeline = smooth(before, before.task.smoothing_s * factor)
        assert np.array_equal(after.values, expected.values)
        assert not np.array_equal(after.values, before.values)


def test_reread_equals_a_new_analysis(checkpoint: Checkpoint) -> None:
    changed, fresh = reread(make_analysis(checkpoint, 1.0), checkpoint, 0.3), make_analysis(checkpoint, 0.3)
    for ours, theirs in zip(changed.faces, fresh.faces, strict=True):
        assert ours.track.track_id == theirs.track.track_id
        for a, b in zip(ours.timelines, theirs.timelines, strict=True):
            assert np.array_equal(a.values, b.values)
        for p, q in zip(ours.predictions, theirs.predictions, strict=True):
            assert np.array_equal(p.values, q.values)


def test_reread_refuses_another_checkpoint(checkpoint: Checkpoint) -> None:
    other = replace(checkpoint, source=replace(checkpoint.source, weights=Digest("cd" * 32)), title="Another")
    with raises_code(CheckpointError, "other_checkpoint"):
        reread(make_analysis(checkpoint, 1.0), other, 1.0)
