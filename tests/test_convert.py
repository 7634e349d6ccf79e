"""Published files become the tensors that were saved, in the names of today."""

from __future__ import annotations

import io
import operator
import random
import subprocess
import sys
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from error_codes import raises_code
from legacy.make import CASES, create, old_names, outputs, own_name, packed
from torch import nn
from upstream_makers import (
    LAYER,
    LEGACY,
    VALUES,
    archive,
    module,
    name,
    pickled,
    table,
    tensor,
    with_random_weights,
)

from hsemotion_space.hub.convert import STATE_DICT, Upstream, read_upstream
from hsemotion_space.hub.source import CheckpointError
from hsemotion_space.vision.backbones import Backbone, create_model, load_backbone

LAYOUTS = {"b0": "timm.models.efficientnet.EfficientNet", "b2": "timm.models.efficientnet.EfficientNet"}
LAYOUTS |= {
    "mobilevit": "timm.models.byobnet.ByobNet",
    "mobilefacenet": "torch.nn.modules.container.Sequential",
    "ddamfn": STATE_DICT,
}


def saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def read(value: object) -> Upstream:
    return read_upstream(saved(value), "weights.pt")


def loaded(upstream: Upstream, name: str) -> Backbone:
    case = CASES[name]
    assert (upstream.outputs, upstream.dim) == (case.outputs, case.dim)
    return load_backbone(
        case.now,
        {},
        case.dim,
        case.outputs,
        {key: torch.from_numpy(array) for key, array in upstream.tensors.items()},
    )


def layer(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"fc.weight": torch.rand(2, 3), **more}


@pytest.fixture
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield None
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CASES)
def test_read_upstream_names_every_tensor_as_today(name: str) -> None:
    content, expected = with_random_weights(name, seed=3)
    upstream = read_upstream(content, f"{name}.pt")
    assert upstream.layout == LAYOUTS[name.partition("-")[0]]
    assert [key.replace("classifier.0.", "classifier.") for key in expected] == list(upstream.tensors)
    for array, wanted in zip(upstream.tensors.values(), expected.values(), strict=True):
        assert array.dtype == wanted.dtype
        assert np.array_equal(array, wanted)
        assert array.flags.c_contiguous and array.flags.writeable and array.flags.owndata
    state = loaded(upstream, name).model.state_dict()
    assert list(state) == list(upstream.tensors)
    assert all(np.array_equal(state[key].numpy(), array) for key, array in upstream.tensors.items())


def old_timm_name(module: str) -> str:
    """Return under which name timm 0.4.5 had what is now in ``timm.layers``."""
    return own_name(module.replace("timm.layers.", "timm.models.layers.")).replace(
        "._efficientnet", ".efficientnet"
    )


