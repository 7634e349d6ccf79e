"""Occlusion maps: on networks of which it is known where they look, and on a starter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_makers import make_checkpoint
from error_codes import raises_code
from face_makers import FACE_BOX, draw_face
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFilter
from scipy.stats import spearmanr

from hsemotion_space.analysis.saliency import (
    LEAST_DROP,
    STABLE,
    ExplainError,
    Grid,
    Run,
    _spread,
    explain,
    rank_correlation,
)
from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.hub.weights import load_heads
from hsemotion_space.inference.heads import apply_heads
from hsemotion_space.inference.network import load_network
from hsemotion_space.tasks import MIMICRY_INTENSITY
from hsemotion_space.types import ByteArray, FloatArray
from hsemotion_space.vision.alignment import align_face
from hsemotion_space.vision.engine import EngineName, EngineOptions, normalize

ROOT = Path(__file__).resolve().parent.parent / "checkpoints"
SIZE, SPOT = 64, (slice(40, 48), slice(16, 24))  # rows and columns at which the made network looks
ENGINES: tuple[EngineName, ...] = ("openvino", "torch")
HAPPY = ("expression", "Happiness")


@dataclass(frozen=True)
class Outputs:
    embeddings: FloatArray
    scores: FloatArray


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Heads for the outputs of made networks: expression, valence and arousal, the compound rule."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "made")


def spotted() -> ByteArray:
    """Return gray noise of little contrast with one bright spot, where the made network looks."""
    face = np.random.default_rng(0).integers(90, 110, (SIZE, SIZE, 3)).astype(np.uint8)
    face[SPOT] = 250
    return face


def looking(*columns: int, gain: float = 4.0) -> Run:
    """Return a network whose outputs ``columns`` are the brightness of the spot; all others are 0."""

    def run(faces: FloatArray) -> tuple[FloatArray, ...]:
        scores = np.zeros((len(faces), 10), np.float32)
        scores[:, list(columns)] = gain * faces[:, :, SPOT[0], SPOT[1]].mean((1, 2, 3))[:, None]
        return np.zeros((len(faces), 512), np.float32), scores

    return run


def blind(faces: FloatArray) -> tuple[FloatArray, ...]:
    return np.zeros((len(faces), 512), np.float32), np.ones((len(faces), 10), np.float32)


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ((4,), HAPPY),
        ((8,), ("valence_arousal", "Valence")),
        ((9,), ("valence_arousal", "Arousal")),
        ((4, 7), ("compound_expression", "Happily surprised")),
    ],
)
def test_explain_finds_where_the_network_looks(
    checkpoint: Checkpoint, columns: tuple[int, ...], what: tuple[str, str]
) -> None:
    gain = 0.7 if "valence_arousal" in what else 4.0  # no clipping at 1
    found = explain(looking(*columns, gain=gain), checkpoint, spotted(), what)
    assert (found.map.shape, found.map.dtype, found.task.name, found.label) == (
        (SIZE, SIZE),
        np.float32,
        *what,
    )
    row, col = np.unravel_index(found.map.argmax(), found.map.shape)
    assert SPOT[0].start <= row < SPOT[0].stop and SPOT[1].start <= col < SPOT[1].stop
    near = [
        np.arange(max(0, side.start - found.patch + 1), min(side.stop + found.patch - 1, SIZE))
        for side in SPOT
    ]
    reach = np.zeros((SIZE, SIZE), bool)
    reach[np.ix_(*near)] = True
    assert np.abs(found.map[~reach]).max() < 1e-6, "patches that do not touch the spot change nothing"
    x0, y0, x1, y1 = found.place_xyxy
    assert x0 <= SPOT[1].start and SPOT[1].stop <= x1 and y0 <= SPOT[0].start and SPOT[0].stop <= y1, (
        "the strongest patch covers the spot"
    )
    assert found.drop > 0.1 and found.stability > 0.9 and found.verdict == "clear"
    known = {"drop": found.drop, "value": found.value, "found": found.stability}
    assert found.summary.values.items() >= known.items()


def test_drop_is_that_of_hiding_the_place(checkpoint: Checkpoint) -> None:
    """Worked by hand: with gray instead of the spot the logit is the mean color's, with the blurred face the
    blurred spot's."""
    face, found = (
        spotted(),
        explain(looking(8, gain=0.7), checkpoint, spotted(), ("valence_arousal", "Valence")),
    )
    blurred = np.asarray(Image.fromarray(face).filter(ImageFilter.GaussianBlur(found.patch / 2)))
    gray = np.round(face.mean((0, 1)))
    value, *hidden = (0.7 * (2 * np.mean(pixels) / 255 - 1) for pixels in (face[SPOT], gray, blurred[SPOT]))
    assert found.value == pytest.approx(value, abs=1e-5)
    assert found.drop == pytest.approx(value - np.mean(hidden), abs=1e-5)


