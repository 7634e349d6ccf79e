"""Occlusion maps: on networks of which it is known where they look, and on the bundled starters."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_makers import make_checkpoint
from face_makers import FACE_BOX, draw_face
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFilter
from scipy.stats import spearmanr

from hsemotion_space.alignment import align_face
from hsemotion_space.engine import EngineName, EngineOptions, normalize
from hsemotion_space.explain import LEAST_DROP, STABLE, ExplainError, Grid, Run, _spread, explain, rank_correlation
from hsemotion_space.heads import apply_heads
from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.hub.registry import list_checkpoints
from hsemotion_space.hub.weights import load_heads
from hsemotion_space.pipeline import load_network
from hsemotion_space.types import ByteArray, FloatArray

ROOT = Path(__file__).resolve().parent.parent / "checkpoints"
BUNDLED = [checkpoint for checkpoint in list_checkpoints([ROOT]) if checkpoint.weights_bytes]
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
def test_the_map_is_where_the_network_looks_and_nowhere_else(
    checkpoint: Checkpoint, columns: tuple[int, ...], what: tuple[str, str]
) -> None:
    gain = 0.7 if "valence_arousal" in what else 4.0  # no clipping at 1
    found = explain(looking(*columns, gain=gain), checkpoint, spotted(), what)
    assert (found.map.shape, found.map.dtype, found.task.name, found.label) == ((SIZE, SIZE), np.float32, *what)
    row, col = np.unravel_index(found.map.argmax(), found.map.shape)
    assert SPOT[0].start <= row < SPOT[0].stop and SPOT[1].start <= col < SPOT[1].stop
    near = [np.arange(max(0, side.start - found.patch + 1), min(side.stop + found.patch - 1, SIZE)) for side in SPOT]
    reach = np.zeros((SIZE, SIZE), bool)
    reach[np.ix_(*near)] = True
    assert np.abs(found.map[~reach]).max() < 1e-6, "patches that do not touch the spot change nothing"
    x0, y0, x1, y1 = found.place_xyxy
    assert x0 <= SPOT[1].start and SPOT[1].stop <= x1 and y0 <= SPOT[0].start and SPOT[0].stop <= y1, "the strongest patch covers the spot"
    assert found.drop > 0.1 and found.stability > 0.9 and found.verdict == "clear"
    assert f"{found.drop:.2f}" in found.words and f"{found.value:.2f}" in found.words and f"{found.stability:.2f}" in found.words


def test_the_drop_is_that_of_hiding_the_place(checkpoint: Checkpoint) -> None:
    """Worked by hand: with gray instead of the spot the logit is the mean color's, with the blurred face the blurred spot's."""
    face, found = spotted(), explain(looking(8, gain=0.7), checkpoint, spotted(), ("valence_arousal", "Valence"))
    blurred = np.asarray(Image.fromarray(face).filter(ImageFilter.GaussianBlur(found.patch / 2)))
    gray = np.round(face.mean((0, 1)))
    value, *hidden = (0.7 * (2 * np.mean(pixels) / 255 - 1) for pixels in (face[SPOT], gray, blurred[SPOT]))
    assert found.value == pytest.approx(value, abs=1e-5)
    assert found.drop == pytest.approx(value - np.mean(hidden), abs=1e-5)


def test_hiding_what_lowers_a_value_is_negative(checkpoint: Checkpoint) -> None:
    found = explain(looking(0), checkpoint, spotted(), HAPPY)
    assert found.map.min() < -0.01 and found.map.max() < 1e-6
    assert found.verdict == "none" and found.drop <= 1e-6


def test_a_network_that_sees_nothing_has_no_map(checkpoint: Checkpoint) -> None:
    found = explain(blind, checkpoint, draw_face(SIZE), HAPPY)
    assert not found.map.any() and found.drop == 0 and found.stability == 0 and found.verdict == "none"
    assert found.value == pytest.approx(1 / 8) and "0.00 at most" in found.words


def test_ways_of_hiding_that_disagree_make_it_unstable(checkpoint: Checkpoint) -> None:
    """The spot is brighter than the face on the whole and darker than its surroundings: gray darkens it, blur lightens it."""
    face = np.zeros((SIZE, SIZE, 3), np.uint8)
    face[24:, :40] = 230
    face[SPOT] = 200
    found = explain(looking(8, gain=0.9), checkpoint, face, ("valence_arousal", "Valence"))
    assert found.stability < 0 and found.drop > LEAST_DROP * 2
    assert found.verdict == "unstable" and f"{found.stability:.2f}" in found.words and "disagree" in found.words


def test_the_bounds_of_the_verdict(checkpoint: Checkpoint) -> None:
    """A change of less than the least share of the range shows no place, a correlation below the bound no map that can be read."""
    found = explain(looking(4), checkpoint, spotted(), HAPPY)
    for drop, stability, verdict in (
        (LEAST_DROP, STABLE, "clear"),
        (LEAST_DROP - 1e-6, 1.0, "none"),
        (LEAST_DROP, STABLE - 1e-6, "unstable"),
        (-0.2, 0.0, "none"),
    ):
        assert replace(found, drop=drop, stability=stability).verdict == verdict
    affect = explain(looking(8, gain=0.7), checkpoint, spotted(), ("valence_arousal", "Valence"))
    assert replace(affect, drop=2 * LEAST_DROP - 1e-6).verdict == "none", "the range from -1 to 1 is twice as wide"


def test_equal_calls_give_equal_maps() -> None:
    network = load_network(BUNDLED[0], EngineOptions("openvino", threads=1))
    face = align_face(draw_face(200), 200 * np.array(FACE_BOX), network.checkpoint.input)
    first, second = (explain(network.run, network.checkpoint, face, HAPPY) for _ in range(2))
    assert np.array_equal(first.map, second.map) and (first.drop, first.stability) == (second.drop, second.stability)
    assert first.map.any()


@pytest.mark.parametrize("bundled", BUNDLED, ids=lambda item: item.id)
def test_every_starter_explains_every_value_of_a_face(bundled: Checkpoint) -> None:
    """The value is that of the pipeline's own heads, whatever the kind of task."""
    network = load_network(bundled, EngineOptions("openvino", threads=1))
    spec = bundled.input
    face = align_face(draw_face(200), 200 * np.array(FACE_BOX), spec)
    outputs = Outputs(*network.run(normalize(face[None], spec.mean, spec.std)))
    expected = {head.task.name: values[0] for head, values in apply_heads(bundled, load_heads(bundled), outputs)}
    few = Grid(0.5, 0.5)
    assert len(expected) == 4
    for name, values in expected.items():
        task = next(head.task for head in bundled.heads if head.task.name == name)
        for label in (task.label_names[0], task.label_names[-1]):
            found = explain(network.run, bundled, face, (name, label), few)
            assert found.value == pytest.approx(float(values[task.index(label)]), abs=1e-4)
            assert np.isfinite(found.map).all() and -1 <= found.stability <= 1 and found.patch == found.stride == spec.size // 2


