from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from functools import cache

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsemotion_space.vision.backbones import Backbone, BackboneError, create_model, load_backbone

# name, input size, embedding, parameters with ten outputs, tensors of the state dict, classifier
ARCHITECTURES = [
    ("tf_efficientnet_b0.ns_jft_in1k", 224, 1280, 4_020_358, 360, "classifier"),
    # the published count is for eight outputs
    ("tf_efficientnet_b2.ns_jft_in1k", 260, 1408, 7_712_266 + 2 * 1409, 508, "classifier"),
    ("mobilevitv2_150.cvnets_in1k", 224, 768, 9_833_443, 269, "head.fc"),
    ("mobilefacenet", 112, 512, 2_064_650, 335, "fc"),
    ("ddamfn", 112, 512, 4_188_966, 1190, "fc"),
]
OURS = ("mobilefacenet", "ddamfn")
KEYS = {
    "tf_efficientnet_b0.ns_jft_in1k": (
        """conv_stem.weight bn1.weight blocks.0.0.conv_dw.weight blocks.1.0.conv_pw.weight
        blocks.1.0.bn3.bias blocks.1.0.se.conv_reduce.weight blocks.1.0.se.conv_expand.bias conv_head.weight bn2.running_var"""
    ),
    "tf_efficientnet_b2.ns_jft_in1k": (
        """conv_stem.weight bn1.weight blocks.6.1.conv_pwl.weight blocks.6.1.se.conv_reduce.bias
        conv_head.weight bn2.running_mean classifier.bias"""
    ),
    "mobilevitv2_150.cvnets_in1k": (
        """stem.conv.weight stages.2.1.conv_kxk.conv.weight stages.2.1.conv_1x1.weight
        stages.2.1.transformer.0.attn.qkv_proj.weight stages.2.1.transformer.0.attn.out_proj.bias stages.2.1.transformer.0.norm1.weight
        stages.2.1.transformer.1.mlp.fc2.bias stages.2.1.norm.weight stages.2.1.conv_proj.conv.weight head.fc.bias"""
    ),
    "mobilefacenet": (
        """features.layers.0.layers.0.weight features.layers.3.layers.3.layers.1.layers.2.weight fc.bias
        features.conv_sep.layers.0.weight features.features.layers.0.layers.0.weight features.features.layers.2.weight
        features.features.layers.3.running_mean"""
    ),
    "ddamfn": (
        """features.0.conv.weight features.1.prelu.weight features.2.conv_dw.mixed_depthwise_conv.2.weight
        features.2.conv_dw.prelu.weight features.3.model.8.CA.conv1.bias features.5.model.15.CA.bn1.weight
        features.7.model.5.project.bn.bias features.8.conv.weight cat_head0.CoordAtt.Linear_h.conv.weight
        cat_head1.CoordAtt.Linear_w.bn.weight cat_head1.CoordAtt.conv3.bias cat_head1.CoordAtt.Linear.conv.weight
        Linear.conv.weight Linear.bn.running_var fc.bias bn.weight"""
    ),
}

by_architecture = pytest.mark.parametrize(
    ("arch", "size", "dim", "parameters", "tensors", "classifier"), ARCHITECTURES
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that spin for each other cost more than they give on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def built(arch: str) -> nn.Module:
    """A network with random weights and statistics, shared between the tests, which leave it alone."""
    torch.manual_seed(0)
    model = create_model(arch, 10).eval()
    gain = 1.0 if arch in OURS else 1.4  # neither biases nor rounding drown the images
    for name, tensor in model.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.2)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim > 1:
            tensor.normal_(0, gain * tensor[0].numel() ** -0.5)
        elif tensor.is_floating_point():  # biases, and the factors of normalizations and PReLUs
            tensor.uniform_(0.2, 1.2)
    return model


def images(size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(size))


