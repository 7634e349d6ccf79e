"""Published PyTorch files (``.pt``, ``.pth``) to plain named arrays; nothing that a file holds is ever executed.

Such a file is a zip archive of raw numbers and one pickle, which says what they are. It may hold a dict of tensors or a whole module, whose
classes need not be installed.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.hub.upstream_pickle import Record, TensorView, quote, read_pickle

STATE_DICT = "state dict"
NESTED = ("model_state_dict", "state_dict", "model")  # where training scripts put the weights among other things
CLASSIFIERS = ("classifier", "head.fc", "fc")

MAX_ENTRIES = 5_000
MAX_PICKLE_BYTES = 8_000_000
MAX_PARTS = 50_000  # parameters, buffers and children of all modules together
MAX_KEY = 256

_MEMBER = re.compile(r"data\.pkl|byteorder|version|\.format_version|\.storage_alignment|\.data/serialization_id|data/[0-9]{1,9}")
_CENTRAL = b"PK\x01\x02"  # starts every line of a zip archive's directory
_FORMATS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights. Download the file itself"),
    (b"\x80\x02\x8a\n", "is in the format of PyTorch before 1.6. Where you trust it, load it with PyTorch and save its state dict again"),
    (b"\x89HDF", "is an HDF5 file, not a PyTorch file. Choose the .pt file of the same model"),
    (b"\x08", "looks like an ONNX file, not a PyTorch file. Choose the .pt file of the same model"),
)


@dataclass(frozen=True, slots=True)
class Upstream:
    """The weights of a published file.

    Attributes:
        layout: the class of the pickled module as the file names it, or ``state dict``.
        tensors: arrays of their own by the key that current timm and the architectures of this project use, in the order of the file;
            half precision stays, bfloat16 becomes float32, and floating point values are finite.
        classes: every class and function that the file names, sorted.
        outputs, dim: rows and columns of the output layer's weight.
    """

    layout: str
    tensors: Mapping[str, np.ndarray]
    classes: tuple[str, ...]
    outputs: int
    dim: int


def read_upstream(content: bytes, name: str) -> Upstream:
    """Read a published PyTorch file without executing anything from it.

    Args:
        content: the whole file.
        name: the file's name, for messages.

    Raises:
        CheckpointError: naming the file and what was refused.
    """
    try:
        return _read(content)
    except CheckpointError as error:
        raise CheckpointError(f"{Path(name).name} {error}") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, OverflowError, struct.error) as error:
        raise CheckpointError(f"{Path(name).name} is damaged or incomplete. Download it again.") from error


def _read(content: bytes) -> Upstream:
    _check_format(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = _members(archive, len(content))
        value, classes = read_pickle(archive.read(members["data.pkl"]), {name: info.file_size for name, info in members.items()})
        layout, views = _find(value)
        views = _rename(views)
        if sum(view.nbytes for view in views.values()) > len(content):
            raise CheckpointError("is refused: its tensors share numbers and would take more room than the file itself.")
        tensors = _copy(archive, members, views)
    layer = next((f"{name}.weight" for name in CLASSIFIERS if f"{name}.weight" in tensors), "")
    if not layer or tensors[layer].ndim != 2 or not tensors[layer].size:
        raise CheckpointError(f"has no output layer; one of {', '.join(f'{name}.weight' for name in CLASSIFIERS)} should be a matrix.")
    outputs, dim = tensors[layer].shape
    return Upstream(layout, tensors, classes, outputs, dim)


def _check_format(content: bytes) -> None:
    """Tell what is not a zip archive by what it is."""
    if content.startswith(b"PK\x03\x04"):
        if content.count(_CENTRAL) > MAX_ENTRIES:  # before the directory is read, which takes ten times its room
            raise CheckpointError(f"is refused: it has more than {MAX_ENTRIES} entries.")
        return
    if not content:
        raise CheckpointError("is empty. Download it again.")
    if content[:512].lstrip().startswith(b"<"):
        raise CheckpointError("is a web page, not the weights: the download failed. Use the address of the raw file.")
    if content[8:10] == b'{"':
        raise CheckpointError("is a safetensors file, not a PyTorch file. Choose the .pt file of the same model.")
    for start, text in _FORMATS:
        if content.startswith(start):
            raise CheckpointError(f"{text}.")
    raise CheckpointError("is not a PyTorch file. Choose a .pt or .pth file.")


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by their names below the common folder, after checking that PyTorch could have written them."""
    members: dict[str, zipfile.ZipInfo] = {}
    infos = archive.infolist()
    folders = {info.orig_filename.partition("/")[0] for info in infos}
    if folders & {"", ".", ".."} or len(folders) != 1 or "\\" in "".join(folders):
        raise CheckpointError("is refused: its entries do not lie in one folder, as PyTorch writes them.")
    for info in infos:
        member = info.orig_filename.partition("/")[2]
        _check_entry(info, member)
        if member in members:
            raise CheckpointError(f"is refused: its entry {member} is there twice.")
        members[member] = info
    if sum(info.file_size for info in infos) > size:
        raise CheckpointError("is refused: its entries claim more bytes than the file has.")
    if "data.pkl" not in members:
        raise CheckpointError("has no entry data.pkl, so it is not a PyTorch file. Choose a .pt or .pth file.")
    if members["data.pkl"].file_size > MAX_PICKLE_BYTES:
        raise CheckpointError(f"is refused: its data.pkl is larger than {MAX_PICKLE_BYTES // 1_000_000} MB.")
    if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
        raise CheckpointError("was written on a big-endian machine, which is not supported.")
    return members


