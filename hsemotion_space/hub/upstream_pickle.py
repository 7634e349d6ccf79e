"""Reads the pickle inside a PyTorch file on a machine of our own, so that nothing in it is ever called.

A pickle is a program that may call anything. This machine knows the instructions that PyTorch writes and no others; names of classes and
functions stay names, instances are inert records, and a tensor is a description of bytes whose shape has been checked against them.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np

from hsemotion_space.hub.manifest import CheckpointError

MAX_INSTRUCTIONS = 300_000  # the largest published layout has 60,000
MAX_NAME = 256  # the pattern below takes many times the room of a long name
MAX_DIMS = 8
MAX_EXTENT = 1 << 40
MAX_INT_KEY = 1 << 31  # larger numbers can be chosen so that a dict becomes slow

_INERT = re.compile(r"(?:timm|torch\.nn|mobilefacenet|networks)(?:\.[A-Za-z_]\w*)* [A-Za-z_]\w*|torch (?:Size|device)", re.ASCII)
_ORDERED_DICT = "collections OrderedDict"
_SETS = ("__builtin__ set", "builtins set")
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETERS = ("torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state")
_STORAGES = {
    "torch FloatStorage": "float32",
    "torch HalfStorage": "float16",
    "torch DoubleStorage": "float64",
    "torch BFloat16Storage": "bfloat16",
    "torch LongStorage": "int64",
    "torch IntStorage": "int32",
    "torch ByteStorage": "uint8",
    "torch BoolStorage": "bool",
}
_KNOWN = {_ORDERED_DICT, *_SETS, _TENSOR, *_PARAMETERS, *_STORAGES}


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """A class or function that the file names.

    Attributes:
        text: its module, a space and its name.
    """

    text: str


@dataclass(slots=True, eq=False)
class Record:
    """What an instance of a named class left in the file.

    Attributes:
        cls: dotted name of the class.
        state: what its attributes were.
    """

    cls: str
    state: object = None


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """The numbers of one entry of the archive.

    Attributes:
        member: the entry.
        dtype: of the numbers; NumPy's name, or ``bfloat16``.
        count: how many numbers.
    """

    member: str
    dtype: str
    count: int

    @property
    def numpy_type(self) -> np.dtype[np.generic]:
        """Type of the bytes as they are stored, little-endian; where NumPy has none, the unsigned integer of that width."""
        return np.dtype({"bfloat16": "uint16", "bool": "uint8"}.get(self.dtype, self.dtype)).newbyteorder("<")


@dataclass(frozen=True, slots=True, eq=False)
class TensorView:
    """A tensor that lies inside its storage; offset and strides count elements and are not negative."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of a contiguous copy in the type of the storage."""
        return math.prod(self.shape) * self.storage.numpy_type.itemsize


