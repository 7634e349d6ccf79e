from __future__ import annotations

import numpy as np
import pytest
import torch
from training_makers import NAN

from hsemotion_space.metrics import concordance
from hsemotion_space.training.losses import class_weights, concordance_loss, multitask_loss


def test_multitask_loss_against_numpy() -> None:
    rng = np.random.default_rng(0)
    scores, target = rng.normal(0, 2, (6, 10)), rng.dirichlet(np.ones(8), 6)
    affect, weights, smoothing = rng.uniform(-1, 1, (6, 2)), rng.uniform(0.5, 2, 8), 0.1
    target[4] = NAN
    affect[1] = NAN
    terms = multitask_loss(*(torch.from_numpy(x) for x in (scores, target, affect, weights)), smoothing)
    logs = scores[:, :8] - np.log(np.exp(scores[:, :8]).sum(1, keepdims=True))
    rows = [0, 1, 2, 3, 5]
    expected = np.mean([-(weights * (target[row] * 0.9 + 0.1 / 8) * logs[row]).sum() for row in rows])
    assert float(terms["expression"]) == pytest.approx(expected)
    rated = [0, 2, 3, 4, 5]
    for k, name in enumerate(("valence", "arousal")):
        assert float(terms[name]) == pytest.approx(
            (1 - concordance(scores[rated, 8 + k], affect[rated, k])) / 2
        )


def test_missing_labels_give_no_term() -> None:
    scores, weights = torch.zeros(3, 10), torch.ones(8)
    assert multitask_loss(scores, torch.full((3, 8), NAN), torch.full((3, 2), NAN), weights) == {}
    one = torch.full((3, 2), NAN)
    one[0] = 0.5
    assert list(multitask_loss(scores, torch.full((3, 8), 1 / 8), one, weights)) == ["expression"]


def test_masked_rows_get_no_gradient() -> None:
    scores = torch.randn(4, 10, generator=torch.Generator().manual_seed(0), requires_grad=True)
    expression = torch.full((4, 8), 1 / 8)
    expression[2] = NAN
    affect = torch.tensor([[0.1, 0.2], [0.3, -0.1], [-0.5, 0.4], [NAN, NAN]])
    sum(multitask_loss(scores, expression, affect, torch.ones(8)).values()).backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert (scores.grad[2, :8] == 0).all()
    assert (scores.grad[3, 8:] == 0).all()
    assert (scores.grad[:2] != 0).all()


def test_constant_predictions_keep_the_loss_finite() -> None:
    x = torch.full((4,), 0.5, requires_grad=True)
    loss = concordance_loss(x, torch.full((4,), 0.5))
    loss.backward()
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_class_weights() -> None:
    expression = torch.zeros(7, 8)
    expression[:4, 0] = 1
    expression[4:6, 1] = 1
    expression[6] = NAN
    assert class_weights(expression, 1.0).tolist() == [1, 2, 4, 4, 4, 4, 4, 4]
    assert class_weights(expression, 0.5)[1].item() == pytest.approx(2**0.5)
    assert class_weights(expression, 0.0).tolist() == [1] * 8
