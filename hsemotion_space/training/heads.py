"""Small heads on frozen features, as in the paper: linear or one hidden layer, trained in minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from hsemotion_space.hub.manifest import Reads
from hsemotion_space.hub.weights import Layers
from hsemotion_space.inference.heads import run_layers
from hsemotion_space.tasks import Task
from hsemotion_space.training.files import DataError
from hsemotion_space.training.losses import concordance_loss
from hsemotion_space.types import FloatArray

Loss = Callable[[Tensor, Tensor], Tensor]
Features = npt.NDArray[np.float16] | FloatArray
# of the six correlations in the paper's loss, before scaling to a sum of one
MIMICRY_WEIGHTS = (1.0, 1 / 8, 1 / 4, 1 / 2, 1 / 8, 1 / 8)


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """How a head is built and trained.

    Attributes:
        reads: what it reads from the features.
        hidden: units of the hidden layer, 0 for a linear head.
        epochs, batch, lr: of Adam.
        l2: weight of the squared norm of the weights (not of the biases) in the loss.
        dropout: share of the hidden units left out in training.
        label_weights: weight of each label's correlation, for clip-level tasks; empty for equal weights.
        seed: of initial weights, order and dropout.
    """

    reads: Reads = "embeddings"
    hidden: int = 128
    epochs: int = 10
    batch: int = 256
    lr: float = 1e-3
    l2: float = 0.0
    dropout: float = 0.0
    label_weights: tuple[float, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            self.hidden < 0
            or self.epochs < 1
            or self.batch < 2
            or self.lr <= 0
            or self.l2 < 0
            or not 0 <= self.dropout < 1
        ):
            template = (
                "A head needs hidden >= 0, epochs >= 1, batch >= 2, lr > 0, l2 >= 0, 0 <= dropout < 1; found"
                " {options}."
            )
            raise DataError(template, code="options", options=self)


@dataclass(frozen=True, slots=True)
class FittedHead:
    """Layers that read raw features; the standardization of the training is folded into the first one.

    ``losses`` has the mean loss of each epoch, ``measures`` the measure on the tuning rows (empty without
    any), ``epoch`` the epoch (from 1) that was kept: the best one there, else the last.
    """

    layers: Layers
    losses: tuple[float, ...]
    measures: tuple[float, ...]
    epoch: int


def paper_options(task: Task) -> HeadOptions:
    """Return the options of the paper for a kind and scope of task (its ABAW-6 notebooks)."""
    if task.scope == "clip":
        return HeadOptions(
            "scores",
            64,
            20,
            512,
            label_weights=MIMICRY_WEIGHTS if len(task.labels) == len(MIMICRY_WEIGHTS) else (),
        )
    if task.kind == "continuous":
        return HeadOptions("scores", 0, 5, 1024, l2=1 / 1024)
    return HeadOptions() if task.kind == "one_of" else HeadOptions(epochs=5, batch=512)


def balanced_cross_entropy(targets: npt.NDArray[np.int64], classes: int) -> Loss:
    """Return the cross-entropy with class weights 1/count, scaled so that the most frequent class has 1.

    The mean over a batch is not divided by its weights, as in the paper.
    """
    counts = torch.from_numpy(np.bincount(targets, minlength=classes)).float()
    weights = torch.where(counts > 0, counts.max() / counts.clamp_min(1), 0.0)
    return lambda logits, target: (
        functional.cross_entropy(logits, target, weights, reduction="sum") / len(target)
    )


def balanced_binary_cross_entropy(targets: FloatArray) -> Loss:
    """Return the binary cross-entropy with weight n / (2 n_c) for each unit and class c; 0 if c is absent."""
    positives = torch.from_numpy(targets.astype(np.float32)).mean(0)
    present, absent = (
        torch.where(share > 0, 0.5 / share.clamp_min(1e-9), 0.0) for share in (positives, 1 - positives)
    )

    return lambda logits, target: functional.binary_cross_entropy_with_logits(
        logits, target, target * present + (1 - target) * absent
    )


def undo_balance(layers: Layers, targets: FloatArray) -> Layers:
    """Return layers with calibrated unit frequencies again, after training with balanced weights.

    The balanced loss is smallest for the log-odds plus log(n_0 / n_1); that shift is taken out of the last
    bias (prior correction, King and Zeng, 2001). Decisions at 0.5 become decisions at the share of the unit
    in the training ``targets`` (N, K), so thresholds have to be tuned.
    """
    share = targets.mean(0).clip(0.5 / len(targets), 1 - 0.5 / len(targets))
    weight, bias = layers[-1]
    return (*layers[:-1], (weight, (bias + np.log(share / (1 - share))).astype(np.float32)))


def fit_scale(layers: Layers, inputs: FloatArray, targets: FloatArray) -> Layers:
    """Return layers with sigmoids close to the targets; correlation losses leave scale and offset free.

    Each label's raw output z becomes a z + b with a > 0 that minimize the squared error of its sigmoid, so
    the order stays. ``inputs`` (N, D) and ``targets`` (N, K) in 0..1 are those of the training rows.
    """
    raw = torch.from_numpy(run_layers(layers, inputs)).double()
    goal = torch.from_numpy(targets).double()
    center, spread = raw.mean(0), raw.std(0).clamp_min(1e-6)
    start = torch.logit(goal.mean(0).clamp(0.01, 0.99))
    log_scale, offset = torch.zeros_like(start, requires_grad=True), start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([log_scale, offset], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        error = ((log_scale.exp() * (raw - center) / spread + offset).sigmoid() - goal).square().mean()
        error.backward()  # type: ignore[no-untyped-call]
        return error

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    scale = (log_scale.detach().exp() / spread).numpy()
    shift = (offset.detach() - log_scale.detach().exp() / spread * center).numpy()
    weight, bias = layers[-1]
    return (
        *layers[:-1],
        ((weight * scale[:, None]).astype(np.float32), (bias * scale + shift).astype(np.float32)),
    )


def correlation_loss(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return one minus the weighted mean Pearson correlation of columns (B, K); the weights sum to one."""
    x, y = predicted - predicted.mean(0), target - target.mean(0)
    r = (x * y).sum(0) / (x.square().sum(0) * y.square().sum(0)).clamp_min(1e-12).sqrt()
    return 1 - (weights * r).sum()


