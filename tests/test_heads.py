from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from error_codes import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, HeadSpec, InputSpec
from hsemotion_space.hub.source import Digest, Source
from hsemotion_space.inference.heads import (
    activate,
    apply_heads,
    clip_statistics,
    pair_mean,
    run_layers,
    sigmoid,
    softmax,
    word_norm_prior,
)
from hsemotion_space.tasks import (
    ACTION_UNITS,
    COMPOUND_EXPRESSION,
    EXPRESSION,
    MIMICRY_INTENSITY,
    VALENCE_AROUSAL,
)

PROBABILITIES = arrays(np.float32, (3, 8), elements=st.floats(0.0, 1.0, width=32))


@dataclass(frozen=True)
class Outputs:
    scores: np.ndarray
    embeddings: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))


def checkpoint(*heads: HeadSpec) -> Checkpoint:
    spec = InputSpec(64, "box", 0.0, (0, 0, 0), (1, 1, 1))
    return Checkpoint(
        "x",
        "X",
        "MobileFaceNet",
        "",
        Path("x"),
        Source("", Digest("0" * 64), Digest(), None, None),
        "",
        4,
        10,
        spec,
        heads,
    )


def test_softmax_by_hand_and_at_extremes() -> None:
    np.testing.assert_allclose(
        softmax(np.log(np.array([[1, 2, 5]], np.float32))), [[0.125, 0.25, 0.625]], rtol=1e-6
    )
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
    np.testing.assert_allclose(
        pair_mean(COMPOUND_EXPRESSION, EXPRESSION, probabilities), [means / means.sum()], rtol=1e-6
    )


@settings(deadline=None)
@given(PROBABILITIES)
def test_pair_rule_agrees_with_the_arg_max_of_the_paper(probabilities: np.ndarray) -> None:
    values = pair_mean(COMPOUND_EXPRESSION, EXPRESSION, probabilities)
    for row, result in zip(probabilities, values, strict=True):
        by_name = dict(zip(EXPRESSION.label_names, row.astype(np.float64), strict=True))
        scores = [
            (by_name[label.parts[0]] + by_name[label.parts[1]]) / 2 for label in COMPOUND_EXPRESSION.labels
        ]
        assert scores[int(result.argmax())] == pytest.approx(max(scores), abs=1e-6)
        assert result.sum() == pytest.approx(1 if max(scores) > 1e-6 else result.sum(), abs=1e-5)


def test_pair_rule_reads_by_name_not_by_place() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(8), 5).astype(np.float32)
    expected = pair_mean(COMPOUND_EXPRESSION, EXPRESSION, probabilities)
    for order in list(permutations(range(8)))[::5000]:
        shuffled = EXPRESSION.subset([EXPRESSION.label_names[column] for column in order])
        np.testing.assert_allclose(
            pair_mean(COMPOUND_EXPRESSION, shuffled, probabilities[:, order]), expected, rtol=1e-5
        )


def test_heads_take_their_columns_in_their_order() -> None:
    scores = np.arange(20, dtype=np.float32).reshape(2, 10) / 10
    three = EXPRESSION.subset(["Surprise", "Fear", "Anger"])
    results = apply_heads(
        checkpoint(
            HeadSpec(three, "scores", "trained", (4, 0, 9)),
            HeadSpec(VALENCE_AROUSAL, "scores", "trained", (1, 0)),
            HeadSpec(
                COMPOUND_EXPRESSION.subset(["Fearfully surprised"]),
                "pair_mean",
                "rule",
                sources=("expression",),
            ),
        ),
        {},
        Outputs(scores),
    )
    assert [head.task.name for head, _ in results] == ["expression", "valence_arousal", "compound_expression"]
    np.testing.assert_allclose(results[0][1], softmax(scores[:, [4, 0, 9]]))
    np.testing.assert_allclose(results[1][1], np.clip(scores[:, [1, 0]], -1, 1))
    np.testing.assert_allclose(results[2][1], [[1], [1]])


def test_temperature_divides_logits() -> None:
    scores = np.array([[1, 3, 0, 0, 0, 0, 0, 0, 0, 0]], np.float32)
    head = HeadSpec(EXPRESSION.subset(["Anger", "Fear"]), "scores", "trained", (0, 1))
    cold, warm = (
        apply_heads(checkpoint(replace(head, temperature=t)), {}, Outputs(scores))[0][1] for t in (1.0, 4.0)
    )
    np.testing.assert_allclose(np.log(cold[0, 1] / cold[0, 0]), 2, rtol=1e-5)
    np.testing.assert_allclose(np.log(warm[0, 1] / warm[0, 0]), 0.5, rtol=1e-5)


def test_a_rule_needs_its_source_first() -> None:
    with raises_code(CheckpointError, "head_order"):
        apply_heads(
            checkpoint(HeadSpec(COMPOUND_EXPRESSION, "pair_mean", "rule", sources=("expression",))),
            {},
            Outputs(np.zeros((1, 10), np.float32)),
        )