def test_map_is_negative_where_the_value_is_lowered(checkpoint: Checkpoint) -> None:
    found = explain(looking(0), checkpoint, spotted(), HAPPY)
    assert found.map.min() < -0.01 and found.map.max() < 1e-6
    assert found.verdict == "none" and found.drop <= 1e-6


def test_map_is_empty_for_a_blind_network(checkpoint: Checkpoint) -> None:
    found = explain(blind, checkpoint, draw_face(SIZE), HAPPY)
    assert not found.map.any() and found.drop == 0 and found.stability == 0 and found.verdict == "none"
    assert found.value == pytest.approx(1 / 8) and found.summary.values["drop"] == 0


def test_verdict_is_unstable_if_ways_of_hiding_disagree(checkpoint: Checkpoint) -> None:
    """The spot is brighter than the face on the whole and darker than its surroundings: gray darkens it, blur
    lightens it."""
    face = np.zeros((SIZE, SIZE, 3), np.uint8)
    face[24:, :40] = 230
    face[SPOT] = 200
    found = explain(looking(8, gain=0.9), checkpoint, face, ("valence_arousal", "Valence"))
    assert found.stability < 0 and found.drop > LEAST_DROP * 2
    assert found.verdict == "unstable" and found.summary.values["found"] == found.stability


def test_verdict_at_its_bounds(checkpoint: Checkpoint) -> None:
    """A change of less than the least share of the range shows no place, a correlation below the bound no map
    that can be read."""
    found = explain(looking(4), checkpoint, spotted(), HAPPY)
    for drop, stability, verdict in (
        (LEAST_DROP, STABLE, "clear"),
        (LEAST_DROP - 1e-6, 1.0, "none"),
        (LEAST_DROP, STABLE - 1e-6, "unstable"),
        (-0.2, 0.0, "none"),
    ):
        assert replace(found, drop=drop, stability=stability).verdict == verdict
    affect = explain(looking(8, gain=0.7), checkpoint, spotted(), ("valence_arousal", "Valence"))
    assert replace(affect, drop=2 * LEAST_DROP - 1e-6).verdict == "none", (
        "the range from -1 to 1 is twice as wide"
    )


def test_explain_gives_the_values_of_the_heads_and_equal_maps_on_both_engines() -> None:
    """With a starter: every task of a frame, with the value of the pipeline's own heads."""
    bundled = find_checkpoint([ROOT], "mobilefacenet-starter")
    spec, few = bundled.input, Grid(0.5, 0.5)
    face = align_face(draw_face(200), 200 * np.array(FACE_BOX), spec)
    ours, theirs = (load_network(bundled, EngineOptions(name, threads=1)).run for name in ENGINES)
    outputs = Outputs(*ours(normalize(face[None], spec.mean, spec.std)))
    expected = apply_heads(bundled, load_heads(bundled), outputs)
    assert len(expected) == 4
    for head, (values,) in expected:
        for label in (head.task.label_names[0], head.task.label_names[-1]):
            what = (head.task.name, label)
            found, again, other = (explain(run, bundled, face, what, few) for run in (ours, ours, theirs))
            assert found.value == pytest.approx(float(values[head.task.index(label)]), abs=1e-4)
            assert -1 <= found.stability <= 1 and found.patch == found.stride == spec.size // 2
            assert np.array_equal(found.map, again.map) and found.map.any()
            np.testing.assert_allclose(found.map, other.map, atol=1e-3)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (("mimicry_intensity", "Joy"), "clip_task"),
        (("expression", "Boredom"), "no_label"),
        (("horoscope", "Joy"), "no_task"),
    ],
)
def test_explain_refuses_a_value_that_has_no_map(
    checkpoint: Checkpoint, what: tuple[str, str], code: str
) -> None:
    mimicry = replace(checkpoint.heads[2], task=MIMICRY_INTENSITY, kind="prior")
    with raises_code(ExplainError, code):
        explain(blind, replace(checkpoint, heads=(*checkpoint.heads, mimicry)), draw_face(SIZE), what)


