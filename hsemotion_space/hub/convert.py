"""Converts published PyTorch files (``.pt``, ``.pth``) to NumPy arrays; nothing in a file is run or imported.

Such a file is a zip archive of raw numbers and one pickle. PyTorch's restricted loader reads it, which calls
nothing but its own constructors of tensors; the classes of modules that a file names become inert stubs, so
they need not be installed.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

import numpy as np

from hsemotion_space.hub.source import CheckpointError

STATE_DICT = "state dict"
# where training scripts put the weights among other things
NESTED = ("model_state_dict", "state_dict", "model")
CLASSIFIERS = ("classifier", "head.fc", "fc")

MAX_ENTRIES = 5_000
MAX_PICKLE_BYTES = 8_000_000
MAX_INSTRUCTIONS = 300_000  # the largest published layout has 60,000
MAX_NAMES = 200  # the loader looks through all of them at each call
MAX_PARTS = 50_000  # parameters, buffers and children of all modules together
MAX_KEY = 256

_STUBS = re.compile(r"(?:timm|torch\.nn|mobilefacenet|networks)(?:\.[A-Za-z_]\w*)* [A-Za-z_]\w*", re.ASCII)
_STORAGES = {
    f"torch {kind}Storage" for kind in ["Float", "Half", "Double", "BFloat16", "Long", "Int", "Byte", "Bool"]
}
_REBUILD = {f"torch._utils _rebuild_{kind}" for kind in ("tensor_v2", "parameter", "parameter_with_state")}
_LOADED = {
    "collections OrderedDict",
    "__builtin__ set",
    "builtins set",
    "torch Size",
    "torch device",
    *_STORAGES,
    *_REBUILD,
}
_ENTRY = re.compile(
    r"(data\.pkl|data/[0-9]{1,9})|byteorder|version|\.(?:format_version|storage_alignment|data/serialization_id)"
)
_FORMATS = {
    b"version https://git-lfs": "lfs_pointer",
    b"\x80\x02\x8a\n": "old_format",
    b"\x89HDF": "hdf5",
    b"\x08": "onnx",
}
_FAULTS = {
    "empty": "{file} is empty. Download it again.",
    "damaged": "{file} is damaged or incomplete. Download it again.",
    "web_page": "{file} is a web page, not the weights. Use the address of the raw file.",
    "lfs_pointer": "{file} is a Git LFS pointer, not the weights. Download the file itself.",
    "old_format": (
        "{file} is in the format of PyTorch before 1.6. If you trust it, load it with PyTorch and save its"
        " state dict again."
    ),
    "hdf5": "{file} is an HDF5 file. Select the PyTorch file (.pt) of the same model.",
    "onnx": "{file} looks like an ONNX file. Select the PyTorch file (.pt) of the same model.",
    "safetensors": "{file} is a safetensors file. Select the PyTorch file (.pt) of the same model.",
    "not_pytorch": "{file} is not a PyTorch file. Select a .pt or .pth file.",
    "torchscript": "{file} is a TorchScript program. Select the file that was saved from Python.",
    "big_endian": "{file} was written on a big-endian machine, which is not supported.",
    "no_pickle": "{file} has no entry data.pkl of at most {most} bytes.",
    "no_weights": "{file} holds neither a module nor a dict of tensors. Select the file with the weights.",
    "no_output_layer": "{file} has no output layer: none of {names} is a matrix.",
    "too_many_entries": "{file} is refused: it has more than {most} entries.",
    "odd_entry": "{file} is refused: PyTorch does not write its entry {entry}.",
    "mixed_entries": "{file} is refused: its entries are not unique or not in one folder.",
    "packed_entries": "{file} is refused: its entries are encrypted or compressed, which PyTorch never does.",
    "lying_entries": "{file} is refused: its entries claim more bytes than the file has.",
    "too_long": "{file} is refused: its pickle has too many instructions or names.",
    "unsafe_name": (
        "{file} is refused: it names {name}, which weights do not need. Do not load it with any other program"
        " either."
    ),
    "bad_pickle": "{file} is refused: PyTorch's restricted loader does not accept its pickle ({error}).",
    "too_many_parts": "{file} is refused: its modules are too many or contain themselves.",
    "not_a_module": "{file} is refused: its part {part} is not a module.",
    "bad_key": "{file} is refused: its key {key} is not text, too long, or not unique.",
    "not_a_tensor": "{file} is refused: its entry {key} is not a tensor.",
    "too_large": ("{file} is refused: its tensors share storage and take more space than the file itself."),
    "not_finite": "{file} is refused: its tensor {key} has values that are not finite.",
}


class _FaultError(Exception):
    """Why a file is not converted; becomes a CheckpointError with the name of the file."""

    def __init__(self, code: str, **values: object) -> None:
        super().__init__(code)
        self.code, self.values = code, values


class _Stub:
    """An instance of a class that a file names: it keeps its attributes and does nothing."""

    name = ""
    state: object = None

    def __new__(cls, *_: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        """Ignore what the class would be called with."""

    def __setstate__(self, state: object) -> None:
        self.state = state


@dataclass(frozen=True, slots=True)
class Upstream:
    """The weights of a published file.

    Attributes:
        layout: the class of the pickled module as the file names it, or ``state dict``.
        tensors: arrays of their own by the key that current timm and the architectures of this project use,
            in the order of the file; half precision stays, bfloat16 becomes float32, and floating point
            values are finite.
        classes: every class and function that the file names, sorted.
        outputs, dim: rows and columns of the output layer's weight.
    """

    layout: str
    tensors: Mapping[str, np.ndarray]
    classes: tuple[str, ...]
    outputs: int
    dim: int


def read_upstream(content: bytes, name: str) -> Upstream:
    """Read a published PyTorch file without running anything from it.

    Args:
        content: the whole file.
        name: the file's name, for messages.

    Raises:
        CheckpointError: naming the file and why it is refused.
    """
    try:
        return _read(content)
    except _FaultError as error:
        fault: _FaultError = error
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        OverflowError,
    ) as error:
        fault = _FaultError("damaged")
        fault.__cause__ = error
    raise CheckpointError(
        _FAULTS[fault.code], code=fault.code, file=Path(name).name, **fault.values
    ) from fault


def _read(content: bytes) -> Upstream:
    _check_format(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = _entries(archive, len(content))
    names = _names(entries["data.pkl"])
    layout, tensors = _find(_load(entries, names))
    arrays = _arrays(_rename(tensors), len(content))
    layer = next((f"{name}.weight" for name in CLASSIFIERS if f"{name}.weight" in arrays), "")
    if not layer or arrays[layer].ndim != 2 or not arrays[layer].size:
        wanted = ", ".join(f"{name}.weight" for name in CLASSIFIERS)
        raise _FaultError("no_output_layer", names=wanted)
    outputs, dim = arrays[layer].shape
    return Upstream(layout, arrays, tuple(sorted(name.replace(" ", ".") for name in names)), outputs, dim)


def _check_format(content: bytes) -> None:
    """Tell what is not a zip archive by its first bytes."""
    if content.startswith(b"PK\x03\x04"):
        # before the directory is read, which takes ten times its room
        if content.count(b"PK\x01\x02") > MAX_ENTRIES:
            raise _FaultError("too_many_entries", most=MAX_ENTRIES)
        return
    if not content:
        raise _FaultError("empty")
    if content[:512].lstrip().startswith(b"<"):
        raise _FaultError("web_page")
    if content[8:10] == b'{"':
        raise _FaultError("safetensors")
    raise _FaultError(
        next((code for start, code in _FORMATS.items() if content.startswith(start)), "not_pytorch")
    )


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, bytes]:
    """Return the pickle and the storages by name, if PyTorch could have written the archive."""
    infos = {info.orig_filename: info for info in archive.infolist()}
    names = {name: name.partition("/")[2] for name in infos}
    if any(name == "constants.pkl" or name.startswith("code/") for name in names.values()):
        raise _FaultError("torchscript")
    odd = next((name for name, entry in names.items() if not _ENTRY.fullmatch(entry)), "")
    if odd:
        raise _FaultError("odd_entry", entry=quote(odd))
    if len(infos) != len(archive.infolist()) or len({name.partition("/")[0] for name in infos}) != 1:
        raise _FaultError("mixed_entries")
    if any(
        info.flag_bits & 0x41 or info.compress_type or info.compress_size != info.file_size
        for info in infos.values()
    ):
        raise _FaultError("packed_entries")
    if sum(info.file_size for info in infos.values()) > size:
        raise _FaultError("lying_entries")
    # checks CRC-32, which PyTorch does not
    entries = {names[name]: archive.read(info) for name, info in infos.items()}
    if not 0 < len(entries.get("data.pkl", b"")) <= MAX_PICKLE_BYTES:
        raise _FaultError("no_pickle", most=MAX_PICKLE_BYTES)
    if entries.get("byteorder", b"little") != b"little":
        raise _FaultError("big_endian")
    return {name: entry for name, entry in entries.items() if _ENTRY.fullmatch(name)[1]}  # type: ignore[index]


def _names(program: bytes) -> set[str]:
    """Return every class and function that a pickle names, if it names nothing but what weights need."""
    names: set[str] = set()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if count >= MAX_INSTRUCTIONS or len(names) > MAX_NAMES:
            raise _FaultError("too_long")
        if opcode.name != "GLOBAL":
            continue
        name = str(argument)
        if name not in _LOADED and (len(name) > MAX_KEY or not _STUBS.fullmatch(name)):
            raise _FaultError("unsafe_name", name=quote(name.replace(" ", ".")))
        names.add(name)
    return names


def _load(entries: Mapping[str, bytes], names: set[str]) -> object:
    """Return what PyTorch's restricted loader reads from the checked entries, with stubs for modules."""
    import torch  # noqa: PLC0415  heavy, and only conversions need it

    checked = io.BytesIO()  # an archive of our own: what was checked is what is loaded
    with zipfile.ZipFile(checked, "w") as archive:
        for name, entry in {**entries, "version": b"3\n"}.items():
            archive.writestr(f"weights/{name}", entry)
    checked.seek(0)
    dotted = [name.replace(" ", ".") for name in names - _LOADED]
    stubs = [(type("_Named", (_Stub,), {"name": name}), name) for name in dotted]
    try:
        with torch.serialization.safe_globals([*stubs]):
            return cast("object", torch.load(checked, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a malformed pickle makes the loader raise
        raise _FaultError("bad_pickle", error=type(error).__name__) from error


def _find(value: object) -> tuple[str, dict[str, object]]:
    """Return the layout and the tensors of a module, a state dict, or a dict that contains one of them."""
    if isinstance(value, dict):
        table = dict(dict.items(value))
        value = next((table[key] for key in NESTED if isinstance(table.get(key), dict | _Stub)), value)
    if isinstance(value, _Stub):
        tensors: dict[str, object] = {}
        for key, tensor in _module_tensors(value):
            _add(tensors, key, tensor)
        return value.name, tensors
    if not isinstance(value, dict) or not value:
        raise _FaultError("no_weights")
    return STATE_DICT, dict(dict.items(value))


def _module_tensors(root: _Stub) -> Iterator[tuple[str, object]]:
    """Yield the tensors of a module by the keys and in the order of its state dict."""
    pending: list[tuple[str, object]] = [("", root)]
    parts = 0
    while pending:
        prefix, module = pending.pop()
        own, children = _module_parts(prefix, module)
        parts += 1 + len(own) + len(children)
        if parts > MAX_PARTS or len(prefix) > MAX_KEY:
            raise _FaultError("too_many_parts")
        yield from ((f"{prefix}{name}", tensor) for name, tensor in own.items() if tensor is not None)
        pending += [
            (f"{prefix}{name}.", child) for name, child in reversed(children.items()) if child is not None
        ]


def _module_parts(prefix: str, module: object) -> tuple[dict[str, object], dict[str, object]]:
    """Return what a module itself adds to the state dict, and its children."""
    state = module.state if isinstance(module, _Stub) else None
    tables = (
        [state.get(name) for name in ("_parameters", "_buffers", "_modules")] if type(state) is dict else []
    )
    if not tables or not all(isinstance(table, dict) for table in tables):
        raise _FaultError("not_a_module", part=quote(prefix))
    parameters, buffers, children = (dict(dict.items(cast("dict[str, object]", table))) for table in tables)
    hidden = cast("dict[str, object]", state).get("_non_persistent_buffers_set")
    left_out = hidden if isinstance(hidden, set) else set()
    return {
        **parameters,
        **{name: tensor for name, tensor in buffers.items() if name not in left_out},
    }, children


def _add(tensors: dict[str, object], key: object, tensor: object) -> None:
    if type(key) is not str or len(key) > MAX_KEY or key in tensors:
        raise _FaultError("bad_key", key=quote(key))
    tensors[key] = tensor


def _rename(tensors: Mapping[str, object]) -> dict[str, object]:
    """Name the tensors as current architectures do: no parallel-training wrapper, a single output layer."""
    wrapped = all(str(key).startswith("module.") for key in tensors)
    renamed: dict[str, object] = {}
    for key, tensor in tensors.items():
        short = key.removeprefix("module.") if wrapped else key
        _add(
            renamed,
            re.sub(r"^classifier\.0\.", "classifier.", short) if type(short) is str else short,
            tensor,
        )
    return renamed


def _arrays(entries: Mapping[str, object], most_bytes: int) -> dict[str, np.ndarray]:
    """Return contiguous arrays with the values of the tensors."""
    import torch  # noqa: PLC0415  heavy, and only conversions need it

    tensors: dict[str, torch.Tensor] = {}
    for key, value in entries.items():
        if type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise _FaultError("not_a_tensor", key=quote(key))
        # without the attributes that a file may give it
        tensors[key] = torch.Tensor.detach(cast("torch.Tensor", value))
    if sum(tensor.nbytes for tensor in tensors.values()) > most_bytes:
        raise _FaultError("too_large")
    arrays: dict[str, np.ndarray] = {}
    for key, tensor in tensors.items():
        arrays[key] = array = np.array(
            (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy(), order="C"
        )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise _FaultError("not_finite", key=quote(key))
    return arrays


def quote(value: object) -> str:
    """Return a text of the file for a message: printable, and short."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