def make_loss(task: Task, targets: npt.NDArray[np.generic], label_weights: Sequence[float] = ()) -> Loss:
    """Return the loss of a kind of task as a function of raw outputs and targets.

    ``targets`` are those of the training rows, (N,) class indices or (N, K); ``label_weights`` weigh the
    correlations of a clip-level task.
    """
    if task.scope == "clip":
        weights = torch.tensor(label_weights or [1.0] * len(task.labels))
        return lambda raw, target: correlation_loss(raw.sigmoid(), target, weights / weights.sum())
    if task.kind == "continuous":
        columns = range(len(task.labels))
        return lambda raw, target: (
            2 * torch.stack([concordance_loss(raw[:, k].tanh(), target[:, k]) for k in columns]).mean()
        )
    if task.kind == "one_of":
        return balanced_cross_entropy(targets.astype(np.int64), len(task.labels))
    return balanced_binary_cross_entropy(targets.astype(np.float32))


def _moments(features: Features) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of each column; a constant column gets 1."""
    mean = features.mean(0, dtype=np.float64)
    squares = np.einsum("nd,nd->d", features, features, dtype=np.float64) / len(features)
    spread = np.sqrt(np.maximum(squares - mean**2, 0))
    return mean.astype(np.float32), np.where(spread > 1e-6, spread, 1.0).astype(np.float32)


def _network(width: int, outputs: int, options: HeadOptions) -> nn.Sequential:
    if not options.hidden:
        return nn.Sequential(nn.Linear(width, outputs))
    return nn.Sequential(
        nn.Linear(width, options.hidden), nn.ReLU(), nn.Dropout(options.dropout),
        nn.Linear(options.hidden, outputs)
    )  # fmt: skip


def _folded(network: nn.Sequential, mean: FloatArray, spread: FloatArray) -> Layers:
    """Return the layers as arrays that read features as they are."""
    linear = [module for module in network if isinstance(module, nn.Linear)]
    layers = [(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()) for layer in linear]
    weight, bias = layers[0]
    layers[0] = (weight / spread, bias - weight @ (mean / spread))
    return tuple(layers)


def fit_head(
    task: Task,
    features: Features,
    targets: npt.NDArray[np.generic],
    options: HeadOptions,
    measure: Callable[[Layers], float] | None = None,
) -> FittedHead:
    """Train a head on features (N, D), standardized by their own moments, and targets without NaN.

    Targets are (N,) class indices of a ``one_of`` task, else (N, K). ``measure`` (larger is better) is called
    after each epoch with the layers so far, and the best epoch is kept.
    """
    if len(features) != len(targets) or len(features) < 2:
        template = (
            "A head for {task} needs two rows or more with features and labels, found {features} and"
            " {labels}."
        )
        raise DataError(template, code="rows", task=task.name, features=len(features), labels=len(targets))
    moments = _moments(features)
    loss = make_loss(task, targets, options.label_weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = _network(features.shape[1], len(task.labels), options)
        optimizer = torch.optim.Adam(network.parameters(), options.lr)
        order = np.random.default_rng(options.seed)
        losses: list[float] = []
        measures: list[float] = []
        best = FittedHead((), (), (), 0)
        for epoch in range(1, options.epochs + 1):
            rows = order.permutation(len(features))
            chunks = (
                np.sort(rows[start : start + options.batch]) for start in range(0, len(rows), options.batch)
            )
            batches = (_tensors(features[chunk], targets[chunk], moments) for chunk in chunks)
            losses.append(_epoch(network.train(), optimizer, loss, batches, options.l2))
            layers = _folded(network, *moments)
            if measure is not None:
                measures.append(measure(layers))
            if measure is None or measures[-1] >= max(measures):
                best = FittedHead(layers, (), (), epoch)
    return replace(best, losses=tuple(losses), measures=tuple(measures))


def _tensors(
    features: Features, targets: npt.NDArray[np.generic], moments: tuple[FloatArray, FloatArray]
) -> tuple[Tensor, Tensor]:
    """Return standardized features and targets of a batch."""
    x = (features.astype(np.float32) - moments[0]) / moments[1]
    return torch.from_numpy(x), torch.from_numpy(
        targets.astype(np.int64) if targets.ndim == 1 else targets.astype(np.float32)
    )


def _epoch(
    network: nn.Sequential,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    batches: Iterable[tuple[Tensor, Tensor]],
    l2: float,
) -> float:
    """Run one pass over the batches and return the mean loss; a batch of a single row is left out."""
    values = []
    for x, y in batches:
        if len(x) < 2:
            continue
        value = loss(network(x), y)
        penalty = l2 * sum(
            parameter.square().sum() for parameter in network.parameters() if parameter.ndim > 1
        )
        optimizer.zero_grad()
        (value + penalty).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(value.item())
    return float(np.mean(values))
