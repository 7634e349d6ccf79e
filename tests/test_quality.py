"""What speaks against relying on a face: every flag on both sides of its bound, with the number that it rests
on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analysis_makers import make_analysis, make_siblings
from face_makers import FACE_BOX, draw_face
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from hsemotion_space.analysis import image_quality as q
from hsemotion_space.analysis.disagreement import disagreements
from hsemotion_space.analysis.face_check import LEAST_SCORE
from hsemotion_space.analysis.image_quality import (
    KINDS,
    FaceQuality,
    Kind,
    QualityFlag,
    pose,
    quality,
    sharpness,
)
from hsemotion_space.hub.manifest import InputSpec
from hsemotion_space.tasks import EXPRESSION, TASKS
from hsemotion_space.types import (
    THUMBNAIL_HALF,
    Analysis,
    ByteArray,
    CheckpointRef,
    Disagreement,
    FaceResult,
    FaceTrack,
    FloatArray,
    MediaInfo,
    Prediction,
    Timeline,
)

SPEC = InputSpec(64, "square", 0.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
WIDTH, HEIGHT, SIDE = 640, 480, 100.0
BOX = np.array([200, 150, 280, 250], np.float32)  # 80 x 100 px
FRONTAL = np.array(
    [[222, 190], [258, 190], [240, 190 + 50 * q.USUAL_PITCH], [226, 240], [254, 240]], np.float32
)


def thumbnail(box: FloatArray = BOX, blur: float = 0.0) -> ByteArray:
    """Return what the pipeline keeps of a picture with a drawn face in the box, on a background of noise."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8))
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    drawn = (
        Image.fromarray(draw_face(320))
        .crop([round(320 * share) for share in FACE_BOX])
        .resize((x1 - x0, y1 - y0))
    )
    picture.paste(drawn.filter(ImageFilter.GaussianBlur(blur)), (x0, y0))
    center, half = (box[:2] + box[2:]) / 2, float(max(box[2] - box[0], box[3] - box[1])) * THUMBNAIL_HALF
    region = np.concatenate(
        [np.maximum(center - half, 0), np.minimum(center + half, (WIDTH, HEIGHT))]
    ).astype(int)
    part = picture.crop(region.tolist())
    part.thumbnail((160, 160), Image.Resampling.BILINEAR)
    return np.asarray(part)


def track(track_id: int = 1, frames: int = 1, **changes: object) -> FaceTrack:
    """Return a track that nothing speaks against, apart from the changes."""
    usual: dict[str, object] = {
        "frame_index": np.arange(frames),
        "times_s": np.arange(frames) / 10,
        "boxes_xyxy": np.tile(BOX, (frames, 1)),
        "detection_scores": np.full(frames, 0.999, np.float32),
        "embeddings": np.zeros((frames, 4), np.float32),
        "scores": np.zeros((frames, 8), np.float32),
        "thumbnail": thumbnail(),
        "landmarks": np.tile(FRONTAL, (frames, 1, 1)),
    }
    return FaceTrack(track_id=track_id, **(usual | changes))  # type: ignore[arg-type]


def expression(*values: float, spread: float = float("nan"), frames: int = 1) -> Prediction:
    """Return a prediction of the expressions; those not given share the rest."""
    rest = (1 - sum(values)) / (8 - len(values))
    filled = np.array([*values, *[rest] * (8 - len(values))], np.float32)
    return Prediction(EXPRESSION, "trained", filled, np.full(8, spread, np.float32), frames)


def analysis(*tracks: FaceTrack, predictions: tuple[Prediction, ...] = (expression(0.9),)) -> Analysis:
    faces = tuple(FaceResult(one, (), predictions) for one in tracks)
    return replace(make_analysis(0), media=MediaInfo("0" * 64, "clip", WIDTH, HEIGHT), faces=faces)


