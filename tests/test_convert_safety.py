"""Hostile files: each is refused with a reason, nothing in it is run, and it costs little."""

from __future__ import annotations

import contextlib
import io
import pickle
import random
import struct
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest
from upstream_makers import (
    LAYER,
    ORDERED_DICT,
    VALUES,
    archive,
    call,
    module,
    name,
    number,
    pickled,
    row,
    small,
    storage,
    table,
    tensor,
    text,
)

from hsemotion_space.hub.convert import read_upstream
from hsemotion_space.hub.source import CheckpointError

FORBIDDEN = ("os.", "subprocess.", "import", "exec", "compile", "open", "socket.", "ctypes.", "shutil.",
             "pickle.find_class")  # fmt: skip
_audit: dict[str, bool] = {"active": False}
_events: list[str] = []


def _record(event: str, _: object) -> None:
    if _audit["active"] and event.startswith(FORBIDDEN):
        _events.append(event)


sys.addaudithook(_record)
for content in (
    small(),
    pickled(call("os system")),
    pickled(b"N."),
    pickled(b"Vx\n."),
    pickled(call("torch.nn A", name("torch Size"))),
):
    with contextlib.suppress(CheckpointError):  # what Python and PyTorch import by themselves the first time
        read_upstream(content, "bad.pt")


@contextlib.contextmanager
def audited() -> Iterator[None]:
    """Check that no file is opened, no module imported, and nothing compiled or started."""
    _events.clear()
    _audit["active"] = True
    try:
        yield
    finally:
        _audit["active"] = False
    assert not _events


def refused(content: bytes) -> str:
    """Return the code of why a file was refused, during which nothing in it was run."""
    with audited(), pytest.raises(CheckpointError) as caught:
        read_upstream(content, "bad.pt")
    assert str(caught.value).startswith("bad.pt ")
    return caught.value.code


COMMAND = text("echo harm")
UNSAFE = (
    "os system", "posix system", "nt system", "builtins eval", "__builtin__ exec", "builtins getattr",
    "builtins __import__", "importlib import_module", "subprocess Popen", "functools partial",
    "operator attrgetter", "torch.serialization load", "torch.hub load", "torch.jit load",
    "torch._ops load_library", "numpy load", "numpy.core.multiarray _reconstruct",
    "collections OrderedDict.__init__.__globals__", "runpy run_path", "_codecs encode",
    "copyreg _reconstructor", "webbrowser open", "__main__ Net",
)  # fmt: skip


def inside(body: bytes) -> dict[str, bytes]:
    """Return a pickle that is refused where it hides in something allowed."""
    stored = row(text("storage"), body, text("0"), text("cpu"), number(6)) + b"Q"
    return {
        "alone": body,
        "parameter": module({"fc": module({}, {**LAYER, "bad": body})}),
        "argument": call("timm.models.any Any", body),
        "state": name("timm.models.any Any") + b")\x81" + table({"_parameters": body}) + b"b",
        "key of a module": module({"fc": body}),
        "storage": tensor((2, 3), (3, 1), stored=stored),
    }


@pytest.mark.parametrize("function", UNSAFE)
def test_read_upstream_of_a_name_that_weights_do_not_need_is_refused(function: str) -> None:
    for place, body in inside(call(function, COMMAND)).items():
        assert refused(pickled(body)) == "unsafe_name", place


