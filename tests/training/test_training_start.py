"""Weights to start from that another network of partly the same structure has."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from error_codes import raises_code
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from training_makers import RECIPE, write_data

from hsemotion_space.__main__ import main
from hsemotion_space.training.files import DataError
from hsemotion_space.training.sources import load_sources
from hsemotion_space.training.start import make_start
from hsemotion_space.training.train import Trainer
from hsemotion_space.training.transplant import by_name, resize_kernel
from hsemotion_space.vision.backbones import create_model
from hsemotion_space.vision.backbones.mobilefacenet import MobileFaceNet

WHOLE = "features.features.layers.0.layers.0.weight"


def settle(model: nn.Module, size: int, seed: int) -> nn.Module:
    """Give a network with random weights statistics and scales that are not those of a fresh one."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.num_features, generator=generator) / 10)
    with torch.no_grad():
        model.train()(torch.randn(8, 3, size, size, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[MobileFaceNet, Path]:
    """A face recognition network with an embedding of 128 numbers and an input of 112 px, and its file."""
    torch.manual_seed(1)
    model = MobileFaceNet(0, dim=128, scale=1, img_size=112)
    settle(model, 112, 1)
    file = tmp_path_factory.mktemp("source") / "faces.safetensors"
    save_file(model.state_dict(), file)
    return model, file


def test_resize_kernel_keeps_the_response_to_a_resampled_map() -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(5, 1, 7, 7, generator=generator)
    for height, width in ((4, 4), (9, 9), (1, 7), (7, 7)):
        resized = resize_kernel(kernel, height, width)
        assert resized.shape == (5, 1, height, width)
        torch.testing.assert_close(resized.sum((1, 2, 3)), kernel.sum((1, 2, 3)), rtol=1e-4, atol=1e-5)
    assert torch.equal(resize_kernel(kernel, 7, 7), kernel)
    fine = torch.randn(2, 5, 14, 14, generator=generator)
    coarse = functional.avg_pool2d(fine, 2)
    after, before = (
        functional.conv2d(x, k, groups=5)
        for x, k in ((fine, resize_kernel(kernel, 14, 14)), (coarse, kernel))
    )
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [112, 64])
def test_make_start_of_mobilefacenet(source: tuple[MobileFaceNet, Path], tmp_path: Path, size: int) -> None:
    model, file = source
    origin = make_start("mobilefacenet_small", {"img_size": size}, file, tmp_path / "start.safetensors")
    start, given = load_file(tmp_path / "start.safetensors"), model.state_dict()
    fresh = {
        key
        for key, value in start.items()
        if not key.endswith("num_batches_tracked") and not torch.equal(value, given[key])
    }
    assert {key for key in fresh if "features.features.layers.0" not in key} == {
        f"features.features.layers.{rest}"
        for rest in ("2.weight", "3.weight", "3.bias", "3.running_mean", "3.running_var")
    }
    assert (WHOLE in fresh) == (size == 64)
    assert start[WHOLE].shape[-1] == size // 16
    assert (origin["matched"], origin["file"], origin["sha256"]) == (
        "name",
        file.name,
        hashlib.sha256(file.read_bytes()).hexdigest(),
    )
    assert 0.6 < float(str(origin["share"])) < 0.85
    student = create_model("mobilefacenet_small", 10, img_size=size)
    lacking = student.load_state_dict(start, strict=False)
    assert (lacking.missing_keys, lacking.unexpected_keys) == (["fc.weight", "fc.bias"], [])


def test_make_start_follows_the_seed(source: tuple[MobileFaceNet, Path], tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        make_start("mobilefacenet_small", {"img_size": 64}, source[1], file, seed)
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def without_shift_and_bend(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a MobileFaceNet whose depthwise layers end in a pure scale, as those of DDAMFN do."""
    state = {key: value.clone() for key, value in state.items()}
    for key in [key for key in state if key.endswith("layers.1.layers.1.running_mean")]:
        state[key] = torch.zeros_like(state[key])
        state[key.replace("running_mean", "bias")] = torch.zeros_like(state[key])
        state[key.replace("1.running_mean", "2.weight")] = torch.ones_like(state[key])
    return state


def test_make_start_of_ddamfn(source: tuple[MobileFaceNet, Path], tmp_path: Path) -> None:
    trunk = MobileFaceNet(0, dim=128, scale=1, img_size=112)
    pure = without_shift_and_bend(source[0].state_dict())
    pure["features.layers.1.layers.2.weight"] = source[0].state_dict()["features.layers.1.layers.2.weight"]
    trunk.load_state_dict(pure)
    save_file(pure, tmp_path / "pure.safetensors")
    origin = make_start(
        "ddamfn", {"img_size": 112}, tmp_path / "pure.safetensors", tmp_path / "start.safetensors"
    )
    assert origin["matched"] == "structure"
    model = create_model("ddamfn", 10)
    lacking = model.load_state_dict(load_file(tmp_path / "start.safetensors"), strict=False)
    assert (lacking.missing_keys, lacking.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    x = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        wanted = x
        for layer in trunk.eval().features.layers:
            wanted = layer(wanted)
        wanted = trunk.features.conv_sep(wanted)
        given = model.eval().features(x)
        torch.testing.assert_close(given, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
        assert torch.equal(model.Linear.conv.weight, trunk.features.features.layers[0].layers[0].weight)
        for stage, have in ((3, 4), (5, 6), (7, 2)):
            for number, block in enumerate(model.features[stage].model):
                y = torch.randn(1, block.conv.conv.in_channels, 9, 9)
                assert torch.equal(block(y), y) == (number >= have)
        gates = model.features[4].CA.gates(torch.randn(1, 256, 9, 1), torch.randn(1, 256, 1, 9))
        torch.testing.assert_close(gates, torch.full_like(gates, torch.tensor(3.0).sigmoid().item() ** 2))


def test_make_start_at_another_input_size(tmp_path: Path) -> None:
    for arch, kernels in (("mobilefacenet_small", 1), ("ddamfn", 7)):
        before = create_model(arch, 10, img_size=64).state_dict()
        torch.save({"average": before, "step": 3}, tmp_path / "state.pt")
        origin = make_start(arch, {"img_size": 112}, tmp_path / "state.pt", tmp_path / "start.safetensors")
        after = load_file(tmp_path / "start.safetensors")
        assert (origin["matched"], origin["share"]) == ("name", 1.0)
        bare = {key for key in after if not key.endswith("num_batches_tracked")}
        resized = {key for key in bare if after[key].shape != before[key].shape}
        assert len(resized) == kernels
        assert all(torch.equal(after[key], before[key]) for key in bare - resized)
        assert before.keys() - after.keys() == {"fc.weight", "fc.bias"}


def test_by_name_resizes_kernels_of_single_channels() -> None:
    target = {"a": torch.zeros(4, 1, 4, 4), "b": torch.zeros(4, 3, 4, 4), "c": torch.zeros(4, 4)}
    source = {"a": torch.ones(4, 1, 7, 7), "b": torch.ones(4, 3, 7, 7), "c": torch.ones(4, 5)}
    assert by_name(target, source).keys() == {"a"}


def test_make_start_in_order(tmp_path: Path) -> None:
    given = settle(create_model("tf_efficientnet_lite0", 1000), 32, 2).state_dict()
    file, out = tmp_path / "lite0.pth", tmp_path / "start.safetensors"
    renamed = {f"_layer{k}.{key.rsplit('.', 1)[-1]}": value for k, (key, value) in enumerate(given.items())}
    torch.save(renamed, file)
    origin = make_start("tf_efficientnet_lite0", {}, file, out)
    start = load_file(out)
    assert (origin["matched"], origin["share"]) == ("order", 1.0)
    assert given.keys() - start.keys() == {"classifier.weight", "classifier.bias"}
    assert all(
        torch.equal(start[key], given[key]) for key in start if not key.endswith("num_batches_tracked")
    )
    keys = list(renamed)
    order = [*keys[:1], keys[2], keys[1], *keys[3:]]  # scale and shift of a normalization have one shape
    torch.save({key: renamed[key] for key in order}, file)
    with raises_code(DataError, "tensor_order"):
        make_start("tf_efficientnet_lite0", {}, file, out)
    torch.save({key: renamed[key] for key in order[:-1]}, file)
    with raises_code(DataError, "tensor_count"):
        make_start("tf_efficientnet_lite0", {}, file, out)


def test_command_writes_a_start_that_a_run_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources, _ = load_sources(RECIPE, write_data(tmp_path))
    given = Trainer(RECIPE, sources, tmp_path / "given").model.state_dict()
    torch.save(given, tmp_path / "given.pt")
    call = f"learn start test_byobnet --args drop_rate=0.3 --from {tmp_path}/given.pt --out".split()
    assert main([*call, str(tmp_path / "start.safetensors"), "--seed", "4"]) == 0
    assert "start.safetensors: 100% of the values come from" in capsys.readouterr().out
    with safe_open(tmp_path / "start.safetensors", "pt") as content:
        origin = json.loads(content.metadata()["hsemotion_space.start"])
    digest = hashlib.sha256((tmp_path / "given.pt").read_bytes()).hexdigest()
    assert origin == {"file": "given.pt", "sha256": digest, "matched": "name", "share": 1.0, "seed": 4}
    trainer = Trainer(RECIPE, sources, tmp_path / "run", tmp_path / "start.safetensors")
    assert trainer.describe()["start"]["origin"] == origin
    fresh = [key for key in trainer.start.fresh if "num_batches" not in key]
    assert fresh == ["head.fc.bias", "head.fc.weight"]
    trainer.fit(minutes=0)
    assert Trainer(RECIPE, sources, tmp_path / "run").describe()["start"]["origin"] == origin
    with pytest.raises(SystemExit):
        main([*call[:4], "drop_rate", *call[5:], "x"])
    assert "must be NAME=NUMBER" in capsys.readouterr().err
    (tmp_path / "given.pt").write_text("no")
    assert main([*call, str(tmp_path / "x.safetensors")]) == 2
    assert "given.pt is not a valid file of weights" in capsys.readouterr().err