def flags(
    one: FaceTrack, spec: InputSpec = SPEC, predictions: tuple[Prediction, ...] = (expression(0.9),)
) -> tuple[QualityFlag, ...]:
    (found,) = quality(analysis(one, predictions=predictions), spec)
    return found.flags


def kinds(
    one: FaceTrack, spec: InputSpec = SPEC, predictions: tuple[Prediction, ...] = (expression(0.9),)
) -> list[Kind]:
    return [flag.kind for flag in flags(one, spec, predictions)]


def scaled(box: FloatArray, side: float) -> FloatArray:
    """Return a box around the same center with the given longer side."""
    center, size = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * side / float(max(box[2:] - box[:2]))
    return np.concatenate([center - size / 2, center + size / 2]).astype(np.float32)


def test_a_good_face_has_no_flag() -> None:
    assert quality(analysis(track()), SPEC) == (FaceQuality(1, ()),)
    assert kinds(track(frames=20)) == []
    assert quality(analysis(), SPEC) == ()


def test_a_small_face() -> None:
    for side, expected in ((32.5, []), (31.5, ["small"])):
        assert kinds(track(boxes_xyxy=scaled(BOX, side)[None])) == expected
    (flag,) = flags(track(boxes_xyxy=scaled(BOX, 20)[None]))
    assert flag.value == pytest.approx(3.2, rel=1e-4) and flag.threshold == q.MOST_ENLARGED
    assert flag.text.values == {"side": 16, "size": 64, "times": pytest.approx(3.2), "limit": q.MOST_ENLARGED}


def test_how_far_a_face_is_enlarged_follows_the_crop_of_the_checkpoint() -> None:
    """The box crop squashes 40 x 50 px to the square, the square crop cuts 50 x 50 px; a margin adds pixels."""
    one = track(boxes_xyxy=scaled(BOX, 50)[None])
    for spec, enlarged in (
        (replace(SPEC, size=112), 112 / 50),
        (replace(SPEC, size=112, crop="box"), 112 / 40),
        (replace(SPEC, size=112, margin=0.1), None),
        (replace(SPEC, size=224, margin=0.1), 224 / 60),
        (replace(SPEC, size=64, crop="box"), None),
    ):
        found = flags(one, spec)
        assert [flag.value for flag in found] == ([pytest.approx(enlarged, rel=1e-4)] if enlarged else [])


def test_a_blurred_face() -> None:
    """The bound lies between the drawn face and the same face blurred by 4 % of its side; more blur is never
    sharper."""
    values = [
        sharpness(thumbnail(blur=blur), q._box_in_thumbnail(track(), MediaInfo("", "image", WIDTH, HEIGHT)))
        for blur in (0, 1, 2, 4)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > q.LEAST_SHARPNESS > values[-1]
    assert kinds(track(thumbnail=thumbnail(blur=4))) == ["blurred"]
    (flag,) = flags(track(thumbnail=thumbnail(blur=4)))
    assert (
        flag.value == pytest.approx(values[-1])
        and flag.threshold == q.LEAST_SHARPNESS
        and flag.text.values["sharpness"] == flag.value
    )


@pytest.mark.parametrize("corner", [(200, 150), (0, 0), (560, 380), (-10, 150), (200, -20), (575, 390)])
def test_sharpness_is_that_of_the_face_wherever_it_lies(corner: tuple[int, int]) -> None:
    """The noise around the face does not count, even where the thumbnail ends at the border of the picture."""
    box = BOX - np.tile(BOX[:2], 2) + np.tile(corner, 2).astype(np.float32)
    media = MediaInfo("", "image", WIDTH, HEIGHT)
    one = track(boxes_xyxy=box[None], thumbnail=thumbnail(box, blur=4))
    blurred, middle = q._box_in_thumbnail(one, media), thumbnail(box, blur=4)
    assert (
        sharpness(middle, blurred)
        < q.LEAST_SHARPNESS
        < sharpness(middle, np.array([0, 0, middle.shape[1], middle.shape[0]], np.float32))
    )


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 1.0), st.integers(0, 60))
def test_sharpness_does_not_depend_on_light_and_contrast(gain: float, offset: int) -> None:
    face = draw_face(64)
    whole = np.array([0, 0, 64, 64], np.float32)
    other = np.clip(np.round(face * gain * 0.75 + offset), 0, 255).astype(np.uint8)
    assert sharpness(other, whole) == pytest.approx(sharpness(face, whole), rel=0.15)


