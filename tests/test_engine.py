from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from error_codes import raises_code
from torch import nn

from hsemotion_space.types import FloatArray
from hsemotion_space.vision.backbones import Backbone, create_model
from hsemotion_space.vision.engine import EngineError, EngineOptions, Runner, choose, normalize
from hsemotion_space.vision.engine import load as load_network

OPENVINO, TORCH = EngineOptions("openvino", threads=1), EngineOptions("torch", threads=1)
NETWORKS = {"mobilefacenet_small": {"img_size": 64}, "mobilenetv3_small_050": {}}


def batch(count: int, size: int = 64, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(0, 1, (count, 3, size, size)).astype(np.float32)


def load(
    module: nn.Module, example: FloatArray, options: EngineOptions, key: str = "", free_size: bool = False
) -> Runner:
    return load_network(lambda: module, key, example, options, free_size)


def make(arch: str = "mobilefacenet_small", seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return Backbone(create_model(arch, 10, **NETWORKS[arch])).eval()


def small_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(4), nn.Conv2d(4, 2, 3)).eval()


@pytest.mark.parametrize("arch", NETWORKS)
def test_engines_agree_at_every_batch_size(arch: str) -> None:
    runners = [
        load(make(arch), np.zeros((2, 3, 64, 64), np.float32), options) for options in (TORCH, OPENVINO)
    ]
    for count in range(1, 6):
        expected, actual = (run(batch(count, seed=count)) for run in runners)
        assert [out.shape for out in actual] == [(count, expected[0].shape[1]), (count, 10)]
        for ours, theirs in zip(actual, expected, strict=True):
            assert ours.dtype == theirs.dtype == np.float32
            assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_results_do_not_change_with_the_next_call() -> None:
    run = load(small_net(), batch(1), OPENVINO)
    (first,) = run(batch(2, seed=1))
    kept = first.copy()
    run(batch(2, seed=2))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("options", [TORCH, OPENVINO], ids=lambda options: options.name)
def test_free_size(options: EngineOptions) -> None:
    module, run = small_net(), load(small_net(), batch(1), options, free_size=True)
    for height, width in ((64, 64), (13, 40), (90, 7)):
        x = np.random.default_rng(height).normal(0, 1, (2, 3, height, width)).astype(np.float32)
        with torch.inference_mode():
            expected = module(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(run(x)[0], expected, atol=1e-5)


def test_the_cache_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = EngineOptions("openvino", tmp_path / "cache", 1)
    expected = load(small_net(), batch(1), options)(batch(3))[0]
    files = sorted(file.name for file in (tmp_path / "cache").iterdir())
    assert [Path(name).suffix for name in files] == [".network"]

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("converted again")

    monkeypatch.setattr(openvino, "convert_model", refuse)
    assert np.array_equal(load(small_net(), batch(1), options)(batch(3))[0], expected)
    with pytest.raises(EngineError):
        load(small_net(), batch(1), options, "another key")


def test_another_network_gets_another_file(tmp_path: Path) -> None:
    options = EngineOptions("openvino", tmp_path, 1)
    ways = [("one", 64, False), ("two", 64, False), ("one", 32, False), ("one", 64, True)]
    for count, (key, size, free_size) in enumerate(ways, 1):
        load(small_net(), batch(1, size), options, key, free_size)
        assert len(list(tmp_path.glob("*.network"))) == count


def test_load_network_that_openvino_cannot_convert() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no")

    level = logging.getLogger().level
    with raises_code(EngineError, "openvino_failed"):
        load(Odd(), batch(1), OPENVINO)
    assert logging.getLogger().level == level, "others still log what they did"


def test_choice() -> None:
    assert choose("torch") == "torch"
    assert choose("openvino") == "openvino"
    assert choose("auto") == ("torch" if torch.cuda.is_available() else "openvino")


def test_normalize_by_hand() -> None:
    faces = np.zeros((2, 4, 4, 3), np.uint8)
    faces[1, 2, 3] = (255, 51, 102)
    result = normalize(faces, (0.5, 0.2, 0.0), (0.5, 0.1, 2.0))
    assert (result.shape, result.dtype, result.flags.c_contiguous) == ((2, 3, 4, 4), np.float32, True)
    np.testing.assert_allclose(result[1, :, 2, 3], [1, 0, 0.2], atol=1e-6)
    np.testing.assert_allclose(result[0, :, 0, 0], [-1, -2, 0], atol=1e-6)
