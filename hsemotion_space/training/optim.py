"""Optimizer steps: AdamW, or sharpness-aware minimization around it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLIP_NORM = 5.0  # of plain AdamW; sharpness-aware steps are taken as they are, as in the paper

Terms = dict[str, Tensor]  # the terms of an objective, each a scalar


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter, 2019) that decays matrices and kernels only, or Adam."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def train_only(model: nn.Module, *parts: nn.Module) -> None:
    """Set up training of all of a model or only some ``parts``; the rest is frozen, statistics included."""
    model.train(not parts).requires_grad_(not parts)
    for part in parts:
        part.train().requires_grad_()


def _backward(objective: Callable[[], Terms], seed: int) -> Terms:
    torch.manual_seed(seed)  # of dropout and drop path, so that a step depends on nothing that came before
    terms = objective()
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    return {key: value.detach() for key, value in terms.items()}


def plain_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, objective: Callable[[], Terms], seed: int
) -> Terms:
    """Take one step along the gradient, clipped to a norm of 5, and return the terms of the objective."""
    optimizer.zero_grad()
    terms = _backward(objective, seed)
    nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    return terms


def sharpness_aware_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, objective: Callable[[], Terms], seed: int, rho: float
) -> Terms:
    """Take one step from w along the gradient at w + rho g / ||g|| over all parameters (SAM; Foret, 2021).

    Both gradients see the same dropout, and only the first pass moves running statistics. Returns the terms
    at w.
    """
    optimizer.zero_grad()
    terms = _backward(objective, seed)
    with torch.no_grad():
        pairs = [(p, p.grad) for p in model.parameters() if p.grad is not None]
        moved: list[Tensor] = [p for p, _ in pairs]
        gradients = [gradient for _, gradient in pairs]
        norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients])))
        weights = [p.detach().clone() for p in moved]
        statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
        torch._foreach_add_(moved, gradients, alpha=rho / max(norm, 1e-12))
    optimizer.zero_grad()
    _backward(objective, seed)
    with torch.no_grad():
        torch._foreach_copy_(moved, weights)
        for buffer, before in statistics:
            buffer.copy_(before)
    optimizer.step()
    return terms