def test_sharpness_by_hand() -> None:
    """Rows of black and white: the Laplacian is 2 * 255 with alternating sign, its variance 16 times that of
    the luminance."""
    rows = np.zeros((64, 64, 3), np.uint8)
    rows[::2] = 255
    assert sharpness(rows, np.array([0, 0, 64, 64], np.float32)) == pytest.approx(16, rel=1e-9)
    assert sharpness(np.full((9, 7, 3), 50, np.uint8), np.array([0, 0, 7, 9], np.float32)) == 0
    assert sharpness(rows, np.array([70, 0, 90, 20], np.float32)) == 0, (
        "a box beside the picture has no detail"
    )


def test_a_face_partly_outside() -> None:
    for share, expected in ((q.MOST_OUTSIDE - 0.02, []), (q.MOST_OUTSIDE + 0.02, ["outside"])):
        box = BOX - np.tile([BOX[0] + 80 * share, 0], 2).astype(np.float32)
        assert kinds(track(boxes_xyxy=box[None], thumbnail=thumbnail())) == expected
    # half of its width and half of its height are in the picture
    corner = np.array([600, 430, 680, 530], np.float32)
    flag = next(flag for flag in flags(track(boxes_xyxy=corner[None])) if flag.kind == "outside")
    assert flag.value == pytest.approx(0.75) and flag.text.values["share"] == flag.value


def test_an_unsure_detection() -> None:
    for score, expected in ((LEAST_SCORE + 0.005, []), (LEAST_SCORE - 0.005, ["unsure"])):
        assert kinds(track(detection_scores=np.array([score], np.float32))) == expected
    (flag,) = flags(track(detection_scores=np.array([0.71], np.float32)))
    assert flag.value == pytest.approx(0.71)


def turned(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> FloatArray:
    """Return the frontal points with the nose moved and everything turned in the picture."""
    points = FRONTAL.astype(np.float64)
    points[2] += (36 * yaw, 50 * pitch)
    angle, middle = np.radians(roll), points.mean(0)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return ((points - middle) @ rotation.T + middle).astype(np.float32)


@settings(deadline=None)
@given(st.floats(-1, 1), st.floats(-0.4, 0.4), st.floats(-89, 89), st.floats(0.2, 9))
def test_pose_is_read_whatever_the_size_and_the_tilt(
    yaw: float, pitch: float, roll: float, zoom: float
) -> None:
    found = pose((zoom * turned(yaw, pitch, roll) - 77)[None])[0]
    np.testing.assert_allclose(found, [yaw, q.USUAL_PITCH + pitch, roll], atol=2e-3 * max(1, abs(roll)))


def test_pose_of_points_that_are_not_known() -> None:
    points = np.stack([FRONTAL, np.full((5, 2), np.nan, np.float32), np.zeros((5, 2), np.float32)])
    found = pose(points)
    assert np.isfinite(found[0]).all() and np.isnan(found[1]).all() and np.isnan(found[2]).all()
    assert pose(np.zeros((0, 5, 2), np.float32)).shape == (0, 3)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (turned(yaw=q.MOST_YAW + 0.05), "side"),
        (turned(yaw=-q.MOST_YAW - 0.05), "side"),
        (turned(pitch=q.MOST_PITCH + 0.03), "up or down"),
        (turned(pitch=-q.MOST_PITCH - 0.03), "up or down"),
        (turned(roll=q.MOST_ROLL + 2), "tilted"),
        (turned(roll=-q.MOST_ROLL - 2), "tilted"),
    ],
)
def test_a_head_turned_away(points: FloatArray, words: str) -> None:
    (flag,) = flags(track(landmarks=points[None]))
    assert flag.kind == "turned" and words in flag.text and flag.value > flag.threshold
    assert flag.threshold in (q.MOST_YAW, q.MOST_PITCH, q.MOST_ROLL)