def _check_entry(info: zipfile.ZipInfo, member: str) -> None:
    if member == "constants.pkl" or member.startswith("code/"):
        raise CheckpointError("is a TorchScript program, not plain weights. Choose the file that was saved from Python.")
    if not _MEMBER.fullmatch(member):
        raise CheckpointError(f"is refused: it has an entry {quote(member)}, which PyTorch does not write.")
    if info.flag_bits & 0x41:
        raise CheckpointError(f"is refused: its entry {member} is encrypted.")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise CheckpointError(f"is refused: its entry {member} is compressed, which PyTorch never does.")


def _find(value: object) -> tuple[str, dict[str, TensorView]]:
    """Return the layout and the tensors of a module, a state dict, or a dict that has one of them among other things."""
    if type(value) is dict and (key := next((key for key in NESTED if type(value.get(key)) in (dict, Record)), "")):
        value = value[key]
    if isinstance(value, Record):
        return value.cls, _module_tensors(value)
    if type(value) is not dict or not value:
        raise CheckpointError("holds neither a module nor a dict of tensors. Choose the file with the weights.")
    tensors: dict[str, TensorView] = {}
    for key, tensor in value.items():
        _add(tensors, key, tensor)
    return STATE_DICT, tensors


def _add(tensors: dict[str, TensorView], key: object, tensor: object) -> None:
    if type(key) is not str or not isinstance(tensor, TensorView):
        raise CheckpointError(f"is refused: its entry {quote(key)} is not a named tensor.")
    if len(key) > MAX_KEY or key in tensors:
        raise CheckpointError(f"is refused: its tensor {quote(key)} is there twice or has too long a name.")
    tensors[key] = tensor


def _module_tensors(root: Record) -> dict[str, TensorView]:
    """Return the tensors of a module by the keys and in the order of its state dict."""
    tensors: dict[str, TensorView] = {}
    pending: list[tuple[str, object]] = [("", root)]
    parts = 0
    while pending:
        prefix, module = pending.pop()
        own, children = _module_parts(prefix, module)
        parts += 1 + len(own) + len(children)
        if parts > MAX_PARTS or len(prefix) > MAX_KEY:
            raise CheckpointError("is refused: its modules are too many or contain themselves.")
        for name, tensor in own.items():
            if tensor is not None:
                _add(tensors, f"{prefix}{name}", tensor)
        pending += [(f"{prefix}{name}.", child) for name, child in reversed(children.items()) if child is not None]
    return tensors


def _module_parts(prefix: str, module: object) -> tuple[dict[str, object], dict[str, object]]:
    """Return what a module itself adds to the state dict, and its children."""
    state = module.state if isinstance(module, Record) else None
    tables = [state.get(name) for name in ("_parameters", "_buffers", "_modules")] if type(state) is dict else []
    if not tables or not all(type(table) is dict for table in tables):
        raise CheckpointError(f"is refused: its part {quote(prefix)} is not a module.")
    parameters, buffers, children = cast("list[dict[str, object]]", tables)
    hidden = cast("dict[str, object]", state).get("_non_persistent_buffers_set", [])
    if type(hidden) is not list or len(hidden) > len(buffers):
        raise CheckpointError(f"is refused: the buffers of its part {quote(prefix)} are not those of a module.")
    left_out = {name for name in hidden if type(name) is str}
    return {**parameters, **{name: tensor for name, tensor in buffers.items() if name not in left_out}}, children


def _rename(views: Mapping[str, TensorView]) -> dict[str, TensorView]:
    """Name the tensors as current architectures do: without the wrapper of parallel training, and with a single output layer."""
    wrapped = all(key.startswith("module.") for key in views)
    renamed: dict[str, TensorView] = {}
    for key, view in views.items():
        short = key.removeprefix("module.") if wrapped else key
        _add(renamed, re.sub(r"^classifier\.0\.", "classifier.", short), view)
    return renamed


def _copy(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], views: Mapping[str, TensorView]) -> dict[str, np.ndarray]:
    """Return contiguous arrays with the values of the tensors; every entry is read once."""
    entries = {view.storage.member for view in views.values()}
    raw = {member: archive.read(members[member]) for member in entries}
    tensors: dict[str, np.ndarray] = {}
    for key, view in views.items():
        stored = np.frombuffer(raw[view.storage.member], view.storage.numpy_type)[view.offset :]
        strides = [stride * stored.itemsize for stride in view.strides]
        array = _decode(np.array(np.lib.stride_tricks.as_strided(stored, view.shape, strides), order="C"), view.storage.dtype)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckpointError(f"is refused: its tensor {quote(key)} has values that are not finite.")
        tensors[key] = array
    return tensors


def _decode(stored: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":  # the upper half of a float32
        return np.asarray(stored.astype("<u4") << 16).view("<f4")
    return np.asarray(stored != 0) if dtype == "bool" else stored
