from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hsemotion_space.heads import activate, apply_heads, pair_mean, sigmoid, softmax
from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, HeadSpec, InputSpec
from hsemotion_space.tasks import ACTION_UNITS, COMPOUND_EXPRESSION, EXPRESSION, VALENCE_AROUSAL

PROBABILITIES = arrays(np.float32, (3, 8), elements=st.floats(0.0, 1.0, width=32))


def checkpoint(*heads: HeadSpec) -> Checkpoint:
    spec = InputSpec(64, "box", 0.0, (0, 0, 0), (1, 1, 1))
    return Checkpoint("x", "X", "MobileFaceNet", "", Path("x"), "", "0" * 64, "", 4, 10, spec, heads)


def test_softmax_by_hand_and_at_extremes() -> None:
    np.testing.assert_allclose(softmax(np.log(np.array([[1, 2, 5]], np.float32))), [[0.125, 0.25, 0.625]], rtol=1e-6)
    extreme = softmax(np.array([[1e4, 0, -1e4], [-1e38, 0, 1e38], [0, 0, 0]], np.float32))
    np.testing.assert_allclose(extreme, [[1, 0, 0], [0, 0, 1], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)
    assert extreme.dtype == np.float32


def test_sigmoid_by_hand_and_at_extremes() -> None:
    values = sigmoid(np.array([[0, np.log(3), -1e4, 1e4, -3e38]], np.float32))
    np.testing.assert_allclose(values, [[0.5, 0.75, 0, 1, 0]], atol=1e-7)
    assert values.dtype == np.float32


def test_activation_follows_the_kind() -> None:
    logits = np.array([[2.0, -3.0]], np.float32)
    assert activate(VALENCE_AROUSAL, logits).tolist() == [[1, -1]]
    assert activate(EXPRESSION.subset(["Fear", "Anger"]), logits).sum() == pytest.approx(1)
    units = ACTION_UNITS.subset(["AU1", "AU2"])
    np.testing.assert_allclose(activate(units, logits), 1 / (1 + np.exp(-logits)), rtol=1e-6)
    np.testing.assert_allclose(activate(units, logits, 2.0), 1 / (1 + np.exp(-logits / 2)), rtol=1e-6)


def test_pair_rule_by_hand() -> None:
    #              Anger Contempt Disgust Fear Happiness Neutral Sadness Surprise
    probabilities = np.array([[0.1, 0.05, 0.05, 0.2, 0.1, 0.0, 0.2, 0.3]], np.float32)
    means = np.array([0.5, 0.4, 0.5, 0.35, 0.4, 0.4, 0.3]) / 2  # in the order of the labels
    np.testing.assert_allclose(pair_mean(COMPOUND_EXPRESSION, EXPRESSION, probabilities), [means / means.sum()], rtol=1e-6)


@settings(deadline=None)
@given(PROBABILITIES)
def test_pair_rule_agrees_with_the_arg_max_of_the_paper(probabilities: np.ndarray) -> None:
    values = pair_mean(COMPOUND_EXPRESSION, EXPRESSION, probabilities)
    for row, result in zip(probabilities, values, strict=True):
        by_name = dict(zip(EXPRESSION.label_names, row.astype(np.float64), strict=True))
        scores = [(by_name[label.parts[0]] + by_name[label.parts[1]]) / 2 for label in COMPOUND_EXPRESSION.labels]
        assert scores[int(result.argmax())] == pytest.approx(max(scores), abs=1e-6)
        assert result.sum() == pytest.approx(1 if max(scores) > 1e-6 else result.sum(), abs=1e-5)


def test_pair_rule_reads_by_name_not_by_place() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(8), 5).astype(np.float32)
    expected = pair_mean(COMPOUND_EXPRESSION, EXPRESSION, probabilities)
    for order in list(permutations(range(8)))[::5000]:
        shuffled = EXPRESSION.subset([EXPRESSION.label_names[column] for column in order])
        np.testing.assert_allclose(pair_mean(COMPOUND_EXPRESSION, shuffled, probabilities[:, order]), expected, rtol=1e-5)


def test_heads_take_their_columns_in_their_order() -> None:
    scores = np.arange(20, dtype=np.float32).reshape(2, 10) / 10
    three = EXPRESSION.subset(["Surprise", "Fear", "Anger"])
    results = apply_heads(
        checkpoint(
            HeadSpec(three, "scores", "trained", (4, 0, 9)),
            HeadSpec(VALENCE_AROUSAL, "scores", "trained", (1, 0)),
            HeadSpec(COMPOUND_EXPRESSION.subset(["Fearfully surprised"]), "pair_mean", "rule", source="expression"),
        ),
        scores,
    )
    assert [head.task.name for head, _ in results] == ["expression", "valence_arousal", "compound_expression"]
    np.testing.assert_allclose(results[0][1], softmax(scores[:, [4, 0, 9]]))
    np.testing.assert_allclose(results[1][1], np.clip(scores[:, [1, 0]], -1, 1))
    np.testing.assert_allclose(results[2][1], [[1], [1]])


def test_temperature_divides_logits() -> None:
    scores = np.array([[1, 3, 0, 0, 0, 0, 0, 0, 0, 0]], np.float32)
    head = HeadSpec(EXPRESSION.subset(["Anger", "Fear"]), "scores", "trained", (0, 1))
    cold, warm = (apply_heads(checkpoint(replace(head, temperature=t)), scores)[0][1] for t in (1.0, 4.0))
    np.testing.assert_allclose(np.log(cold[0, 1] / cold[0, 0]), 2, rtol=1e-5)
    np.testing.assert_allclose(np.log(warm[0, 1] / warm[0, 0]), 0.5, rtol=1e-5)


def test_a_rule_needs_its_source_first() -> None:
    with pytest.raises(CheckpointError, match="compound_expression reads 'expression'"):
        apply_heads(checkpoint(HeadSpec(COMPOUND_EXPRESSION, "pair_mean", "rule", source="expression")), np.zeros((1, 10), np.float32))