def test_both_engines_give_one_map() -> None:
    bundled = BUNDLED[0]
    face = align_face(draw_face(200), 200 * np.array(FACE_BOX), bundled.input)
    runs = [load_network(bundled, EngineOptions(name, threads=1)).run for name in ENGINES]
    largest = 0.0
    for label in bundled.heads[0].task.label_names:
        ours, theirs = (explain(run, bundled, face, ("expression", label), Grid(0.5, 0.5)).map for run in runs)
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
        largest = max(largest, float(np.abs(ours).max()))
    assert largest > 0.05, "there was something to compare"


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (("mimicry_intensity", "Joy"), "whole clip"),
        (("expression", "Boredom"), "no label 'Boredom'"),
        (("horoscope", "Joy"), "gives no task 'horoscope'"),
    ],
)
def test_what_cannot_be_explained_is_told(what: tuple[str, str], words: str) -> None:
    with pytest.raises(ExplainError, match=words):
        explain(blind, BUNDLED[0], draw_face(BUNDLED[0].input.size), what)


@pytest.mark.parametrize("face", [np.zeros((63, 112, 3), np.uint8), np.zeros((112, 112), np.uint8), np.zeros((112, 112, 3), np.float32)])
def test_a_face_of_another_size_is_refused(face: ByteArray) -> None:
    assert BUNDLED[0].input.size == 112
    with pytest.raises(ExplainError, match=r"needs a face of shape \(112, 112, 3\) in uint8"):
        explain(blind, BUNDLED[0], face, HAPPY)


