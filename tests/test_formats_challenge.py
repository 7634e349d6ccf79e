"""The synthetic challenge itself: its layout is read, its labels are in its pictures, and smoothing over time helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from challenge_makers import Challenge, grid, make_challenge, patterns
from PIL import Image

from hsemotion_space.learn.formats.affwild2 import audio_video, list_faces, read_labels
from hsemotion_space.learn.formats.hume import list_clips, read_clip_labels
from hsemotion_space.learn.formats.lists import read_frame_list
from hsemotion_space.learn.formats.submission import read_submission, write_submission
from hsemotion_space.learn.series import Series
from hsemotion_space.tasks import CHALLENGE, MIMICRY_INTENSITY, Task

HALF_WINDOW = 4


@pytest.fixture(scope="module")
def challenge(tmp_path_factory: pytest.TempPathFactory) -> Challenge:
    return make_challenge(tmp_path_factory.mktemp("challenge") / "data", 0, videos=(3, 1), frames=60, clips=(3, 2))


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file), np.float64) - 128


def read_out(task: Task, pictures: np.ndarray) -> np.ndarray:
    """Return (T, K): the signal that the maker put into pictures (T, 32, 32, 3)."""
    if task.kind == "continuous":
        return pictures[..., :2].mean((1, 2)) / 70
    if task.kind == "one_of":
        return np.einsum("tijc,kij->tk", pictures, patterns()[: len(task.labels)])
    cells = grid(2, 3) if task.scope == "clip" else grid(3, 4)
    return np.stack([pictures[:, cells == cell].mean((1, 2)) for cell in range(len(task.labels))], 1)


def errors(task: Task, values: np.ndarray, labels: np.ndarray) -> float:
    if task.kind == "continuous":
        return float(np.abs(values - labels).mean())
    return float(((values.argmax(1)[:, None] if task.kind == "one_of" else values > 0) != labels).mean())


def test_all_tasks_are_there_with_their_layouts(challenge: Challenge) -> None:
    assert tuple(part.task for part in challenge.frames) == CHALLENGE[:4]
    for part in challenge.frames:
        training = list(read_labels(part.training, part.task))
        (validation,) = read_labels(part.validation, part.task)
        assert len(training) == 3
        assert len({audio_video(labels.video) for labels in training}) == 2
        assert len({len(labels.frames) for labels in training}) > 1
        assert all(0 < len(labels.known) < len(labels.frames) for labels in (*training, validation))
        assert list(read_frame_list(part.frame_list)) == [(validation.video, validation.frames.tolist())]
        headers = [file.read_text().splitlines()[0] for file in part.training.iterdir()]
        assert {header.endswith("  ") for header in headers} == {True, False}


def test_crops_are_missing_within_and_at_the_ends(challenge: Challenge) -> None:
    faces = list(list_faces(challenge.roots))
    assert {face.image.parent.parent for face in faces} == set(challenge.roots)
    for part in challenge.frames:
        (labels,) = read_labels(part.validation, part.task)
        found = [face.frame for face in faces if face.video == labels.video]
        assert found[0] > 4
        assert found[-1] <= labels.frames[-1] - 4
        longer = [labels for labels in read_labels(part.training, part.task) if not labels.video.endswith(("_left", "_right"))]
        assert len(longer[0].frames) - max(face.frame for face in faces if face.video == longer[0].video) >= 5


def test_the_mean_over_time_is_nearer_to_the_labels_than_one_frame(challenge: Challenge) -> None:
    for part in challenge.frames:
        (labels,) = read_labels(part.validation, part.task)
        faces = list(list_faces(challenge.roots, {labels.video}))
        single = read_out(part.task, np.stack([pixels(face.image) for face in faces]))
        smoothed = np.stack([single[max(row - HALF_WINDOW, 0) : row + HALF_WINDOW + 1].mean(0) for row in range(len(single))])
        kept = [row for row, face in enumerate(faces) if not np.isnan(labels.values[face.frame - 1]).any()]
        truth = labels.values[[faces[row].frame - 1 for row in kept]]
        assert errors(part.task, smoothed[kept], truth) < errors(part.task, single[kept], truth) < 0.35


def test_the_faces_of_a_clip_carry_its_intensities(challenge: Challenge) -> None:
    labels = {
        clip.video: clip.values[0] for file in (challenge.clip_training, challenge.clip_validation) for clip in read_clip_labels(file)
    }
    faces = list(list_clips([challenge.clip_root]))
    assert {face.video for face in faces} == set(labels) == {f"{number:05d}" for number in range(5)}
    for clip, values in labels.items():
        pictures = np.stack([pixels(face.image) for face in faces if face.video == clip])
        assert 8 <= len(pictures) <= 15
        np.testing.assert_allclose(read_out(MIMICRY_INTENSITY, pictures).mean(0) / 130 + 0.5, values, atol=0.15)


def test_a_seed_gives_the_same_challenge_again(tmp_path: Path) -> None:
    size = {"videos": (3, 1), "frames": 8, "clips": (1, 1)}
    folders = [make_challenge(tmp_path / name, seed, **size).folder for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    first, second, other = ({file.relative_to(f): file.read_bytes() for file in f.rglob("*") if file.is_file()} for f in folders)
    assert first == second
    assert first != other


def test_the_lists_can_be_submitted(challenge: Challenge, tmp_path: Path) -> None:
    lists = [part.frame_list for part in challenge.frames] + [challenge.clip_list]
    for task, listed in zip(CHALLENGE, lists, strict=True):
        video = "00003" if task.scope == "clip" else next(read_frame_list(listed))[0]
        frame = 0 if task.scope == "clip" else 2
        known = Series(video, np.array([frame]), np.full((1, len(task.labels)), 0.25, np.float32))
        report = write_submission(tmp_path / "x.txt", task, [known], listed)
        assert report.without_prediction == (("00004",) if task.scope == "clip" else ())
        assert sum(len(series.frames) for series in read_submission(tmp_path / "x.txt", task)) == report.frames