def layers(*shapes: tuple[int, int], seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    rng = np.random.default_rng(seed)
    return tuple(
        (rng.normal(0, 0.5, shape).astype(np.float32), rng.normal(0, 0.5, shape[0]).astype(np.float32))
        for shape in shapes
    )


def test_layers_have_a_relu_between_them_and_none_at_the_end() -> None:
    (w0, b0), (w1, b1) = given_layers = layers((3, 2), (2, 3))
    x = np.random.default_rng(1).normal(0, 1, (5, 2)).astype(np.float32)
    expected = [
        [
            sum(max(0.0, float(w0[j] @ row + b0[j])) * float(w1[k, j]) for j in range(3)) + float(b1[k])
            for k in range(2)
        ]
        for row in x
    ]
    np.testing.assert_allclose(run_layers(given_layers, x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run_layers(given_layers[:1], x), x @ w0.T + b0, rtol=1e-6)


def test_a_linear_head_on_valence_and_arousal_ends_in_tanh() -> None:
    scores = np.random.default_rng(0).normal(0, 1, (4, 10)).astype(np.float32)
    ((weight, bias),) = head = layers((2, 10))
    made = apply_heads(
        checkpoint(HeadSpec(VALENCE_AROUSAL, "linear", "trained", reads="scores")),
        {"valence_arousal": head},
        Outputs(scores),
    )
    np.testing.assert_allclose(made[0][1], np.tanh(scores @ weight.T + bias), rtol=1e-5)


def test_heads_read_embeddings_scores_or_both() -> None:
    rng = np.random.default_rng(0)
    outputs = Outputs(
        rng.normal(0, 1, (4, 10)).astype(np.float32), rng.normal(0, 1, (4, 6)).astype(np.float32)
    )
    inputs = {
        "scores": outputs.scores,
        "embeddings": outputs.embeddings,
        "both": np.concatenate([outputs.embeddings, outputs.scores], 1),
    }
    for reads, given_input in inputs.items():
        head = layers((5, given_input.shape[1]), (12, 5))
        spec = HeadSpec(ACTION_UNITS, "mlp", "trained", reads=reads, temperature=2.0)
        made = apply_heads(checkpoint(spec), {"action_units": head}, outputs)
        np.testing.assert_allclose(made[0][1], sigmoid(run_layers(head, given_input) / 2), rtol=1e-5)


def test_clip_statistics_by_hand() -> None:
    values = np.array([[1, 0], [3, 0], [2, 6]], np.float32)
    np.testing.assert_allclose(
        clip_statistics(values), [[2, 2, np.sqrt(2 / 3), np.sqrt(8), 1, 0, 3, 6]], rtol=1e-6
    )


def test_a_clip_level_head_gives_one_row_and_nothing_for_a_single_frame() -> None:
    outputs = Outputs(np.random.default_rng(0).normal(0, 1, (7, 10)).astype(np.float32))
    spec, head = HeadSpec(MIMICRY_INTENSITY, "clip_statistics", "trained", reads="scores"), layers((6, 40))
    made = apply_heads(checkpoint(spec), {"mimicry_intensity": head}, outputs)
    np.testing.assert_allclose(
        made[0][1], sigmoid(run_layers(head, clip_statistics(outputs.scores))), rtol=1e-5
    )
    assert made[0][1].shape == (1, 6)
    assert apply_heads(checkpoint(spec), {"mimicry_intensity": head}, Outputs(outputs.scores[:1])) == []


def test_the_prior_is_its_formula() -> None:
    affect = np.array([[0.9, 0.6], [0.7, 0.8]], np.float32)
    neutral = np.array([0.1, 0.3], np.float32)
    values = word_norm_prior(MIMICRY_INTENSITY, affect, neutral)
    joy = (2 * 0.980 - 1, 2 * 0.824 - 1)
    empathic_pain = (0.729 + 0.012 - 1, 0.349 + 0.765 - 1)  # the mean of the words empathy and pain
    for name, (valence, arousal) in (("Joy", joy), ("Empathic Pain", empathic_pain)):
        expected = 0.8 * np.exp(-((0.8 - valence) ** 2 + (0.7 - arousal) ** 2) / (2 * 0.5**2))
        assert values[0, MIMICRY_INTENSITY.index(name)] == pytest.approx(expected, rel=1e-5)


def test_the_prior_says_nothing_of_a_neutral_face_and_moves_with_the_clip() -> None:
    affect = np.array([[0.9, 0.6]] * 3, np.float32)
    assert not word_norm_prior(MIMICRY_INTENSITY, affect, np.ones(3, np.float32)).any()
    happy, hurt = (
        word_norm_prior(MIMICRY_INTENSITY, affect * sign, np.zeros(3, np.float32))[0]
        for sign in (1, (-0.5, 1))
    )
    joy, pain = MIMICRY_INTENSITY.index("Joy"), MIMICRY_INTENSITY.index("Empathic Pain")
    assert happy[joy] > happy[pain]
    assert hurt[pain] > hurt[joy]


def test_the_prior_reads_affect_and_neutral_faces_of_the_heads_before_it() -> None:
    scores = np.random.default_rng(0).normal(0, 1, (5, 10)).astype(np.float32)
    made = apply_heads(
        checkpoint(
            HeadSpec(EXPRESSION, "scores", "trained", tuple(range(8))),
            HeadSpec(VALENCE_AROUSAL, "scores", "trained", (8, 9)),
            HeadSpec(MIMICRY_INTENSITY, "prior", "prior", sources=("valence_arousal", "expression")),
        ),
        {},
        Outputs(scores),
    )
    neutral = softmax(scores[:, :8])[:, EXPRESSION.index("Neutral")]
    np.testing.assert_allclose(
        made[2][1], word_norm_prior(MIMICRY_INTENSITY, np.clip(scores[:, 8:], -1, 1), neutral), rtol=1e-6
    )