@pytest.mark.parametrize(
    "body",
    [
        call("torch.nn.modules.os system", COMMAND),
        module({"fc": module({}, LAYER, "timm.os system")}, cls="torch.nn subprocess"),
        name("timm.models.any Any") + b")\x81" + table({"__class__": name("torch.nn A"), "__reduce__": COMMAND}) + b"b",
        table({"fc.weight": call("torch._utils _rebuild_parameter", call("torch.nn eval", COMMAND), b"\x88", ORDERED_DICT)}),
        table(
            {
                "fc.weight": call(
                    "torch._utils _rebuild_parameter_with_state", tensor((2, 3), (3, 1)), b"\x89", ORDERED_DICT,
                    table({"numpy": name("torch.nn Evil"), "detach": name("torch.nn Evil")}),
                )
            }
        ),
        ORDERED_DICT + table({"items": name("torch.nn Evil"), "keys": name("torch.nn Evil")}) + b"b",
    ],
)  # fmt: skip
def test_read_upstream_of_allowed_names_runs_nothing(body: bytes) -> None:
    with audited(), contextlib.suppress(CheckpointError):
        found = read_upstream(pickled(body), "inert.pt").tensors
        assert all(type(array) is np.ndarray for array in found.values())


def test_read_upstream_of_a_pickle_that_runs_a_command_is_refused() -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            import os

            return os.system, ("echo harm",)

    for protocol in range(6):
        for content in (pickle.dumps(Harm(), protocol), pickle.dumps({"fc.weight": [Harm()]}, protocol)):
            refused(archive({"data.pkl": content, "version": b"3\n"}))
            refused(content)


@pytest.mark.parametrize(
    "body",
    [
        b"i" + b"os\nsystem\n", b"(" + COMMAND + b"ios\nsystem\n", b"(cos\nsystem\n" + COMMAND + b"o", b"\x93", b"\x82\x01",
        b"\x83\x01\x00", b"P0\n",
        b"\x96" + struct.pack("<Q", 2**60), b"\x97", b"\x98", b"\x8d" + struct.pack("<Q", 2**60),
        b"\x8b" + struct.pack("<i", 2**30),
        b"T" + struct.pack("<i", -1), b"X" + struct.pack("<I", 2**32 - 1), b"\x8a\xff",
        b"I1" + b"0" * 100_000 + b"\n", b"0", b"1", b"2", b"R", b"b",
        b"\x81", b"t", b"u", b"s", b"e", b"a", b"h\x05", b"j\xff\xff\xff\xff", b"q\x00", b"Q", b"\x85", b")R", b"N.",
        b"N" * 3, b"((((", b"",
        *(
            table({"fc.weight": body})
            for body in (
                tensor((2, 3), (3, -1)), tensor((-2, 3), (3, 1)), tensor((2, 3), (3, 1), -1), tensor((2, 3), (3, 1), 1), tensor((7,), (1,)),
                tensor((2, 3), (3,)), tensor((2**62, 4), (0, 1)), tensor((2**31, 2**31), (0, 0)), tensor((1,), (2**62,), 2**63),
                tensor((2**40, 3), (0, 1)), tensor((6,), (1,), stored=storage(count=2**62)), tensor((6,), (1,), stored=storage(count=7)),
                tensor((6,), (1,), stored=storage("../0")), tensor((6,), (1,), stored=storage("1")),
                tensor((6,), (1,), stored=storage(kind="torch Size")), tensor((6,), (1,), stored=storage(kind="torch QInt8Storage")),
            )
        ),
    ],
)  # fmt: skip
def test_read_upstream_of_malformed_instructions_or_tensors_is_refused(body: bytes) -> None:
    refused(pickled(body))


def timed(content: bytes, seconds: float = 1.0, times: float = 100.0) -> None:
    """Refuse a file in little time and memory."""
    tracemalloc.start()
    started = time.process_time()  # other processes do not count
    refused(content)
    took, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < seconds * 5, took  # tracemalloc slows it down
    assert peak < times * len(content) + 5_000_000, peak


