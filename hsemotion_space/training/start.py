"""Weights to start a training from: ImageNet or identity pretraining, or another run."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hsemotion_space.training.data import DataError
from hsemotion_space.training.transplant import transplant
from hsemotion_space.vision.backbones import create_model
from hsemotion_space.vision.backbones.blocks import OUTPUTS

PREFIXES = ("module.", "backbone.")  # left by wrappers around a network
NAMED_KEYS = 6  # an error message names this many keys and counts the others
ORIGIN = "hsemotion_space.start"  # in the metadata of a file that `make_start` wrote


@dataclass(frozen=True, slots=True)
class Start:
    """Weights that a run began with: file name, digest, number of tensors taken, and names of those that kept random values.

    ``origin`` tells where the values of a file from :func:`make_start` come from.
    """

    file: str
    sha256: str
    loaded: int
    fresh: tuple[str, ...]
    origin: Mapping[str, object] = field(default_factory=dict)


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
    return Start(file.name, _sha256(file), len(fitting), tuple(sorted(expected.keys() - fitting.keys())), _origin(file))


def make_start(arch: str, args: Mapping[str, float], file: Path, out: Path, seed: int = 0) -> dict[str, object]:
    """Write weights to start from, with as many values as possible from another network and random ones elsewhere.

    Args:
        arch: architecture of the recipe.
        args: its options.
        file: safetensors, a state dict, or ``state.pt`` of a run, whose averaged weights are taken.
        out: safetensors file with everything but the output layer; its metadata say where the values come from.
        seed: of the random values.

    Returns:
        What the metadata say: ``file``, ``sha256``, ``matched`` (by name, structure or order), ``share`` of the values taken, ``seed``.

    Raises:
        DataError: if the two networks have too little in common.
        BackboneError: if the architecture cannot be built.
    """
    torch.manual_seed(seed)
    model = create_model(arch, OUTPUTS, **args)
    classifier = model.get_classifier()  # type: ignore[operator]
    name = next(name for name, module in model.named_modules() if module is classifier)
    state = {key: value for key, value in model.state_dict().items() if not key.startswith(name + ".")}
    try:
        taken = transplant(model.state_dict(), _read_tensors(file), name)
    except DataError as error:
        raise DataError(f"{file} cannot fill {arch}: {error}") from error
    count, total = (sum(value.numel() for value in tensors.values() if value.ndim) for tensors in (taken.values, state))
    origin = {"file": file.name, "sha256": _sha256(file), "matched": taken.kind, "share": round(count / total, 4), "seed": seed}
    content = {key: taken.values.get(key, value).contiguous() for key, value in state.items()}
    safetensors.torch.save_file(content, out, {ORIGIN: json.dumps(origin)})  # one entry: several have no order
    return origin


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _origin(file: Path) -> dict[str, object]:
    if file.suffix != ".safetensors":
        return {}
    with safe_open(file, "pt") as content:
        origin: dict[str, object] = json.loads((content.metadata() or {}).get(ORIGIN, "{}"))
    return origin


def _read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, without the prefixes of wrappers."""
    try:
        if file.suffix == ".safetensors":
            state: object = safetensors.torch.load_file(file)
        else:
            state = torch.load(file, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        raise DataError(f"{file} is not a readable file of weights: {str(error).splitlines()[0]}") from error
    if isinstance(state, Mapping) and isinstance(state.get("average"), Mapping):  # of a run
        state = state["average"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{file} is not a table of tensors; save the state_dict() of the network.")
    return {_bare(key): value for key, value in state.items()}


def _bare(key: str) -> str:
    while prefix := next((prefix for prefix in PREFIXES if key.startswith(prefix)), ""):
        key = key.removeprefix(prefix)
    return key
