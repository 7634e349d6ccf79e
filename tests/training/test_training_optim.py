"""Steps of the optimizers against formulas written out in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from hsemotion_space.training.optim import Terms, make_optimizer, plain_step, sharpness_aware_step, train_only

Doubles = npt.NDArray[np.float64]
RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.normal(size=(12, 5)), RNG.normal(size=(12, 3))
RHO, LR, BETAS, EPS = 0.05, 0.01, (0.9, 0.999), 1e-8


class Adam:
    """Kingma and Ba, 2015."""

    def __init__(self) -> None:
        self.first, self.second, self.count = 0.0, 0.0, 0

    def step(self, weight: Doubles, gradient: Doubles, decay: float = 0.0) -> Doubles:
        self.count += 1
        self.first = BETAS[0] * self.first + (1 - BETAS[0]) * gradient
        self.second = BETAS[1] * self.second + (1 - BETAS[1]) * gradient**2
        first, second = self.first / (1 - BETAS[0] ** self.count), self.second / (1 - BETAS[1] ** self.count)
        return weight * (1 - LR * decay) - LR * first / (np.sqrt(second) + EPS)


def least_squares(weight: Doubles, bias: Doubles) -> tuple[Doubles, Doubles]:
    """Return the gradients of the mean of (W x + b - y)^2 over all elements."""
    errors = INPUTS @ weight.T + bias - TARGETS
    return 2 * errors.T @ INPUTS / errors.size, 2 * errors.sum(0) / errors.size


def problem() -> tuple[nn.Linear, Callable[[], Terms]]:
    torch.manual_seed(0)
    model = nn.Linear(5, 3).double()
    return model, lambda: {
        "squares": ((model(torch.from_numpy(INPUTS)) - torch.from_numpy(TARGETS)) ** 2).mean()
    }


def test_sharpness_aware_steps_against_the_formula() -> None:
    model, objective = problem()
    optimizer = make_optimizer(model, LR, 0.0)
    weight, bias = model.weight.detach().numpy().copy(), model.bias.detach().numpy().copy()
    adams = Adam(), Adam()
    for _ in range(6):
        gradients = least_squares(weight, bias)
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
        uphill = least_squares(weight + RHO * gradients[0] / norm, bias + RHO * gradients[1] / norm)
        loss = ((INPUTS @ weight.T + bias - TARGETS) ** 2).mean()
        terms = sharpness_aware_step(model, optimizer, objective, 0, RHO)
        assert float(terms["squares"]) == pytest.approx(loss, rel=1e-12)  # at w, not at w + e
        weight, bias = (
            adam.step(value, gradient)
            for adam, value, gradient in zip(adams, (weight, bias), uphill, strict=True)
        )
        np.testing.assert_allclose(model.weight.detach().numpy(), weight, rtol=1e-10)
        np.testing.assert_allclose(model.bias.detach().numpy(), bias, rtol=1e-10)


def test_plain_steps_are_adamw_with_a_clipped_gradient_and_decay_matrices_alone() -> None:
    model, objective = problem()
    optimizer = make_optimizer(model, LR, 0.1)
    weight, bias = model.weight.detach().numpy().copy(), model.bias.detach().numpy().copy()
    adams = Adam(), Adam()
    for factor in (1.0, 100.0, 1.0):  # the second gradient is longer than 5
        gradients = [factor * gradient for gradient in least_squares(weight, bias)]
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
        gradients = [gradient * min(1.0, 5 / (norm + 1e-6)) for gradient in gradients]
        assert (norm > 5) == (factor > 1)
        plain_step(model, optimizer, lambda factor=factor: {"squares": factor * objective()["squares"]}, 0)
        weight, bias = adams[0].step(weight, gradients[0], 0.1), adams[1].step(bias, gradients[1])
        np.testing.assert_allclose(model.weight.detach().numpy(), weight, rtol=1e-9)
        np.testing.assert_allclose(model.bias.detach().numpy(), bias, rtol=1e-9)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()


@pytest.mark.parametrize("sharpness_aware", [False, True])
def test_running_statistics_are_touched_once_per_step(sharpness_aware: bool) -> None:
    model = network().train()
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d)
    inputs = torch.from_numpy(INPUTS)
    hidden = model[0](inputs).detach()
    optimizer = make_optimizer(model, LR, 0.0)

    def objective() -> Terms:
        return {"squares": ((model(inputs) - torch.from_numpy(TARGETS)) ** 2).mean()}

    if sharpness_aware:
        sharpness_aware_step(model, optimizer, objective, 0, RHO)
    else:
        plain_step(model, optimizer, objective, 0)
    assert int(norm.num_batches_tracked) == 1
    torch.testing.assert_close(norm.running_mean, 0.1 * hidden.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * hidden.var(0), rtol=1e-12, atol=0)


def test_both_passes_of_a_sharpness_aware_step_drop_the_same_units() -> None:
    model, seen = network().train(), []
    model[2].register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach() == 0))
    optimizer = make_optimizer(model, LR, 0.0)
    for seed in (5, 6):
        sharpness_aware_step(
            model, optimizer, lambda: {"sum": model(torch.from_numpy(INPUTS)).sum()}, seed, RHO
        )
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], seen[3])
    assert not torch.equal(seen[0], seen[2])


def test_only_a_part_is_trained() -> None:
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = make_optimizer(model, LR, 0.1)

    def objective() -> Terms:
        return {"squares": ((model(torch.from_numpy(INPUTS)) - 1) ** 2).mean()}

    def changed() -> set[str]:
        return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}

    for step in (plain_step, lambda *values: sharpness_aware_step(*values, RHO)):
        train_only(model, model[3])
        for _ in range(3):
            step(model, optimizer, objective, 0)
        assert changed() == {"3.weight", "3.bias"}
    train_only(model)
    plain_step(model, optimizer, objective, 0)
    assert changed() == set(before)


def test_a_zero_gradient_moves_nothing() -> None:
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()

    def objective() -> dict[str, Tensor]:
        return {"nothing": model(torch.ones(1, 2)).sum() * 0}

    sharpness_aware_step(model, make_optimizer(model, LR, 0.0), objective, 0, RHO)
    assert torch.equal(model.weight, before)