def test_read_upstream_of_bombs_costs_little() -> None:
    laughs = b"]q\x00" + b"".join(
        b"(" + b"h" + bytes([k]) + (b"h" + bytes([k])) * 9 + b"tq" + bytes([k + 1]) for k in range(40)
    )
    timed(pickled(laughs))
    timed(pickled(table({f"fc{k}.weight": tensor((2**14, 3), (0, 1)) for k in range(2000)})))
    timed(pickled(b"]" * 100_000 + b"a" * 99_999))
    timed(pickled(b"(" * 100_000))
    deep = b""
    for _ in range(2000):
        deep = module({"x": deep} if deep else {})
        if len(deep) > 100_000:
            break
    timed(pickled(deep))
    loop = table({"_parameters": table({}), "_buffers": table({}), "_modules": table({"x": b"h\x00"})})
    timed(pickled(name("timm.models.any Any") + b")\x81q\x00" + loop + b"b"))


def zipped(entries: list[tuple[str, bytes]], kind: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as file:
        for path, content in entries:
            file.writestr(zipfile.ZipInfo(path) if kind == zipfile.ZIP_STORED else path, content)
    return stream.getvalue()


PROGRAM = b"\x80\x02" + table(LAYER) + b"."
GOOD = [("a/data.pkl", PROGRAM), ("a/data/0", VALUES.tobytes())]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "entries",
    [
        [*GOOD, ("../../etc/passwd", b"x")], [*GOOD, ("/etc/passwd", b"x")], [*GOOD, ("a/../../x", b"x")], [*GOOD, ("a\\..\\x", b"x")],
        [*GOOD, ("a/data/../x", b"x")], [*GOOD, ("b/data/1", b"x")], [*GOOD, ("a/data.pkl", PROGRAM)], [*GOOD, ("a/data/0", bytes(24))],
        [*GOOD, ("a/code/__torch__.py", b"x")], [*GOOD, ("a/constants.pkl", b"x")], [*GOOD, ("a/extra.py", b"x")], [*GOOD, ("a/", b"")],
        [*GOOD, ("a/byteorder", b"big")], GOOD[1:], GOOD[:1], [("data.pkl", PROGRAM)], [],
    ],
    ids=str,
)  # fmt: skip
def test_read_upstream_of_foreign_archives_is_refused(entries: list[tuple[str, bytes]]) -> None:
    refused(zipped(entries))


def test_read_upstream_refuses_zip_bombs_before_it_unpacks_them() -> None:
    timed(zipped([("a/data.pkl", bytes(50_000_000)), GOOD[1]], zipfile.ZIP_DEFLATED), 1.0, 300.0)
    timed(zipped([*GOOD, *((f"a/data/{k}", b"") for k in range(1, 20_000))]), 1.0)
    lying = bytearray(zipped(GOOD))
    place = lying.index(b"PK\x01\x02")
    lying[place + 20 : place + 28] = struct.pack("<II", 2**31, 2**31)
    timed(bytes(lying))


def test_read_upstream_names_the_kind_of_another_file() -> None:
    for content, code in (
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Not found", "web_page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "lfs_pointer"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "old_format"),
        (struct.pack("<Q", 2) + b'{"x"', "safetensors"),
        (b"\x89HDF\r\n\x1a\n", "hdf5"),
        (bytes(100), "not_pytorch"),
    ):
        assert refused(content) == code


def test_read_upstream_of_a_truncated_file_is_refused() -> None:
    whole = zipped(GOOD)
    for end in range(0, len(whole) - 1, max(1, len(whole) // 30)):
        refused(whole[:end])


def test_read_upstream_of_changed_bytes_gives_the_same_tensors_or_a_reason() -> None:
    whole, draw, survived = zipped([*GOOD, ("a/version", b"3\n")]), random.Random(0), 0
    for _ in range(200):
        changed = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 5))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        try:
            upstream = read_upstream(bytes(changed), "changed.pt")
        except CheckpointError:
            continue
        survived += 1
        for key, wanted in (("fc.weight", VALUES.reshape(2, 3)), ("fc.bias", VALUES[4:])):
            found = upstream.tensors.get(key)
            assert found is None or np.array_equal(found, wanted) or found.shape != wanted.shape
    assert 0 < survived < 100
