"""Run a network: torch on CUDA or CPU, OpenVINO in 32-bit floats on a CPU."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import logging
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import numpy as np
import numpy.typing as npt

from hsemotion_space.messages import MessageError
from hsemotion_space.types import FloatArray

if TYPE_CHECKING:
    from torch import nn

EngineName = Literal["auto", "openvino", "torch"]
Runner = Callable[[FloatArray], tuple[FloatArray, ...]]

DIGEST_BYTES: Final = 32
LENGTH_BYTES: Final = 8
log = logging.getLogger(__name__)


class EngineError(MessageError, RuntimeError):
    """A network cannot be run on the chosen engine."""


def choose(name: EngineName) -> Literal["openvino", "torch"]:
    """Resolve ``auto``: torch where there is a GPU, else OpenVINO where it is installed, else torch."""
    if name != "auto":
        return name
    return "openvino" if importlib.util.find_spec("openvino") and not _has_gpu() else "torch"


@cache
def _has_gpu() -> bool:
    """Return whether torch sees a GPU; torch takes seconds, so it is asked only where there is a driver."""
    if "rocm" not in version("torch"):
        try:
            ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        except OSError:
            return False
    import torch  # noqa: PLC0415

    return torch.cuda.is_available()


def _openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which otherwise reports every import to its maker."""
    # makes its import fail; OpenVINO then uses its own stub
    sys.modules.setdefault("openvino_telemetry", cast("ModuleType", None))
    return importlib.import_module("openvino")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where to run: ``cache`` is a folder for converted networks; 0 ``threads`` lets the engine choose.

    The cache saves seconds and nothing more: where it cannot be read or written, networks are converted each
    time.
    """

    name: EngineName = "auto"
    cache: Path | None = None
    threads: int = 0


def load(
    build: Callable[[], nn.Module],
    key: str,
    example: FloatArray,
    options: EngineOptions,
    free_size: bool = False,
) -> Runner:
    """Return a function from a batch (B, C, H, W) float32 to the module's outputs.

    Args:
        build: makes the module in evaluation mode, which returns a tensor or a tuple of tensors; not called,
            and torch not imported, if the cache has the converted network.
        key: everything that the outputs depend on, such as the digest of the weights.
        example: one input; B is free, C is fixed by it, H and W are unless ``free_size``.
        options: where to run.
        free_size: accept any H and W.

    Raises:
        EngineError: if OpenVINO was asked for and cannot convert or compile the module.
    """
    if choose(options.name) == "torch":
        return torch_runner(build(), options.threads, "cuda" if _has_gpu() else "cpu")
    try:
        return _openvino_runner(build, key, example, options, free_size)
    except (RuntimeError, ImportError) as error:
        text = "OpenVINO cannot run this network ({error}). Set HSEMOTION_ENGINE=torch."
        raise EngineError(text, code="openvino_failed", error=type(error).__name__) from error


def torch_runner(module: nn.Module, threads: int, device: Literal["cpu", "cuda"]) -> Runner:
    """Return what :func:`load` returns, by torch."""
    import torch  # noqa: PLC0415

    if threads:
        torch.set_num_threads(threads)
    module = module.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def run(batch: FloatArray) -> tuple[FloatArray, ...]:
        with torch.inference_mode():
            tensor = torch.from_numpy(np.ascontiguousarray(batch)).to(
                device, memory_format=torch.channels_last
            )
            outputs = module(tensor)
        return tuple(
            out.float().cpu().numpy() for out in (outputs if isinstance(outputs, tuple) else (outputs,))
        )

    return run


def _openvino_runner(
    build: Callable[[], nn.Module], key: str, example: FloatArray, options: EngineOptions, free_size: bool
) -> Runner:
    core = _openvino().Core()
    versions = f"{_openvino().__version__} {version('torch')} {platform.machine()}"
    name = hashlib.sha256(f"{versions} {example.shape} {free_size} {key}".encode()).hexdigest()[:32]
    file = options.cache / f"{name}.network" if options.cache else None
    model = _read(core, file) if file is not None else None
    if model is None:
        model = _convert(build(), example, free_size)
        if file is not None:
            _store(core, model, file)
    config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if options.threads:
        config["INFERENCE_NUM_THREADS"] = str(options.threads)
    request = core.compile_model(model, "CPU", config).create_infer_request()

    def run(batch: FloatArray) -> tuple[FloatArray, ...]:
        results = request.infer([np.ascontiguousarray(batch)])
        return tuple(np.array(results[index], np.float32) for index in range(len(results)))

    return run


def _convert(module: nn.Module, example: FloatArray, free_size: bool) -> Any:
    import torch  # noqa: PLC0415

    ov = _openvino()
    root, level = logging.getLogger(), logging.getLogger().level
    try:
        with warnings.catch_warnings():
            # the tracer warns of sizes that become constants; height and width are meant to
            warnings.simplefilter("ignore")
            model = ov.convert_model(module.eval().cpu(), example_input=torch.from_numpy(example))
    finally:
        # a conversion that fails leaves it so high that no warning of anybody is logged any more
        root.setLevel(level)
    size = [-1, -1] if free_size else example.shape[2:]
    model.reshape({model.input(0): ov.PartialShape([-1, example.shape[1], *size])})
    return model


def _read(core: Any, file: Path) -> Any | None:
    """Return a network from the cache; None if it is absent, unreadable or not what was stored.

    OpenVINO takes any weights of the right length, so only a digest tells that no number was changed.
    """
    try:
        content = file.read_bytes()
    except OSError:  # one that should be there is replaced, and if it cannot be, that is logged
        return None
    digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    graph_end = LENGTH_BYTES + int.from_bytes(body[:LENGTH_BYTES])
    with suppress(RuntimeError):
        if digest == _digest(file, body):
            return core.read_model(body[LENGTH_BYTES:graph_end], body[graph_end:])
    log.warning(
        "The converted network %s in the cache is damaged; it is converted again and replaced.", file.name
    )
    return None


def _digest(file: Path, body: bytes) -> bytes:
    """Return the digest of a stored network; its name is included, so no file can replace another."""
    return hashlib.sha256(file.name.encode() + body).digest()


def _store(core: Any, model: Any, file: Path) -> None:
    """Keep a converted network in one file: digest, length of the graph, graph, weights.

    It appears whole or not at all.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            graph, weights = Path(folder) / "graph.xml", Path(folder) / "graph.bin"
            _openvino().save_model(model, graph, compress_to_fp16=False)
            parts = graph.read_bytes(), weights.read_bytes()
            core.read_model(*parts)  # raises if a full disk cut them short
            body = len(parts[0]).to_bytes(LENGTH_BYTES) + b"".join(parts)
            partial = Path(folder) / file.name
            partial.write_bytes(_digest(file, body) + body)
            partial.replace(file)
    except OSError as error:
        _warn_uncached(file.parent, error.strerror or type(error).__name__)
    except RuntimeError:  # OpenVINO's, for whatever keeps it from writing
        _warn_uncached(file.parent, "OpenVINO cannot write there")


@cache
def _warn_uncached(folder: Path, reason: str) -> None:
    """Log once why the cache is of no use."""
    log.warning(
        "Converted networks cannot be kept in %s (%s), so every start takes some seconds longer. Make room "
        "there, or set HSEMOTION_CACHE "
        "to a folder that can be written.", folder, reason,
    )  # fmt: skip


def normalize(
    faces: npt.NDArray[np.uint8], mean: tuple[float, float, float], std: tuple[float, float, float]
) -> FloatArray:
    """Return (B, 3, S, S) float32 from (B, S, S, 3) uint8: divided by 255, minus mean, over std."""
    scale = 1 / (255 * np.asarray(std, np.float32))
    offset = np.divide(mean, std, dtype=np.float32)
    planes = faces.transpose(0, 3, 1, 2)
    result = np.empty(planes.shape, np.float32)
    np.multiply(planes, scale[:, None, None], out=result)
    result -= offset[:, None, None]
    return result