def test_of_several_turns_the_largest_for_its_bound_is_told() -> None:
    (flag,) = flags(track(landmarks=turned(yaw=2 * q.MOST_YAW, roll=q.MOST_ROLL + 1)[None]))
    assert "to the side" in flag.text and flag.value == pytest.approx(2 * q.MOST_YAW, abs=1e-3)


def test_a_head_turned_a_little_or_nobody_knows() -> None:
    for points in (
        turned(q.MOST_YAW - 0.05, q.MOST_PITCH - 0.03, q.MOST_ROLL - 2)[None],
        np.zeros((0, 5, 2), np.float32),
        np.full((1, 5, 2), np.nan, np.float32),
    ):
        assert kinds(track(landmarks=points)) == []


def test_clips_are_judged_by_the_median_frame() -> None:
    away, unknown = turned(yaw=1.0), np.full((5, 2), np.nan, np.float32)
    assert kinds(track(frames=5, landmarks=np.stack([away, FRONTAL, unknown, FRONTAL, unknown]))) == []
    assert kinds(track(frames=5, landmarks=np.stack([away, away, unknown, FRONTAL, unknown]))) == ["turned"]
    scores = np.array([0.75, 0.999, 0.999], np.float32)
    assert kinds(track(frames=3, detection_scores=scores)) == []
    boxes = np.stack([BOX, scaled(BOX, 20), scaled(BOX, 20)])
    assert kinds(track(frames=3, boxes_xyxy=boxes)) == ["small"]
    half = BOX - np.array([240, 0, 240, 0], np.float32)  # half of it is outside
    assert kinds(track(frames=3, boxes_xyxy=np.stack([BOX, BOX, half]))) == []
    assert kinds(track(frames=3, boxes_xyxy=np.stack([BOX, half, half]))) == ["outside"]


@pytest.mark.parametrize("second", [0.0, 0.3])
def test_an_undecided_answer(second: float) -> None:
    first = second + q.LEAST_LEAD if second else 0.5
    assert kinds(track(), predictions=(expression(first + 0.01, second),)) == []
    if second:
        (flag,) = flags(track(), predictions=(expression(first - 0.01, second),))
        assert flag.kind == "undecided" and flag.value == pytest.approx(q.LEAST_LEAD - 0.01, abs=1e-5)
        known = flag.text.values
        assert (known["task"], known["first"], known["second"], known["lead"]) == (
            "Expression",
            "Anger",
            "Contempt",
            flag.value,
        )


def test_an_answer_that_changes_over_the_frames() -> None:
    lead = q.LEAST_LEAD + 0.2
    for spread, expected in ((lead - 0.01, []), (lead + 0.01, ["undecided"])):
        prediction = expression(0.2 + lead, 0.2, spread=spread, frames=9)
        assert kinds(track(frames=9), predictions=(prediction,)) == expected
    (flag,) = flags(track(frames=9), predictions=(expression(0.2 + lead, 0.2, spread=0.6, frames=9),))
    assert flag.threshold == pytest.approx(0.6) and flag.text.values["limit"] == flag.threshold


def test_only_tasks_with_one_answer_can_be_undecided() -> None:
    flat = [
        Prediction(
            task, "trained", np.full(len(task.labels), 0.4, np.float32), np.full(len(task.labels), 0.9), 9
        )
        for task in TASKS
    ]
    found = [flag.text.values["task"] for flag in flags(track(), predictions=tuple(flat))]
    assert found == [task.title for task in TASKS if task.kind == "one_of"]
    single = EXPRESSION.subset(["Anger"])
    assert (
        kinds(
            track(),
            predictions=(Prediction(single, "trained", np.ones(1, np.float32), np.zeros(1, np.float32), 1),),
        )
        == []
    )


