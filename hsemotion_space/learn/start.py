"""Weights to start a training from: ImageNet or identity pretraining."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from hsemotion_space.learn.data import DataError

PREFIXES = ("module.", "backbone.")  # left by wrappers around a network
NAMED_KEYS = 6  # an error message names this many keys and counts the others


@dataclass(frozen=True, slots=True)
class Start:
    """Weights that a run began with: file name, digest, number of tensors taken, and names of those that kept random values."""

    file: str
    sha256: str
    loaded: int
    fresh: tuple[str, ...]


def load_start(model: nn.Module, classifier: nn.Module, file: Path) -> Start:
    """Load every tensor of a file into a model; the classifier may lack, differ in shape or be of another make.

    Args:
        model: gets the values.
        classifier: its output layer.
        file: safetensors, or a state dict that ``torch.save`` wrote; nothing in it is executed.

    Raises:
        DataError: naming the keys outside the classifier that the file lacks, has too many or in another shape.
    """
    state, expected = _read_tensors(file), model.state_dict()
    name = next(name for name, module in model.named_modules() if module is classifier)

    def in_backbone(keys: Iterable[str]) -> list[str]:
        return sorted(key for key in keys if not key.startswith(name + "."))

    fitting = {key: value for key, value in state.items() if key in expected and value.shape == expected[key].shape}
    lacking = [key for key in in_backbone(expected.keys() - state.keys()) if not key.endswith(".num_batches_tracked")]
    for words, keys in (
        ("it lacks", lacking),
        ("it has besides", in_backbone(state.keys() - expected.keys())),
        ("other shapes have", in_backbone(state.keys() & expected.keys() - fitting.keys())),
    ):
        if keys:
            more = f" and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else ""
            raise DataError(f"{file} does not fit the architecture: {words} {', '.join(keys[:NAMED_KEYS])}{more}.")
    model.load_state_dict(fitting, strict=False)
    return Start(file.name, hashlib.sha256(file.read_bytes()).hexdigest(), len(fitting), tuple(sorted(expected.keys() - fitting.keys())))


def _read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, without the prefixes of wrappers."""
    try:
        if file.suffix == ".safetensors":
            state: object = safetensors.torch.load_file(file)
        else:
            state = torch.load(file, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        raise DataError(f"{file} is not a readable file of weights: {str(error).splitlines()[0]}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{file} is not a table of tensors; save the state_dict() of the network.")
    return {_bare(key): value for key, value in state.items()}


def _bare(key: str) -> str:
    while prefix := next((prefix for prefix in PREFIXES if key.startswith(prefix)), ""):
        key = key.removeprefix(prefix)
    return key