@by_architecture
def test_structure(arch: str, size: int, dim: int, parameters: int, tensors: int, classifier: str) -> None:
    model = built(arch)
    assert sum(p.numel() for p in model.parameters()) == parameters
    state = model.state_dict()
    assert len(state) == tensors
    assert set(KEYS[arch].split()) <= state.keys()
    assert state[f"{classifier}.weight"].shape == (10, dim)
    assert model.get_submodule(classifier) is model.get_classifier()
    assert model.num_features == dim


@by_architecture
def test_loaded_backbone_equals_plain_timm(
    arch: str, size: int, dim: int, parameters: int, tensors: int, classifier: str
) -> None:
    plain, x = built(arch), images(size, 1)
    backbone = load_backbone(arch, {}, dim, 10, plain.state_dict())
    assert (backbone.dim, backbone.num_classes) == (dim, 10)
    assert not any(module.training for module in backbone.modules())
    with torch.inference_mode():
        embeddings, scores = backbone(x)
        expected = plain.forward_head(plain.forward_features(x), pre_logits=True), plain(x)
    assert (embeddings.shape, scores.shape) == ((1, dim), (1, 10))
    assert embeddings.dtype == scores.dtype == torch.float32
    torch.testing.assert_close((embeddings, scores), expected, rtol=0, atol=1e-6)


@by_architecture
def test_without_outputs(
    arch: str, size: int, dim: int, parameters: int, tensors: int, classifier: str
) -> None:
    model = create_model(arch, 0).eval()
    assert model.num_classes == 0
    assert not [key for key in model.state_dict() if key.startswith(f"{classifier}.")]
    with torch.inference_mode():
        embeddings, scores = Backbone(model)(images(size, 1))
    assert (embeddings.shape, scores.shape) == ((1, dim), (1, 0))
    bare = list(model.state_dict())
    model.reset_classifier(10)
    assert model.state_dict().keys() == built(arch).state_dict().keys()
    model.reset_classifier(0)
    assert list(model.state_dict()) == bare


def test_load_casts_half_precision() -> None:
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in built("mobilefacenet").state_dict().items()
    }
    loaded = load_backbone("mobilefacenet", {"img_size": 112}, 512, 10, state).model.state_dict()
    assert loaded["fc.weight"].dtype == torch.float32
    assert all(torch.equal(loaded[key], value.to(loaded[key].dtype)) for key, value in state.items())


@pytest.mark.parametrize(
    ("change", "dim", "message"),
    [
        (lambda state: state.pop("fc.bias"), 512, r"'mobilefacenet' with 10 outputs: missing fc\.bias\."),
        (lambda state: state.update(more=torch.ones(1)), 512, r"unexpected more\."),
        (
            lambda state: state.update({"fc.weight": torch.ones(8, 512)}),
            512,
            r"fc\.weight has shape \(8, 512\) instead of \(10, 512\)\.",
        ),
        (lambda state: state.clear(), 512, r"missing fc\.bias, fc\.weight, .+ and 331 more\."),
        (lambda state: None, 1280, "'mobilefacenet' has an embedding of 512 numbers, not 1280"),
    ],
)
def test_load_refuses(change: Callable[[dict[str, Tensor]], object], dim: int, message: str) -> None:
    state = dict(built("mobilefacenet").state_dict())
    change(state)
    with pytest.raises(BackboneError, match=message):
        load_backbone("mobilefacenet", {}, dim, 10, state)


@pytest.mark.parametrize(
    "arch", ["resnet_of_tomorrow", "hf-hub:someone/something", "tf_efficientnet_b0.no_such_tag", ""]
)
def test_unknown_architecture(arch: str) -> None:
    with pytest.raises(ValueError, match=f"rchitecture.*'{arch}'"):
        create_model(arch, 10)