def test_a_reordered_checkpoint_is_explained_by_name(checkpoint: Checkpoint) -> None:
    """Labels may come in another order and from other columns; the name decides."""
    head = checkpoint.heads[0]
    task = head.task.subset(["Surprise", "Happiness", "Neutral"])
    other = replace(checkpoint, heads=(replace(head, task=task, columns=(7, 6, 5)),))
    assert explain(looking(6), other, spotted(), HAPPY).verdict == "clear"
    assert explain(looking(4), other, spotted(), HAPPY).verdict == "none"


@pytest.mark.parametrize(
    ("size", "grid"), [(64, Grid()), (112, Grid()), (224, Grid()), (260, Grid()), (64, Grid(0.3, 0.17)), (16, Grid(0.01, 0.3))]
)
def test_patches_reach_both_edges_and_leave_no_gap_wider_than_the_stride(size: int, grid: Grid) -> None:
    patch, edges = grid.corners(size)
    assert edges[0] == 0 and edges[-1] + patch == size and 1 <= patch <= size
    assert np.diff(edges).max() <= max(1.5 * grid.stride * size, 1.0) and (np.diff(edges) > 0).all()
    assert Grid(1.0, 0.1).corners(size)[1].tolist() == [0]


@pytest.mark.parametrize("grid", [Grid(), Grid(0.3, 0.17), Grid(0.5, 0.5), Grid(0.1, 0.1)])
def test_a_pixel_is_the_mean_of_the_patches_that_cover_it(grid: Grid) -> None:
    patch, edges = grid.corners(SIZE)
    drops = np.random.default_rng(0).normal(0, 1, (len(edges), len(edges)))
    found = _spread(drops, patch, edges, SIZE)
    for row, column in ((0, 0), (5, 40), (31, 32), (63, 63), (12, 63)):
        over = [[edge <= at < edge + patch for edge in edges] for at in (row, column)]
        covering = drops[np.ix_(*over)]
        assert found[row, column] == pytest.approx(covering.mean() if covering.size else 0, abs=1e-6)


def test_the_standard_grid_needs_a_hundred_faces_whatever_the_size() -> None:
    assert {2 * len(Grid().corners(size)[1]) ** 2 for size in (64, 112, 224, 260)} == {98}


@given(hnp.arrays(np.float64, st.integers(2, 30), elements=st.integers(-4, 4).map(float)), st.integers(0, 2**32 - 1))
def test_rank_correlation_is_spearmans(first: np.ndarray, seed: int) -> None:
    second = np.random.default_rng(seed).integers(-4, 5, len(first)).astype(np.float64)
    found = rank_correlation(first, second)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert found == 0
    else:
        assert found == pytest.approx(spearmanr(first, second).statistic, abs=1e-9)


def test_a_map_must_be_square(checkpoint: Checkpoint) -> None:
    found = explain(blind, checkpoint, draw_face(SIZE), HAPPY)
    with pytest.raises(ValueError, match=r"Saliency\.map"):
        replace(found, map=np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match="no label"):
        replace(found, label="Boredom")


def test_a_page_can_read_a_map_without_torch(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """What comes back from the worker is read in a process that has neither the network nor torch."""
    file = tmp_path / "map"
    file.write_bytes(pickle.dumps(explain(looking(4), checkpoint, spotted(), HAPPY)))
    code = (
        "import pickle, sys; from pathlib import Path; found = pickle.loads(Path(sys.argv[1]).read_bytes()); "
        "print(found.words); assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert result.returncode == 0 and "Happiness" in result.stdout, result.stderr
