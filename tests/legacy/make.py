"""Make files like the published ones: modules pickled whole by the libraries of their time, with random
weights.

``LIBRARY`` is a folder with the case's timm: ``pip install --no-deps --target LIBRARY timm==0.4.5``. It runs
beside the installed torch.

    python tests/legacy/make.py pickle CASE LIBRARY   writes CASE.zip beside this script: the pickle without
    the weights, and what is in it
    python tests/legacy/make.py whole CASE LIBRARY    writes CASE.pt and CASE.npz (images, embeddings, scores)
    into LIBRARY
"""

from __future__ import annotations

import collections.abc
import json
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Case:
    """One published layout.

    Attributes:
        timm: version that pickled it; empty for classes that timm never had.
        arch: the name then.
        now: the name now.
        layer: the output layer's name; in a Sequential of its own when ``wrapped``.
        size: side of the input in px.
    """

    timm: str
    arch: str
    now: str
    outputs: int
    dim: int
    size: int
    layer: str = "classifier"
    wrapped: bool = False


B0, B2, MOBILEVIT = "tf_efficientnet_b0", "tf_efficientnet_b2", "mobilevitv2_150"
CASES = {
    "b0-timm-0.4.5": Case("0.4.5", f"{B0}_ns", f"{B0}.ns_jft_in1k", 8, 1280, 224, wrapped=True),
    "b2-timm-0.4.5": Case("0.4.5", f"{B2}_ns", f"{B2}.ns_jft_in1k", 8, 1408, 260, wrapped=True),
    "b0-timm-0.9.2": Case("0.9.2", f"{B0}_ns", f"{B0}.ns_jft_in1k", 10, 1280, 224),
    "b0-timm-0.9.16": Case("0.9.16", f"{B0}_ns", f"{B0}.ns_jft_in1k", 10, 1280, 224),
    "mobilevit-timm-0.9.2": Case("0.9.2", MOBILEVIT, f"{MOBILEVIT}.cvnets_in1k", 10, 768, 224, "head.fc"),
    "mobilevit-timm-0.9.16": Case("0.9.16", MOBILEVIT, f"{MOBILEVIT}.cvnets_in1k", 10, 768, 224, "head.fc"),
    "mobilefacenet": Case("", "mobilefacenet", "mobilefacenet", 10, 512, 112, "fc"),
    "ddamfn": Case("", "ddamfn", "ddamfn", 8, 512, 112, "fc"),
}


def own_name(module: str) -> str:
    """Return under which name the published pickle has a class of this project's MobileFaceNet."""
    return (
        module.removeprefix("hsemotion_space.vision.backbones.")
        if module.endswith("mobilefacenet")
        else module
    )


@contextmanager
def old_names(model: nn.Module, rename: Callable[[str], str] = own_name) -> Iterator[None]:
    """Let the classes of a model be pickled under their old names."""
    real = {cls: cls.__module__ for cls in {type(module) for module in model.modules()}}
    added = []
    for cls, module in real.items():
        if rename(module) != module:
            if rename(module) not in sys.modules:
                added.append(rename(module))
                sys.modules[rename(module)] = types.ModuleType(rename(module))
            setattr(sys.modules[rename(module)], cls.__name__, cls)
            cls.__module__ = rename(module)
    try:
        yield
    finally:
        for cls, module in real.items():
            cls.__module__ = module
        for name in added:
            del sys.modules[name]


def use_library(case: Case, library: Path) -> None:
    """Import the case's timm, with what torch has lost since then."""
    if not case.timm:
        return
    lost = types.ModuleType("torch._six")
    lost.container_abcs, lost.string_classes, lost.int_classes = collections.abc, (str,), int
    sys.modules["torch._six"] = lost
    sys.path.insert(0, str(library))
    warnings.simplefilter("ignore")
    import timm

    assert timm.__version__ == case.timm, timm.__version__


def create(case: Case, arch: str = "") -> nn.Module:
    """Build a model with random weights and statistics, as it was pickled, from the timm that is imported."""
    import timm

    if not case.timm:
        import hsemotion_space.vision.backbones  # noqa: F401
    torch.manual_seed(0)
    model = timm.create_model(arch or case.arch, pretrained=False, num_classes=case.outputs)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.num_batches_tracked.fill_(7)
    if case.wrapped:
        model.classifier = nn.Sequential(model.classifier)
    if case.arch == "mobilefacenet":
        model = nn.Sequential(OrderedDict(features=model.features, fc=model.fc))
    return model.eval()


def packed(case: Case, model: nn.Module) -> object:
    """Return what was saved: the module, or for DDAMFN a dict of a training run."""
    if case.arch != "ddamfn":
        return model
    optimizer = torch.optim.Adam(model.fc.parameters(), lr=0.0)  # fills its state and changes nothing
    model(torch.rand(1, 3, case.size, case.size)).sum().backward()
    optimizer.step()
    return {"iter": 7, "model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}


@torch.inference_mode()
def outputs(case: Case, model: nn.Module) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images (2, 3, S, S), their embeddings (2, D), which are what enters the output layer, and scores
    (2, K)."""
    images = torch.rand(2, 3, case.size, case.size, generator=torch.Generator().manual_seed(1)) * 4 - 2
    entered: list[torch.Tensor] = []
    handle = model.get_submodule(case.layer).register_forward_pre_hook(
        lambda _, inputs: entered.append(inputs[0])
    )
    scores = model(images)
    handle.remove()
    return images.numpy(), entered[0].numpy(), scores.numpy()


def write_pickle(case: Case, model: nn.Module, file: Path) -> None:
    """Write the pickle and which tensor lies in which storage, found by numbering the tensors."""
    state = model.state_dict()
    content = packed(case, model)
    whole = file.with_suffix(".tmp")
    with torch.no_grad():
        for index, tensor in enumerate(state.values()):
            tensor.fill_(index)
    with old_names(model):
        torch.save(content, whole)
    kinds = [
        (key, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)) for key, tensor in state.items()
    ]
    rows: list[tuple[str, str, str, list[int]] | None] = [None] * len(kinds)
    others: dict[str, int] = {}
    with zipfile.ZipFile(whole) as archive:
        pickled = archive.read(f"{whole.stem}/data.pkl")
        for name in archive.namelist():
            storage = name.partition("/data/")[2]
            if storage:
                raw = archive.read(name)
                number = (
                    int(np.frombuffer(raw[:8], np.int64)[0])
                    if len(raw) == 8
                    else int(np.frombuffer(raw[:4], np.float32)[0])
                )
                key, dtype, shape = kinds[number % len(kinds)]
                if raw == np.full(shape, number, dtype).tobytes() and rows[number] is None:
                    rows[number] = (key, storage, dtype, shape)
                else:
                    others[storage] = len(raw)
    whole.unlink()
    assert all(rows), "a tensor was not found"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        for name, text in (
            ("data.pkl", pickled),
            ("tensors.json", json.dumps({"tensors": rows, "others": others})),
        ):
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_LZMA)


def main() -> None:
    torch.set_num_threads(1)
    command, name, library = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    case = CASES[name]
    use_library(case, library)
    model = create(case)
    if command == "pickle":
        write_pickle(case, model, HERE / f"{name}.zip")
        return
    content = packed(case, model)
    with old_names(model):
        torch.save(content, library / f"{name}.pt")
    images, embeddings, scores = outputs(case, model)
    np.savez(library / f"{name}.npz", images=images, embeddings=embeddings, scores=scores)


if __name__ == "__main__":
    main()