@pytest.mark.parametrize("arch", OURS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": 100}, "a multiple of 16, got 100"),
        ({"img_size": 0}, "a multiple of 16, got 0"),
        ({"image_size": 112}, "no option image_size"),
        ({"checkpoint_path": "weights.pt"}, "cannot take the option checkpoint_path"),
        ({"pretrained": True}, "cannot take the option pretrained"),
    ],
)
def test_options_are_checked(arch: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone(arch, options, 512, 10, {})


def test_no_timm_weights() -> None:
    for arch in OURS:
        with pytest.raises(ValueError, match="no timm weights"):
            timm.create_model(arch, pretrained=True)


@pytest.mark.parametrize("arch", [*OURS, "mobilefacenet_small"])
@pytest.mark.parametrize("size", [64, 96])
def test_other_input_sizes(arch: str, size: int) -> None:
    backbone = Backbone(create_model(arch, 10, img_size=size).eval())
    with torch.inference_mode():
        embeddings, scores = backbone(images(size))
    assert (embeddings.shape, scores.shape) == ((2, 512), (2, 10))


def test_ddamfn_variants() -> None:
    assert sum(p.numel() for p in create_model("ddamfn", 8).parameters()) == 4_187_936
    assert "cat_head3.CoordAtt.conv1.weight" in create_model("ddamfn", 8, num_head=4).state_dict()
    with pytest.raises(BackboneError, match="at least one attention head, got 0"):
        create_model("ddamfn", 8, num_head=0)


def test_ddamfn_trains_every_used_weight() -> None:
    model = create_model("ddamfn", 10, img_size=32).train()
    model(images(32, 4)).square().mean().backward()
    parameters = dict(model.named_parameters())
    assert {key for key, value in parameters.items() if value.grad is None} == ddamfn_unused(parameters)


class Weights:
    """A state dict in double precision that notes which keys were read, and the layers that read it."""

    def __init__(self, model: nn.Module) -> None:
        self.state = {
            key: value.double() for key, value in model.state_dict().items() if value.is_floating_point()
        }
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        self.read.add(key)
        return self.state[key]

    def conv(self, x: Tensor, key: str, bias: bool = False, **options: object) -> Tensor:
        return F.conv2d(x, self[f"{key}.weight"], self[f"{key}.bias"] if bias else None, **options)

    def norm(self, x: Tensor, key: str) -> Tensor:
        mean, variance, weight, bias = (
            self[f"{key}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias, eps=1e-5)

    def block(self, x: Tensor, key: str, names: tuple[str, ...], **options: object) -> Tensor:
        """Convolution, normalization and, with a third name, PReLU."""
        x = self.norm(self.conv(x, f"{key}.{names[0]}", **options), f"{key}.{names[1]}")
        return F.prelu(x, self[f"{key}.{names[2]}.weight"]) if len(names) > 2 else x


def mobilefacenet_reference(w: Weights, x: Tensor) -> Tensor:
    """Scores from the description of the structure, at scale 2."""
    full, linear = ("layers.0", "layers.1", "layers.2"), ("layers.0", "layers.1")

    def depth_wise(x: Tensor, key: str, stride: int = 1) -> Tensor:
        x = w.block(x, f"{key}.layers.0", full)
        x = w.block(x, f"{key}.layers.1", full, stride=stride, padding=1, groups=x.shape[1])
        return w.block(x, f"{key}.layers.2", linear)

    x = w.block(x, "features.layers.0", full, stride=2, padding=1)
    x = w.block(x, "features.layers.1", full, padding=1, groups=64)
    for stage, depth in ((2, 4), (4, 6), (6, 2)):
        x = depth_wise(x, f"features.layers.{stage}", stride=2)
        for index in range(depth):
            x = x + depth_wise(x, f"features.layers.{stage + 1}.layers.{index}")
    x = w.block(x, "features.conv_sep", full)
    x = w.block(x, "features.features.layers.0", linear, groups=512)[:, :, 0, 0]
    x = w.norm(x @ w["features.features.layers.2.weight"].T, "features.features.layers.3")
    return x @ w["fc.weight"].T + w["fc.bias"]


def ddamfn_reference(w: Weights, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Scores, trunk map and head maps from the description of the structure, with two heads."""
    full, linear = ("conv", "bn", "prelu"), ("conv", "bn")

    def gates(rows: Tensor, columns: Tensor, key: str) -> Tensor:
        def squeeze(y: Tensor) -> Tensor:
            y = w.norm(w.conv(y, f"{key}.conv1", bias=True), f"{key}.bn1")
            return y * (y + 3).clamp(0, 6) / 6

        return torch.sigmoid(w.conv(squeeze(rows), f"{key}.conv2", True)) * torch.sigmoid(
            w.conv(squeeze(columns), f"{key}.conv3", True)
        )

    def mixed(x: Tensor, key: str, split: tuple[int, ...], stride: int = 1) -> Tensor:
        x = w.block(x, f"{key}.conv", full)
        parts = [
            w.conv(
                part, f"{key}.conv_dw.mixed_depthwise_conv.{i}", stride=stride, padding=i + 1, groups=split[i]
            )
            for i, part in enumerate(x.split(split, 1))
        ]
        x = torch.cat(parts, 1)
        x = x * gates(F.adaptive_avg_pool2d(x, (None, 1)), F.adaptive_avg_pool2d(x, (1, None)), f"{key}.CA")
        return w.block(x, f"{key}.project", linear)

    x = w.block(x, "features.0", full, stride=2, padding=1)
    x = w.block(x, "features.1", full, padding=1, groups=64)
    stages = (((64, 32, 32), 9, (96, 32)), ((128, 64, 64), 16, (192, 64)), ((256,) * 4, 6, (172, 170, 170)))
    for stage, (down, depth, split) in enumerate(stages):
        x = mixed(x, f"features.{2 + 2 * stage}", down, stride=2)
        for index in range(depth):
            x = x + mixed(x, f"features.{3 + 2 * stage}.model.{index}", split)
    trunk = w.block(x, "features.8", full)
    keys = [f"cat_head{index}.CoordAtt" for index in range(2)]
    heads = [
        gates(*(w.block(trunk, f"{key}.Linear_{d}", linear, groups=512) for d in "hw"), key) for key in keys
    ]
    embedding = w.block(trunk * torch.stack(heads).amax(0), "Linear", linear, groups=512).flatten(1)
    return embedding @ w["fc.weight"].T + w["fc.bias"], trunk, heads


def ddamfn_unused(keys: Iterable[str]) -> set[str]:
    """The keys of published weights on which no output depends."""
    parts = (".conv_dw.bn.", ".conv_dw.prelu.", ".CoordAtt.Linear.")
    return {key for key in keys if key.startswith("bn.") or any(part in key for part in parts)}


@pytest.mark.parametrize("arch", OURS)
def test_parity(arch: str) -> None:
    model, x = built(arch), images(112)
    weights = Weights(model)
    with torch.inference_mode():
        expected = (
            mobilefacenet_reference(weights, x.double())
            if arch == "mobilefacenet"
            else ddamfn_reference(weights, x.double())[0]
        )
        assert (expected[0] - expected[1]).abs().max() > 0.01  # or the comparison would say little
        torch.testing.assert_close(model(x).double(), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(deepcopy(model).double()(x.double()), expected, rtol=0, atol=1e-10)
    assert weights.state.keys() - weights.read == (
        ddamfn_unused(weights.state) if arch == "ddamfn" else set()
    )


def test_ddamfn_attention_parity() -> None:
    model, x = deepcopy(built("ddamfn")).double(), images(112).double()
    with torch.inference_mode():
        scores, trunk, heads = model.forward_attention(x)
        assert torch.equal(model(x), scores)
        torch.testing.assert_close(
            (scores, trunk, heads), ddamfn_reference(Weights(model), x), rtol=0, atol=1e-10
        )
    assert len(heads) == 2
    assert trunk.shape == heads[0].shape == (2, 512, 7, 7)
    assert (heads[0] - heads[1]).abs().max() > 0.01
    assert all(0 <= head.min() <= head.max() <= 1 for head in heads)
