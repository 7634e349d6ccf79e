"""Run a network: torch on CUDA or CPU, OpenVINO in 32-bit floats on a CPU."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hsemotion_space.types import FloatArray

EngineName = Literal["auto", "openvino", "torch"]
Runner = Callable[[FloatArray], tuple[FloatArray, ...]]


class EngineError(RuntimeError):
    """A network cannot be run on the chosen engine."""


def choose(name: EngineName) -> Literal["openvino", "torch"]:
    """Resolve ``auto``: torch where there is a GPU, else OpenVINO where it is installed, else torch."""
    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "torch"
    return "openvino" if importlib.util.find_spec("openvino") else "torch"


def _openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which otherwise reports every import to its maker without asking."""
    sys.modules.setdefault("openvino_telemetry", cast("ModuleType", None))  # makes its import fail; OpenVINO then uses its own stub
    return importlib.import_module("openvino")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where to run: ``cache`` is a folder for converted networks, ``threads`` 0 leaves the number to the engine."""

    name: EngineName = "auto"
    cache: Path | None = None
    threads: int = 0


def load(module: nn.Module, example: FloatArray, options: EngineOptions, free_size: bool = False) -> Runner:
    """Return a function from a batch (B, C, H, W) float32 to the module's outputs.

    Args:
        module: in evaluation mode; returns a tensor or a tuple of tensors.
        example: one input; B is free, C is fixed by it, H and W are unless ``free_size``.
        options: where to run.
        free_size: accept any H and W.

    Raises:
        EngineError: if OpenVINO was asked for and cannot convert or compile the module.
    """
    if choose(options.name) == "torch":
        return _torch_runner(module, options.threads)
    try:
        return _openvino_runner(module, example, options, free_size)
    except (RuntimeError, ImportError) as error:
        raise EngineError(f"OpenVINO cannot run this network ({type(error).__name__}). Set HSEMOTION_ENGINE=torch.") from error


def _torch_runner(module: nn.Module, threads: int) -> Runner:
    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = module.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def run(batch: FloatArray) -> tuple[FloatArray, ...]:
        with torch.inference_mode():
            tensor = torch.from_numpy(np.ascontiguousarray(batch)).to(device, memory_format=torch.channels_last)
            outputs = module(tensor)
        return tuple(out.float().cpu().numpy() for out in (outputs if isinstance(outputs, tuple) else (outputs,)))

    return run


def _digest(module: nn.Module, example: FloatArray, free_size: bool) -> str:
    key = hashlib.sha256(
        f"{_openvino().__version__} {torch.__version__} {platform.machine()} {example.shape} {free_size} {module}".encode()
    )
    for name, tensor in module.state_dict().items():
        key.update(name.encode())
        key.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return key.hexdigest()[:32]


def _openvino_runner(module: nn.Module, example: FloatArray, options: EngineOptions, free_size: bool) -> Runner:
    ov = _openvino()
    core = ov.Core()
    file = options.cache / f"{_digest(module, example, free_size)}.xml" if options.cache else None
    if file is not None and file.exists() and file.with_suffix(".bin").exists():
        model = core.read_model(file)
    else:
        module = module.eval().cpu()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns of sizes that become constants; height and width are meant to
            model = ov.convert_model(module, example_input=torch.from_numpy(example))
        size = [-1, -1] if free_size else example.shape[2:]
        model.reshape({model.input(0): ov.PartialShape([-1, example.shape[1], *size])})
        if file is not None:
            _store(model, file)
    config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if options.threads:
        config["INFERENCE_NUM_THREADS"] = str(options.threads)
    request = core.compile_model(model, "CPU", config).create_infer_request()

    def run(batch: FloatArray) -> tuple[FloatArray, ...]:
        results = request.infer([np.ascontiguousarray(batch)])
        return tuple(np.array(results[index], np.float32) for index in range(len(results)))

    return run


def _store(model: object, file: Path) -> None:
    """Save a converted network under a partial name first; the graph last, because it is what readers look for."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        partial = Path(folder) / file.name
        _openvino().save_model(model, partial, compress_to_fp16=False)
        partial.with_suffix(".bin").replace(file.with_suffix(".bin"))
        partial.replace(file)


def normalize(faces: npt.NDArray[np.uint8], mean: tuple[float, float, float], std: tuple[float, float, float]) -> FloatArray:
    """Return (B, 3, S, S) float32 from (B, S, S, 3) uint8: divided by 255, minus mean, divided by std per channel."""
    scale = 1 / (255 * np.asarray(std, np.float32))
    offset = np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    return np.ascontiguousarray((faces * scale - offset).transpose(0, 3, 1, 2), np.float32)
