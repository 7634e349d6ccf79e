from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
from analysis_makers import make_analysis
from feedback_makers import refused
from PIL import Image

from hsemotion_space.feedback.crops import BLEED, GRAY, MOST_SIDE, UNCLEAR, make_crop, preview
from hsemotion_space.inference.batcher import thumbnail
from hsemotion_space.types import Analysis, ByteArray

WIDTH, HEIGHT = 640, 480
BACKGROUND, OWN, OTHER = (10, 10, 10), (0, 200, 0), (250, 0, 0)


def scene(boxes: list[tuple[float, float, float, float]]) -> ByteArray:
    """Paint the first face green and all others, on top, red."""
    picture = np.full((HEIGHT, WIDTH, 3), BACKGROUND, np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        picture[max(int(y0), 0) : max(int(y1) + 1, 0), max(int(x0), 0) : max(int(x1) + 1, 0)] = (
            OTHER if number else OWN
        )
    return picture


def seen(boxes: list[tuple[float, float, float, float]]) -> Analysis:
    """Return an analysis of a picture with these faces; the pipeline has cut the thumbnail of the first."""
    analysis = make_analysis(len(boxes), kind="image")
    for number, box in enumerate(boxes, 1):
        analysis = with_track(analysis, number, boxes_xyxy=np.array([box], np.float32))
    return with_track(analysis, 1, thumbnail=thumbnail(scene(boxes), np.array(boxes[0], np.float32)))


def with_track(analysis: Analysis, number: int, **changes: object) -> Analysis:
    faces = [
        replace(face, track=replace(face.track, **changes)) if face.track.track_id == number else face
        for face in analysis.faces
    ]
    return replace(analysis, faces=tuple(faces))


def chunks(png: bytes) -> list[bytes]:
    found, place = [], 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        found.append(png[place + 4 : place + 8])
        place += length + 12
    return found


def redness(pixels: ByteArray) -> int:
    return int((pixels[..., 0].astype(int) - pixels[..., 1]).max())


def test_a_crop_is_the_previewed_pixels_as_png_with_no_metadata_and_always_the_same() -> None:
    for number in (1, 2):
        analysis = make_analysis(seed=number)
        png = make_crop(analysis, number)
        assert set(chunks(png)) == {b"IHDR", b"IDAT", b"IEND"}
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), preview(analysis, number))
        assert png == make_crop(make_analysis(seed=number), number)


def test_a_crop_has_at_most_224_px_and_the_thumbnail_stays_as_it_is() -> None:
    large = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    analysis = with_track(make_analysis(1), 1, thumbnail=large.copy())
    assert preview(analysis, 1).shape == (168, MOST_SIDE, 3)
    assert np.array_equal(analysis.faces[0].track.thumbnail, large)


def test_a_face_alone_is_kept_as_it_is() -> None:
    analysis = seen([(200, 100, 320, 240)])
    assert np.array_equal(preview(analysis, 1), analysis.faces[0].track.thumbnail)


def test_no_pixel_of_another_face_is_left_wherever_it_is() -> None:
    rng = np.random.default_rng(5)
    painted = 0
    for _ in range(400):
        x0, y0 = rng.uniform(0, WIDTH - 60), rng.uniform(0, HEIGHT - 60)
        side = rng.uniform(30, 300)
        boxes = [(x0, y0, min(x0 + side, WIDTH), min(y0 + side * rng.uniform(0.8, 1.4), HEIGHT))]
        for _ in range(rng.integers(1, 4)):
            left, top = x0 + rng.uniform(-1.3, 1.3) * side, y0 + rng.uniform(-1.3, 1.3) * side
            boxes.append((left, top, left + rng.uniform(0.3, 1.2) * side, top + rng.uniform(0.3, 1.2) * side))
        analysis = seen(boxes)
        painted += redness(analysis.faces[0].track.thumbnail) > 20
        assert redness(preview(analysis, 1)) <= 0
    assert painted > 200  # the pictures did show others


def test_only_what_is_near_another_face_is_painted_over() -> None:
    analysis = seen([(200, 100, 300, 200), (295, 100, 395, 200)])
    pixels, thumbnail = preview(analysis, 1), analysis.faces[0].track.thumbnail
    gray = (pixels == GRAY).all(axis=-1)
    assert gray[:, -20:].any(axis=0).all()
    assert not gray[:, : thumbnail.shape[1] // 2].any()
    assert np.array_equal(pixels[~gray], thumbnail[~gray])


def test_a_face_that_was_missed_in_the_frame_is_painted_over_where_it_was_before_and_after() -> None:
    analysis = seen([(200, 100, 300, 200), (290, 100, 390, 200)])
    first, second = (face.track for face in analysis.faces)
    later = replace(second, frame_index=second.frame_index + 4, times_s=second.times_s + 0.4)
    missed = replace(analysis, faces=(analysis.faces[0], replace(analysis.faces[1], track=later)))
    assert np.array_equal(preview(missed, 1), preview(analysis, 1))
    gone = replace(
        missed,
        faces=(missed.faces[0], replace(missed.faces[1], track=replace(later, times_s=later.times_s + 2))),
    )
    assert np.array_equal(preview(gone, 1), first.thumbnail)


def test_the_frame_of_the_thumbnail_counts_in_a_clip() -> None:
    boxes = np.array([[200, 100, 300, 200]] * 3, np.float32)
    beside = np.array([[500, 100, 600, 200], [290, 100, 390, 200], [500, 100, 600, 200]], np.float32)
    picture = scene([tuple(boxes[1]), tuple(beside[1])])
    analysis = with_track(make_analysis(2, frames=3, gap=False), 2, boxes_xyxy=beside)
    surest = {
        "detection_scores": np.array([0.5, 0.9, 0.9], np.float32),
        "thumbnail": thumbnail(picture, boxes[1]),
    }
    assert redness(preview(with_track(analysis, 1, boxes_xyxy=boxes, **surest), 1)) <= 0
    elsewhere = {**surest, "detection_scores": np.array([0.9, 0.5, 0.5], np.float32)}
    # so the frame did matter
    assert redness(preview(with_track(analysis, 1, boxes_xyxy=boxes, **elsewhere), 1)) > 100


def test_nothing_is_kept_where_it_is_not_known_what_the_thumbnail_shows() -> None:
    analysis = with_track(make_analysis(2, kind="image"), 1, thumbnail=np.zeros((40, 80, 3), np.uint8))
    with refused("crop_unclear") as caught:
        make_crop(analysis, 1)
    assert str(caught.value) == UNCLEAR
    assert make_crop(replace(analysis, faces=analysis.faces[:1]), 1)


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_face_that_is_not_there_has_no_crop(number: int) -> None:
    with refused("no_face"):
        make_crop(make_analysis(2), number)


def test_neighbors_are_mixed_into_no_more_pixels_than_are_painted_over() -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:, 320:] = 255
    box = np.array([100, 20, 500, 420], np.float32)
    shown = thumbnail(picture, box)
    edge = (320 - max(300 - 260, 0)) * shown.shape[1] / 520
    mixed = np.flatnonzero(
        ((shown[0, :, 0] > 0) & (shown[0, :, 0] < 255)) | (np.arange(shown.shape[1]) == int(edge))
    )
    assert np.abs(mixed - edge).max() <= BLEED