def quote(value: object) -> str:
    """Return a text of the file for a message: printable, and short."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def read_pickle(program: bytes, sizes: Mapping[str, int]) -> tuple[object, tuple[str, ...]]:
    """Read ``data.pkl`` without calling anything.

    Args:
        program: the pickle.
        sizes: bytes of every entry of the archive, by name.

    Returns:
        its value, made of dicts, lists, tuples, numbers, texts and the records of this module, and every dotted name in it, sorted.

    Raises:
        CheckpointError: naming what was refused, as the rest of a sentence that starts with the file's name.
        ValueError: if the pickle ends early.
    """
    machine = _Machine(sizes)
    value = machine.run(program)
    return value, tuple(sorted(machine.names))


def _view(storage: Storage, offset: object, shape: tuple[object, ...], strides: tuple[object, ...]) -> TensorView:
    """Return a tensor after checking that every element lies inside its storage."""
    if len(shape) != len(strides) or len(shape) > MAX_DIMS:
        raise CheckpointError("is refused: the shape and strides of a tensor do not fit each other.")
    if not all(type(value) is int and 0 <= value <= MAX_EXTENT for value in (offset, *shape, *strides)):
        raise CheckpointError("is refused: the shape, strides or offset of a tensor are not counts.")
    view = TensorView(storage, cast("int", offset), cast("tuple[int, ...]", shape), cast("tuple[int, ...]", strides))
    last = view.offset + sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))
    if math.prod(view.shape) and last >= storage.count:
        raise CheckpointError("is refused: a tensor reaches beyond its storage.")
    return view


class _Machine:
    """The stack, marks and memo of a pickle.

    No step copies or compares what a file can make large: each costs the same, or what it takes off the stack.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.names: set[str] = set()
        self._sizes = sizes
        self._stack: list[object] = []
        self._below: list[list[object]] = []  # the stack under each mark
        self._memo: dict[int, object] = {}

    def run(self, program: bytes) -> object:
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
                if opcode.name not in _STEPS:
                    raise CheckpointError(f"is refused: its pickle has the instruction {opcode.name}, which PyTorch does not write.")
                if count >= MAX_INSTRUCTIONS:
                    raise CheckpointError(f"is refused: its pickle has more than {MAX_INSTRUCTIONS} instructions.")
                _STEPS[opcode.name](self, argument)
        except (IndexError, KeyError) as error:  # an empty stack, an unknown memo
            raise CheckpointError("is refused: its pickle is malformed.") from error
        if len(self._stack) != 1 or self._below:
            raise CheckpointError("is refused: its pickle does not end in one value.")
        return self._stack[0]

    def start(self, protocol: object) -> None:
        if protocol != 2:
            raise CheckpointError(f"is refused: its pickle has protocol {protocol}, and PyTorch writes protocol 2.")

    def stop(self, _: object) -> None:
        """Nothing is left to do."""

    def push(self, value: object) -> None:
        self._stack.append(value)

    def pop(self, count: int) -> list[object]:
        if len(self._stack) < count:
            raise IndexError(count)
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def mark(self, _: object) -> None:
        self._below.append(self._stack)
        self._stack = []

    def pop_marked(self) -> list[object]:
        below = self._below.pop()
        items, self._stack = self._stack, below
        return items

    def put(self, index: object) -> None:
        self._memo[cast("int", index)] = self._stack[-1]

    def get(self, index: object) -> None:
        self.push(self._memo[cast("int", index)])

    def name(self, text: object) -> None:
        name = str(text)
        dotted = name.replace(" ", ".")
        if name not in _KNOWN and (len(name) > MAX_NAME or not _INERT.fullmatch(name)):
            raise CheckpointError(
                f"is refused: it names {quote(dotted)}, which weights do not need. Do not load it with anything else either."
            )
        self.names.add(dotted)
        self.push(Name(name))

    def append(self, items: list[object]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise CheckpointError("is refused: its pickle appends to something that is not a list.")
        target.extend(items)

    def set_items(self, items: list[object]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise CheckpointError("is refused: its pickle sets items of something that is not a dict.")
        if not all(type(key) is str or (type(key) is int and abs(key) < MAX_INT_KEY) for key in items[::2]):
            raise CheckpointError("is refused: the keys of a dict are neither texts nor small numbers.")
        target.update(zip(items[::2], items[1::2], strict=True))

    def build(self, _: object) -> None:
        (state,) = self.pop(1)
        target = self._stack[-1]
        if isinstance(target, Record) and target.state is None:
            target.state = state
        elif type(target) is not dict:  # a state dict carries version numbers, which are not needed
            raise CheckpointError("is refused: its pickle gives attributes to something that has none.")

    def call(self, _: object) -> None:
        """Put what a known call stands for onto the stack, or a record."""
        function, args = self.pop(2)
        if not isinstance(function, Name) or type(args) is not tuple:
            raise CheckpointError("is refused: its pickle calls something that is not a named class.")
        self.push(self._result(function.text, args))

    def _result(self, name: str, args: tuple[object, ...]) -> object:
        match args:
            case () if name == _ORDERED_DICT:
                return {}
            case (list() as items,) if name in _SETS:
                return items
            case (Storage() as storage, offset, tuple() as shape, tuple() as strides, *_) if name == _TENSOR:
                return _view(storage, offset, shape, strides)
            case (TensorView() as tensor, *_) if name in _PARAMETERS:
                return tensor
        dotted = name.replace(" ", ".")
        if name in _KNOWN:
            raise CheckpointError(f"is refused: it calls {dotted} in a way that PyTorch does not write.")
        return Record(dotted)

    def storage(self, _: object) -> None:
        (reference,) = self.pop(1)
        match reference:
            case ("storage", Name(kind), str() as key, str(), int() as count) if kind in _STORAGES:
                storage = Storage(f"data/{key}", _STORAGES[kind], count)
            case _:
                raise CheckpointError("is refused: its pickle refers to something that is not a storage.")
        if self._sizes.get(storage.member) != count * storage.numpy_type.itemsize:
            raise CheckpointError(f"is refused: storage {quote(key)} is missing or has another size than its pickle says.")
        self.push(storage)


_Step: TypeAlias = Callable[[_Machine, object], None]
_STEPS: Mapping[str, _Step] = {
    "PROTO": _Machine.start,
    "STOP": _Machine.stop,
    "MARK": _Machine.mark,
    "GLOBAL": _Machine.name,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.storage,
    "NONE": _Machine.push,
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_marked())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop(3))),
    "APPEND": lambda machine, _: machine.append(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.append(machine.pop_marked()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_marked()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), _Machine.push),
}