@pytest.mark.parametrize(
    "face", [np.zeros((63, 64, 3), np.uint8), np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.float32)]
)
def test_explain_refuses_a_face_of_another_size_or_type(checkpoint: Checkpoint, face: ByteArray) -> None:
    with raises_code(ExplainError, "face_shape"):
        explain(blind, checkpoint, face, HAPPY)


def test_explain_finds_labels_by_name_in_any_order(checkpoint: Checkpoint) -> None:
    """Labels may come in another order and from other columns; the name decides."""
    head = checkpoint.heads[0]
    task = head.task.subset(["Surprise", "Happiness", "Neutral"])
    other = replace(checkpoint, heads=(replace(head, task=task, columns=(7, 6, 5)),))
    assert explain(looking(6), other, spotted(), HAPPY).verdict == "clear"
    assert explain(looking(4), other, spotted(), HAPPY).verdict == "none"


@pytest.mark.parametrize(
    ("size", "grid"),
    [(64, Grid()), (112, Grid()), (224, Grid()), (260, Grid()), (64, Grid(0.3, 0.17)), (16, Grid(0.01, 0.3))],
)
def test_corners_reach_both_edges_without_wide_gaps(size: int, grid: Grid) -> None:
    patch, edges = grid.corners(size)
    assert edges[0] == 0 and edges[-1] + patch == size and 1 <= patch <= size
    assert np.diff(edges).max() <= max(1.5 * grid.stride * size, 1.0) and (np.diff(edges) > 0).all()
    assert Grid(1.0, 0.1).corners(size)[1].tolist() == [0]
    assert 2 * len(Grid().corners(max(size, 64))[1]) ** 2 == 98, "a hundred faces, whatever the size"


@pytest.mark.parametrize("grid", [Grid(), Grid(0.3, 0.17), Grid(0.5, 0.5), Grid(0.1, 0.1)])
def test_spread_gives_the_mean_of_covering_patches(grid: Grid) -> None:
    patch, edges = grid.corners(SIZE)
    drops = np.random.default_rng(0).normal(0, 1, (len(edges), len(edges)))
    found = _spread(drops, patch, edges, SIZE)
    for row, column in ((0, 0), (5, 40), (31, 32), (63, 63), (12, 63)):
        over = [[edge <= at < edge + patch for edge in edges] for at in (row, column)]
        covering = drops[np.ix_(*over)]
        assert found[row, column] == pytest.approx(covering.mean() if covering.size else 0, abs=1e-6)


@given(
    hnp.arrays(np.float64, st.integers(2, 30), elements=st.integers(-4, 4).map(float)),
    st.integers(0, 2**32 - 1),
)
def test_rank_correlation_is_spearmans(first: np.ndarray, seed: int) -> None:
    second = np.random.default_rng(seed).integers(-4, 5, len(first)).astype(np.float64)
    found = rank_correlation(first, second)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert found == 0
    else:
        assert found == pytest.approx(spearmanr(first, second).statistic, abs=1e-9)


def test_saliency_refuses_a_map_that_is_not_square(checkpoint: Checkpoint) -> None:
    found = explain(blind, checkpoint, draw_face(SIZE), HAPPY)
    with pytest.raises(ValueError, match=r"Saliency\.map"):
        replace(found, map=np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match="no label"):
        replace(found, label="Boredom")