@pytest.mark.parametrize("name", ["b0-timm-0.4.5", "mobilevit-timm-0.9.16", "mobilefacenet", "ddamfn"])
def test_read_upstream_of_modules_under_old_names(name: str, one_thread: object) -> None:
    case = CASES[name]
    model = create(case, case.now)
    images, embeddings, scores = outputs(case, model)
    with old_names(model, old_timm_name):
        upstream = read(packed(case, model))
    if case.arch != "ddamfn":
        assert not [cls for cls in upstream.classes if cls.startswith(("timm.layers", "hsemotion_space"))]
    with torch.inference_mode():
        now = loaded(upstream, name)(torch.from_numpy(images))
    assert np.ptp(scores) > 1e-3
    assert np.array_equal(now[0].numpy(), embeddings)
    assert np.array_equal(now[1].numpy(), scores)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with the versions of timm, filled when they are first asked for."""
    return {version: tmp_path_factory.mktemp("timm") for version in {case.timm for case in CASES.values()}}


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_read_upstream_against_the_original_library(
    name: str, libraries: dict[str, Path], one_thread: object
) -> None:
    case = CASES[name]
    folder = libraries[case.timm]
    if case.timm and not (folder / "timm").exists():
        command = [
            sys.executable,
            *f"-m pip install --quiet --no-deps --target {folder} timm=={case.timm}".split(),
        ]
        if subprocess.run(command, capture_output=True, check=False, timeout=120).returncode:
            pytest.skip(f"pip cannot install timm {case.timm} here")
    subprocess.run(
        [sys.executable, str(LEGACY / "make.py"), "whole", name, str(folder)], check=True, timeout=120
    )
    upstream = read_upstream((folder / f"{name}.pt").read_bytes(), f"{name}.pt")
    with np.load(folder / f"{name}.npz") as then, torch.inference_mode():
        embeddings, scores = loaded(upstream, name)(torch.from_numpy(then["images"]))
        assert np.ptp(then["scores"]) > 1e-3
        assert np.array_equal(embeddings.numpy(), then["embeddings"])
        assert np.array_equal(scores.numpy(), then["scores"])


def test_read_upstream_keeps_types_and_values() -> None:
    kinds = (torch.float16, torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8, torch.bool)
    values = {str(kind): (torch.rand(3, 4, 5) * 200 - 50).abs().to(kind) for kind in kinds}
    small = (torch.randn(50, 7) * 10.0 ** torch.arange(-3, 4)).to(torch.bfloat16)
    tensors = read(layer(**values, bfloat16=small, one=small[3, 4])).tensors
    wanted = {key: value.numpy() for key, value in values.items()} | {
        "bfloat16": small.float().numpy(),
        "one": small[3, 4].float().numpy(),
    }
    for key, array in wanted.items():
        assert tensors[key].dtype == array.dtype
        assert np.array_equal(tensors[key], array)


def test_read_upstream_copies_views_apart() -> None:
    base = torch.rand(6, 8)
    views = {
        "t": base.T,
        "part": base[1:4, ::3],
        "column": base[:, 2],
        "one": base[5, 7],
        "none": base[2:2],
        "thin": base[:, :1],
    }
    tensors = read(layer(**{key: view.detach() for key, view in views.items()}, room=torch.rand(100))).tensors
    for key, view in views.items():
        assert np.array_equal(tensors[key], view.numpy()), key
        assert not any(
            np.shares_memory(tensors[key], other) for name, other in tensors.items() if name != key
        )


def test_read_upstream_of_any_view() -> None:
    draw, seen = random.Random(0), set()
    for _ in range(200):
        dims, offset = draw.randrange(4), draw.randrange(7)
        shape, strides = ([draw.randrange(most) for _ in range(dims)] for most in (4, 5))
        places = [offset + sum(map(operator.mul, place, strides)) for place in np.ndindex(*shape)]
        inside = max(places, default=0) < VALUES.size
        seen.add((dims, inside))
        content = pickled(table({**LAYER, "x": tensor(shape, strides, offset)}))
        if inside:
            assert (
                read_upstream(content, "x.pt").tensors["x"].tolist()
                == VALUES[np.array(places, dtype=int)].reshape(shape).tolist()
            )
        else:
            with raises_code(CheckpointError, "bad_pickle"):
                read_upstream(content, "x.pt")
    assert len(seen) == 8


def test_read_upstream_of_a_module() -> None:
    block = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Sequential(nn.PReLU(4), nn.Identity())
    )
    block.register_buffer("kept", torch.rand(2))
    block.register_buffer("left_out", torch.rand(2), persistent=False)
    block.register_parameter("absent", None)
    shared = nn.Linear(4, 4)
    model = nn.Sequential(OrderedDict(a=block, b=shared, c=shared, d=nn.ReLU(), fc=nn.Linear(4, 3)))
    model.d = None
    for whole in (model, nn.DataParallel(model, device_ids=[])):
        tensors = read(whole).tensors
        assert list(tensors) == list(model.state_dict())
        assert all(np.array_equal(tensors[key], value.numpy()) for key, value in model.state_dict().items())


def test_read_upstream_finds_weights_among_other_things() -> None:
    state = create_model("mobilefacenet_small", 3, img_size=32).state_dict()
    wrapped = {f"module.{part}": value for part, value in state.items()}
    for key, packed_state in (("model_state_dict", state), ("state_dict", wrapped), ("model", state)):
        upstream = read({"iter": 1 << 40, key: packed_state, "note": [None, 0.5, ("a", True)]})
        assert upstream.layout == STATE_DICT
        assert list(upstream.tensors) == list(state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_read_upstream_refuses_values_that_are_not_finite(dtype: torch.dtype) -> None:
    for bad in (float("nan"), float("inf"), float("-inf")):
        values = torch.zeros(4, 5, dtype=dtype)
        values[2, 3] = bad
        content = saved(layer(**{"some.bias": values}))
        with raises_code(CheckpointError, "not_finite", file="weights.pt", key="'some.bias'"):
            read_upstream(content, "/some/place/weights.pt")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({}, "no_weights"),
        ([torch.zeros(3)], "no_weights"),
        ({"features.weight": torch.zeros(3, 3)}, "no_output_layer"),
        ({"fc.weight": torch.zeros(3)}, "no_output_layer"),
        ({"fc.weight": torch.zeros(0, 3)}, "no_output_layer"),
        (nn.Linear(3, 2), "no_output_layer"),
        ({"fc.weight": torch.zeros(2, 3), "epoch": 3}, "not_a_tensor"),
        ({"fc.weight": torch.zeros(2, 3), 5: torch.zeros(2)}, "bad_key"),
        ({"classifier.weight": torch.zeros(2, 3), "classifier.0.weight": torch.zeros(2, 3)}, "bad_key"),
        ({"fc.weight": torch.zeros(2, 3), "x" * 257: torch.zeros(2)}, "bad_key"),
    ],
)
def test_read_upstream_without_usable_weights(value: object, code: str) -> None:
    with raises_code(CheckpointError, code, file="weights.pt"):
        read_upstream(saved(value), "/some/place/weights.pt")


def test_read_upstream_of_an_archive_in_any_folder() -> None:
    program = b"\x80\x02" + table(LAYER) + b"."
    entries = {
        "data.pkl": program,
        "data/0": bytes(24),
        "byteorder": b"little",
        ".data/serialization_id": b"1",
        ".format_version": b"1",
    }
    assert read_upstream(archive(entries, "Gewichte für Ü"), "x.pt").dim == 3
    assert (
        read_upstream(pickled(table({"fc.weight": tensor((2, 3), (0, 2))})), "x.pt")
        .tensors["fc.weight"]
        .tolist()
        == [[0, 0.5, 1]] * 2
    )


def test_read_upstream_of_a_changed_pickle() -> None:
    """The archive is intact here, so that no checksum stands before the pickle."""
    draw, instructions = random.Random(0), b"NR(}])tuesabhqXcKJ\x81\x85\x86\x87\x88\x89Qr j.\x8aGlM"
    programs = [
        b"\x80\x02" + body + b"."
        for body in (table(LAYER), module({"fc": module({}, LAYER)}), table({"model": table(LAYER)}))
    ]
    codes, read_again = set(), 0
    for _ in range(600):
        changed = bytearray(draw.choice(programs))
        for _ in range(draw.choice((1, 1, 2, 4))):
            place, source = draw.randrange(2, len(changed)), draw.randrange(2, len(changed))
            length = draw.randrange(1, 20)
            match draw.randrange(4):
                case 0:
                    changed[place] = draw.randrange(256)
                case 1:
                    changed[place] = draw.choice(instructions)
                case 2:
                    changed[place:place] = changed[source : source + length]
                case 3:
                    del changed[place : min(place + length, len(changed) - 4)]
        try:
            upstream = read_upstream(
                archive({"data.pkl": bytes(changed), "data/0": VALUES.tobytes()}), "x.pt"
            )
        except CheckpointError as error:
            codes.add(error.code)
            continue
        read_again += 1
        assert all(set(array.ravel().tolist()) <= set(VALUES.tolist()) for array in upstream.tensors.values())
    assert read_again > 2
    assert codes >= {"bad_pickle", "unsafe_name", "no_weights", "not_a_tensor"}


def test_read_upstream_of_a_long_name() -> None:
    content = pickled(name("timm." + "a." * 400_000 + "a Any"))
    tracemalloc.start()
    with raises_code(CheckpointError, "unsafe_name"):
        read_upstream(content, "x.pt")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * len(content)
