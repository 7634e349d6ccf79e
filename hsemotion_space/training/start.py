"""Weights to start a training from: ImageNet or identity pretraining, or another run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from hsemotion_space.training.files import DataError, located, reading
from hsemotion_space.training.transplant import transplant
from hsemotion_space.vision.backbones import create_model
from hsemotion_space.vision.backbones.blocks import OUTPUTS

PREFIXES = ("module.", "backbone.")  # left by wrappers around a network
MAX_NAMED_KEYS = 6  # an error message names this many keys and counts the others
ORIGIN = "hsemotion_space.start"  # in the metadata of a file that `make_start` wrote


@dataclass(frozen=True, slots=True)
class StartingWeights:
    """Weights that a run began with; ``state.pt`` and ``training.json`` contain these fields.

    Attributes:
        file, sha256: name and digest of the file.
        loaded: number of tensors taken.
        fresh: names of the tensors that kept random values.
        origin: where the values of a file from :func:`make_start` come from.
    """

    file: str
    sha256: str
    loaded: int
    fresh: tuple[str, ...]
    origin: Mapping[str, object] = field(default_factory=dict)


def load_start(model: nn.Module, classifier: nn.Module, file: Path) -> StartingWeights:
    """Load every tensor of a file into a model; the classifier may be missing, or of another shape or make.

    The file is safetensors, or a state dict that ``torch.save`` wrote; nothing in it is executed.
    """
    state, expected = _read_tensors(file), model.state_dict()
    name = _name_of(classifier, model)

    def in_backbone(keys: Iterable[str]) -> list[str]:
        return sorted(key for key in keys if not key.startswith(name + "."))

    fitting = {
        key: value for key, value in state.items() if key in expected and value.shape == expected[key].shape
    }
    missing = [
        key for key in in_backbone(expected.keys() - state.keys()) if not key.endswith(".num_batches_tracked")
    ]
    for code, problem, keys in (
        ("missing_keys", "these tensors are missing", missing),
        ("unexpected_keys", "these tensors are unexpected", in_backbone(state.keys() - expected.keys())),
        (
            "shapes",
            "these tensors have other shapes",
            in_backbone(state.keys() & expected.keys() - fitting.keys()),
        ),
    ):
        if keys:
            more = f" and {len(keys) - MAX_NAMED_KEYS} more" if len(keys) > MAX_NAMED_KEYS else ""
            template = "{file} does not fit the architecture; {problem}: {keys}."
            raise DataError(
                template, code=code, file=file, problem=problem, keys=", ".join(keys[:MAX_NAMED_KEYS]) + more
            )
    model.load_state_dict(fitting, strict=False)
    return StartingWeights(
        file.name, _sha256(file), len(fitting), tuple(sorted(expected.keys() - fitting.keys())), _origin(file)
    )


def make_start(
    arch: str, args: Mapping[str, float], file: Path, out: Path, seed: int = 0
) -> dict[str, object]:
    """Write weights to start from: as many as possible from another network, random ones elsewhere.

    Args:
        arch: architecture of the recipe.
        args: its options.
        file: safetensors, a state dict, or ``state.pt`` of a run, whose averaged weights are taken.
        out: safetensors file with everything but the output layer; its metadata are what is returned.
        seed: of the random values.

    Returns:
        ``file``, ``sha256``, ``matched`` (by name, structure or order), ``share`` of the values taken,
        ``seed``.
    """
    torch.manual_seed(seed)
    model = create_model(arch, OUTPUTS, **args)
    name = _name_of(model.get_classifier(), model)  # type: ignore[operator]
    state = {key: value for key, value in model.state_dict().items() if not key.startswith(name + ".")}
    with located(f"{file} cannot initialize {arch}"):
        values, matched = transplant(model.state_dict(), _read_tensors(file), name)
    count, total = (
        sum(value.numel() for value in tensors.values() if value.ndim) for tensors in (values, state)
    )
    origin = {
        "file": file.name,
        "sha256": _sha256(file),
        "matched": matched,
        "share": round(count / total, 4),
        "seed": seed,
    }
    content = {key: values.get(key, value).contiguous() for key, value in state.items()}
    # one entry: several have no order
    safetensors.torch.save_file(content, out, {ORIGIN: json.dumps(origin)})
    return origin


def _name_of(classifier: nn.Module, model: nn.Module) -> str:
    return str({module: name for name, module in model.named_modules()}[classifier])


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _origin(file: Path) -> dict[str, object]:
    if file.suffix != ".safetensors":
        return {}
    with safe_open(file, "pt") as content:
        return json.loads((content.metadata() or {}).get(ORIGIN, "{}"))  # type: ignore[no-any-return]


def _read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, without the prefixes of wrappers."""
    state: object
    with reading(file, "file of weights", "weights"):
        if file.suffix == ".safetensors":
            state = safetensors.torch.load_file(file)
        else:
            state = torch.load(file, weights_only=True, map_location="cpu")
    if isinstance(state, Mapping) and isinstance(state.get("average"), Mapping):  # of a run
        state = state["average"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(
            "{file} is not a table of tensors; save the state_dict() of the network.",
            code="no_tensors",
            file=file,
        )
    return {_bare(key): value for key, value in state.items()}


def _bare(key: str) -> str:
    while prefix := next((prefix for prefix in PREFIXES if key.startswith(prefix)), ""):
        key = key.removeprefix(prefix)
    return key
