"""Every architecture gives the same numbers on both engines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hsemotion_space.vision.backbones import Backbone, create_model
from hsemotion_space.vision.engine import EngineOptions, load

LONG = pytest.mark.long
ARCHITECTURES = [
    ("mobilefacenet", 112),
    ("tf_efficientnet_b0.ns_jft_in1k", 224),
    pytest.param("ddamfn", 112, marks=LONG),
    pytest.param("tf_efficientnet_b2.ns_jft_in1k", 260, marks=LONG),
    pytest.param("mobilevitv2_150.cvnets_in1k", 224, marks=LONG),
]


@pytest.mark.parametrize(("arch", "size"), ARCHITECTURES)
def test_openvino_equals_torch(arch: str, size: int) -> None:
    torch.manual_seed(0)
    backbone = Backbone(create_model(arch, 10)).eval()
    example = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    # statistics of real activations, so that the signal neither dies nor explodes in untrained layers
    with torch.no_grad():
        backbone.train()
        for _ in range(30):
            backbone(torch.from_numpy(np.repeat(example, 2, axis=0)))
        backbone.eval()
    with torch.inference_mode():
        expected = [out.numpy() for out in backbone(torch.from_numpy(example))]
    run = load(lambda: backbone, arch, example, EngineOptions("openvino"))
    for values, wanted in zip(run(example), expected, strict=True):
        assert np.abs(values - wanted).max() <= 1e-4 * max(1.0, np.abs(wanted).max())
    for values, wanted in zip(run(example[:1]), expected, strict=True):
        assert np.abs(values - wanted[:1]).max() <= 1e-4 * max(1.0, np.abs(wanted).max())