def divided(track_id: int, frames: int, same: int, count: int = 2) -> Disagreement:
    """Return how far checkpoints are apart that put the same label first in so many frames, and in the others
    all but the first another."""
    lines = []
    for number in range(count):
        values = np.full((frames, 8), 0.05, np.float32)
        values[:, 4] = 0.65
        if number:
            values[same:, [4, 6]] = (0.05, 0.65)
        lines.append(Timeline(EXPRESSION, "trained", np.arange(frames) / 10, values))
    refs = tuple(CheckpointRef(f"c{number}", f"Checkpoint {number}", "c" * 64) for number in range(count))
    decisions = (np.arange(frames) >= same).astype(np.float32)
    return Disagreement(track_id, EXPRESSION, refs, tuple(lines), decisions * 0.5, decisions)


@pytest.mark.parametrize(
    ("frames", "same", "flagged"), [(10, 4, True), (10, 5, False), (9, 4, True), (1, 0, True), (1, 1, False)]
)
def test_backbones_that_differ_more_often_than_not(frames: int, same: int, flagged: bool) -> None:
    faces = analysis(track(1, frames), track(2, frames, frame_index=np.arange(frames) + 100))
    one, other = quality(faces, SPEC, [divided(2, frames, same, count=3)])
    assert not one.flags, "it speaks of the other face"
    assert [flag.kind for flag in other.flags] == ["divided"] * flagged
    for flag in other.flags:
        assert (flag.value, flag.threshold) == (same / frames, 0.5)
        assert flag.text.values == {"task": "Expression", "count": 3, "same": same, "frames": frames}
        assert ("{frames}" in flag.text.template) == (frames > 1)


def test_only_tasks_with_one_answer_can_divide_backbones() -> None:
    several = make_siblings(2, faces=1, tasks=tuple(task for task in TASKS if task.kind != "one_of"))
    assert disagreements(several)
    assert "divided" not in [flag.kind for flag in quality(several[0], SPEC, disagreements(several))[0].flags]


def test_the_most_serious_comes_first() -> None:
    everything = track(
        boxes_xyxy=np.array([[-8, 150, 8, 170]], np.float32),
        detection_scores=np.array([0.72], np.float32),
        thumbnail=np.full((26, 18, 3), 90, np.uint8),
        landmarks=turned(yaw=1.0)[None],
    )
    other = (divided(1, frames=1, same=0),)
    found = quality(analysis(everything, track(2), predictions=(expression(0.3, 0.29),)), SPEC, other)[
        0
    ].flags
    assert [flag.kind for flag in found] == list(KINDS)
    assert [flag.kind for flag in found] == sorted((flag.kind for flag in found), key=KINDS.index)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 4), st.integers(0, 1000), st.sampled_from(["clip", "image"]))
def test_any_analysis_is_judged_and_no_flag_is_without_a_number(faces: int, seed: int, kind: str) -> None:
    made = make_analysis(faces, 6, seed=seed, kind=kind)  # type: ignore[arg-type]
    found = quality(made, SPEC, disagreements(make_siblings(2, faces=faces, frames=6, seed=seed, kind=kind)))
    assert [face.track_id for face in found] == [face.track.track_id for face in made.faces]
    for flag in (flag for face in found for flag in face.flags):
        assert np.isfinite([flag.value, flag.threshold]).all() and any(
            character.isdigit() for character in flag.text
        )
        low = flag.kind in ("unsure", "blurred", "undecided", "divided")
        assert flag.value < flag.threshold if low else flag.value > flag.threshold


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; import hsemotion_space.analysis.image_quality; assert not {'torch', 'plotly', 'scipy'} &"
        " sys.modules.keys()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parent.parent,
    )
    assert result.returncode == 0, result.stderr
