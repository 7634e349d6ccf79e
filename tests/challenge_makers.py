"""A synthetic challenge in the layouts of the ABAW releases: small pictures that carry known labels below
independent noise."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hsemotion_space.tasks import (
    ACTION_UNITS,
    AFF_WILD2_EXPRESSION,
    COMPOUND_EXPRESSION,
    MIMICRY_INTENSITY,
    VALENCE_AROUSAL,
    Task,
)

Array = npt.NDArray[np.float64]

SIDE, MIDDLE = 32, 128.0
# gray levels of a signal of one
AFFECT_LEVELS, PATTERN_LEVELS, UNIT_LEVELS, CLIP_LEVELS = 70.0, 15.0, 40.0, 130.0
# standard deviations, new in every frame
BLOCK_NOISE, COLOR_NOISE, OFFSET_NOISE, PIXEL_NOISE = 24.0, 12.0, 15.0, 6.0
SHORTEST, LONGEST = 15, 40  # frames that a class or unit stays
WITHOUT_CROP, NOT_ANNOTATED, EXTRA_LINES, BARE_END = 0.05, 0.03, 5, 4
FOLDERS = {
    VALENCE_AROUSAL: "VA_Estimation_Challenge",
    AFF_WILD2_EXPRESSION: "EXPR_Recognition_Challenge",
    ACTION_UNITS: "AU_Detection_Challenge",
    COMPOUND_EXPRESSION: "CE_Recognition_Challenge",
}
HEADERS = {
    VALENCE_AROUSAL: "valence,arousal",
    AFF_WILD2_EXPRESSION: "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
    ACTION_UNITS: "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26",
    COMPOUND_EXPRESSION: (
        "Fearfully_Surprised,Happily_Surprised,Sadly_Surprised,Disgustedly_Surprised,Angrily_Surprised,"
        "Sadly_Fearful,Sadly_Angry"
    ),
}
CLIP_HEADER = "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy"


@dataclass(frozen=True, slots=True)
class FrameChallenge:
    """Where one frame-level task lies: folders of label files, and the list of all frames of the validation
    videos."""

    task: Task
    training: Path
    validation: Path
    frame_list: Path


@dataclass(frozen=True, slots=True)
class Challenge:
    """Where everything lies; ``frames`` are VA, EXPR, AU, CE in this order and share ``roots``, the clips are
    of ``clip_root``."""

    folder: Path
    roots: tuple[Path, Path]
    frames: tuple[FrameChallenge, FrameChallenge, FrameChallenge, FrameChallenge]
    clip_root: Path
    clip_training: Path
    clip_validation: Path
    clip_list: Path


def make_challenge(
    folder: Path,
    seed: int,
    videos: tuple[int, int] = (6, 4),
    frames: int = 120,
    clips: tuple[int, int] = (12, 8),
    noise: float = 1.0,
) -> Challenge:
    """Write a challenge for the whole chain.

    Per task the first training video has more label lines than frames, the second and third are ``_left`` and
    ``_right`` of one video, and the first validation video has no crops at its ends.

    Args:
        folder: gets ``cropped``, ``cropped2``, ``annotations``, ``lists`` and ``hume``.
        seed: decides everything.
        videos: number of training and validation videos per frame-level task, at least three and one.
        frames: about how many per video.
        clips: number of training and validation clips of the clip-level task.
        noise: factor of all noise; with 1 a single frame often misleads and the mean over some does not.
    """
    rng = np.random.default_rng(seed)
    roots = (folder / "cropped", folder / "cropped2")
    for place in (*roots, folder / "lists"):
        place.mkdir(parents=True)
    (roots[0] / ".DS_Store").write_bytes(b"\0")
    parts = []
    for number, task in enumerate(FOLDERS):
        base = folder / "annotations" / FOLDERS[task]
        part = FrameChallenge(
            task, base / "Train_Set", base / "Validation_Set", folder / "lists" / f"{task.name}.txt"
        )
        _write_task(part, number + 1, roots, (videos, frames, noise), rng)
        parts.append(part)
    hume = folder / "hume"
    _write_clips(hume, clips, noise, rng)
    return Challenge(
        folder, roots, (parts[0], parts[1], parts[2], parts[3]), hume / "face_images", hume / "train_split.csv", hume / "valid_split.csv",
        hume / "test_split.csv",
    )  # fmt: skip


def _write_task(
    part: FrameChallenge,
    number: int,
    roots: tuple[Path, Path],
    size: tuple[tuple[int, int], int, float],
    rng: np.random.Generator,
) -> None:
    (training, validation), frames, noise = size
    phase, listed = 0, []
    for index in range(training + validation):
        video = _video_name(part.task, number, index)
        count = int(rng.integers(int(frames * 0.75), int(frames * 1.25) + 1))
        latent, phase = _latent(part.task, count + EXTRA_LINES * (index == 0), phase, rng)
        labels = part.training if index < training else part.validation
        _write_label_file(
            labels / f"{video}.txt", part.task, latent, HEADERS[part.task] + "  " * (index % 2), rng
        )
        bare = rng.random(count) < WITHOUT_CROP
        if index == training:
            bare[:BARE_END] = bare[-BARE_END:] = True
        _write_pictures(
            roots[index % 3 == 2] / video, _clean_pictures(part.task, latent[:count]), noise, bare, rng
        )
        if index >= training:
            listed += [f"{video}/{frame:05d}.jpg" for frame in range(1, count + 1)]
    part.frame_list.write_text("\n".join([f"image_location,{HEADERS[part.task]}", *listed]) + "\n", "utf-8")


def _video_name(task: Task, number: int, index: int) -> str:
    shown, side = (2, ("_left", "_right")[index - 1]) if index in (1, 2) else (index + 1, "")
    return (
        f"{shown:02d}{side}" if task is COMPOUND_EXPRESSION else f"{number}{shown:02d}-30-{SIDE}x{SIDE}{side}"
    )


def _latent(task: Task, count: int, phase: int, rng: np.random.Generator) -> tuple[Array, int]:
    """Return labels (count, 2) of affect, (count, 1) of classes or (count, 12) of units, and where the cycle
    of the classes is."""
    if task.kind == "continuous":
        times = np.arange(count)[:, None]
        waves = [np.sin(2 * np.pi * (times / rng.uniform(40, 160, 2) + rng.random(2))) for _ in range(3)]
        return np.round(np.clip(0.4 * sum(waves), -1, 1), 3), phase
    columns = []
    for _ in range(1 if task.kind == "one_of" else len(task.labels)):
        lengths = rng.integers(SHORTEST, LONGEST + 1, count // SHORTEST + 1)
        start = phase if task.kind == "one_of" else int(rng.integers(2))
        columns.append(np.repeat(start + np.arange(len(lengths)), lengths)[:count])
    values = np.stack(columns, 1)
    return (values % (len(task.labels) if task.kind == "one_of" else 2)).astype(np.float64), int(
        values[-1, 0]
    ) + 1


def _write_label_file(file: Path, task: Task, latent: Array, header: str, rng: np.random.Generator) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    missing = rng.random(len(latent)) < NOT_ANNOTATED
    missing[len(latent) // 3 :][:3] = True
    mark = -5.0 if task.kind == "continuous" else -1.0
    rows = np.where(missing[:, None], mark, latent)
    if task.kind == "independent":  # one unit that is not annotated stands for the frame
        rows[:, 1:] = np.where(
            missing[:, None] & (rng.random((len(latent), 1)) < 0.5), latent[:, 1:], rows[:, 1:]
        )
    lines = [",".join(f"{value:g}" for value in row) for row in rows]
    file.write_text("\n".join([header, *lines]) + "\n", "utf-8")


def patterns() -> Array:
    """Return (8, 32, 32) orthogonal patterns of -1 and 1 with mean 0: one per class."""
    walsh = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, -1, 1], [1, -1, 1, -1]], np.float64)
    order = [(0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 2), (1, 2), (2, 1)]
    return np.stack(
        [np.kron(np.outer(walsh[a], walsh[b]), np.ones((SIDE // 4, SIDE // 4))) for a, b in order]
    )


def grid(rows: int, columns: int) -> npt.NDArray[np.int64]:
    """Return (32, 32), the number of the cell of each pixel."""
    place = np.arange(SIDE)
    return (place * rows // SIDE)[:, None] * columns + place * columns // SIDE


def _clean_pictures(task: Task, latent: Array) -> Array:
    """Return (T, 32, 32, 3) without noise."""
    pictures = np.full((len(latent), SIDE, SIDE, 3), MIDDLE)
    if task.kind == "continuous":
        pictures[..., :2] += AFFECT_LEVELS * latent[:, None, None]
        pictures[..., 2] += np.linspace(-40, 40, SIDE)[:, None]
    elif task.kind == "one_of":
        pictures += PATTERN_LEVELS * patterns()[latent[:, 0].astype(int)][..., None]
    elif task.scope == "clip":
        pictures += CLIP_LEVELS * (latent - 0.5)[:, grid(2, 3)][..., None]
    else:
        pictures += UNIT_LEVELS * (latent - 0.5)[:, grid(3, 4)][..., None]
    return pictures


def _write_pictures(
    place: Path, clean: Array, noise: float, bare: npt.NDArray[np.bool_], rng: np.random.Generator
) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "._00001.jpg").write_bytes(b"\0")
    count = len(clean)
    blocks = BLOCK_NOISE * rng.standard_normal((count, 4, 4, 1)) + COLOR_NOISE * rng.standard_normal(
        (count, 4, 4, 3)
    )
    spread = blocks.repeat(SIDE // 4, 1).repeat(SIDE // 4, 2)
    spread += OFFSET_NOISE * rng.standard_normal((count, 1, 1, 3)) + PIXEL_NOISE * rng.standard_normal(
        clean.shape, np.float32
    )
    pictures = np.clip(np.round(clean + noise * spread), 0, 255).astype(np.uint8)
    for frame in np.flatnonzero(~bare):
        out = io.BytesIO()
        Image.fromarray(pictures[frame]).save(out, "JPEG", quality=95)
        (place / f"{frame + 1:05d}.jpg").write_bytes(out.getvalue())


def _write_clips(folder: Path, clips: tuple[int, int], noise: float, rng: np.random.Generator) -> None:
    rows = []
    for index in range(sum(clips)):
        latent = np.round(
            rng.random(len(MIMICRY_INTENSITY.labels)) * (rng.random(len(MIMICRY_INTENSITY.labels)) < 0.8), 3
        )
        faces = int(rng.integers(8, 16))
        clean = _clean_pictures(MIMICRY_INTENSITY, np.repeat(latent[None], faces, 0))
        _write_pictures(folder / "face_images" / f"{index:05d}", clean, noise, np.zeros(faces, np.bool_), rng)
        rows.append(f"{index:05d}," + ",".join(f"{value:g}" for value in latent))
    for name, chosen in (("train_split", rows[: clips[0]]), ("valid_split", rows[clips[0] :])):
        (folder / f"{name}.csv").write_text("\n".join([CLIP_HEADER, *chosen]) + "\n", "utf-8")
    listed = [row.partition(",")[0] for row in rows[clips[0] :]]
    (folder / "test_split.csv").write_text("\n".join(["Filename", *listed]) + "\n", "utf-8")
