"""Write PyTorch files by hand: archives, and pickles from parts that PyTorch itself would never put together."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

LEGACY = Path(__file__).resolve().parent / "legacy"
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def archive(entries: Mapping[str, bytes], folder: str = "archive") -> bytes:
    """Return a zip archive as PyTorch writes it, with these entries in one folder."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as file:
        for name, content in entries.items():
            file.writestr(f"{folder}/{name}", content)
    return stream.getvalue()


def name(text: str) -> bytes:
    """Return the instruction that names ``module name``."""
    return b"c" + text.replace(" ", "\n", 1).encode() + b"\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def row(*items: bytes) -> bytes:
    """Return a tuple."""
    return b"(" + b"".join(items) + b"t"


def table(items: Mapping[str, bytes]) -> bytes:
    """Return a dict with these texts as keys."""
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def call(function: str, *arguments: bytes) -> bytes:
    return name(function) + row(*arguments) + b"R"


def storage(key: str = "0", count: int = 6, kind: str = "torch FloatStorage") -> bytes:
    return row(text("storage"), name(kind), text(key), text("cpu"), number(count)) + b"Q"


def tensor(shape: Sequence[int], strides: Sequence[int], offset: int = 0, stored: bytes = b"") -> bytes:
    sizes, steps = (row(*(number(value) for value in values)) for values in (shape, strides))
    return call(
        "torch._utils _rebuild_tensor_v2",
        stored or storage(),
        number(offset),
        sizes,
        steps,
        b"\x89",
        ORDERED_DICT,
    )


def module(
    modules: Mapping[str, bytes] | None = None,
    parameters: Mapping[str, bytes] | None = None,
    cls: str = "timm.models.any Any",
) -> bytes:
    state = {"_parameters": table(parameters or {}), "_buffers": table({}), "_modules": table(modules or {})}
    return name(cls) + b")\x81" + table(state) + b"b"


VALUES = np.arange(6, dtype=np.float32) / 4
LAYER = {"fc.weight": tensor((2, 3), (3, 1)), "fc.bias": tensor((2,), (1,), 4)}


def pickled(body: bytes, values: Mapping[str, bytes] | None = None) -> bytes:
    """Return a file whose pickle leaves what ``body`` makes; storage 0 has :data:`VALUES`."""
    storages = {"0": VALUES.tobytes()} if values is None else values
    return archive(
        {
            "data.pkl": b"\x80\x02" + body + b".",
            "version": b"3\n",
            **{f"data/{key}": raw for key, raw in storages.items()},
        }
    )


def small() -> bytes:
    """Return the smallest valid file: an output layer from three numbers to two."""
    return pickled(table(LAYER))


def with_random_weights(case: str, seed: int) -> tuple[bytes, dict[str, np.ndarray]]:
    """Return a file of ``tests/legacy`` with weights, and what it holds by the keys of the module that was
    pickled."""
    with zipfile.ZipFile(LEGACY / f"{case}.zip") as file:
        program, listed = file.read("data.pkl"), json.loads(file.read("tensors.json"))
    random = np.random.RandomState(seed)
    tensors: dict[str, np.ndarray] = {}
    entries = {key: bytes(size) for key, size in listed["others"].items()}
    for key, stored, dtype, shape in listed["tensors"]:
        values = random.random_sample(shape)
        if dtype == "int64":
            tensors[key] = (values * 1000).astype(np.int64) if shape else np.array(int(random.randint(1000)))
        else:
            tensors[key] = (values + 0.5 if key.endswith("running_var") else values / 4 - 0.125).astype(dtype)
        entries[stored] = tensors[key].tobytes()
    return (
        archive(
            {"data.pkl": program, "version": b"3\n", **{f"data/{key}": raw for key, raw in entries.items()}},
            case,
        ),
        tensors,
    )
