"""Run teacher networks over every picture of a recipe once, so that training needs no teacher pass."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load
from torch.nn import functional
from tqdm import tqdm

from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.hub.weights import HeadWeights, load_heads, resolve
from hsemotion_space.inference.heads import apply_heads
from hsemotion_space.tasks import EXPRESSION, VALENCE_AROUSAL
from hsemotion_space.training.augment import normalize, plain
from hsemotion_space.training.data import TUNING, FaceImages
from hsemotion_space.training.evaluate import EVALUATION_BATCH
from hsemotion_space.training.feature_table import Outputs
from hsemotion_space.training.files import DataError, reading
from hsemotion_space.training.recipe import read_recipe
from hsemotion_space.training.soft_labels import (
    Origin,
    SoftLabels,
    join_soft_labels,
    read_origin,
    write_soft_labels,
)
from hsemotion_space.training.sources import detailed_size, open_source
from hsemotion_space.types import ByteArray
from hsemotion_space.vision.backbones import Backbone, load_backbone


class Teacher:
    """A checkpoint that labels pictures of the training data; an expression that it does not know gets 0.

    ``fast`` compiles the network and computes in bfloat16, as training does. Weights are read from the
    ``cache``.
    """

    def __init__(self, checkpoint: Checkpoint, cache: Path, fast: bool = False) -> None:
        head = checkpoint.head(EXPRESSION.name)
        if head is None:
            template = "{checkpoint} does not predict expressions; choose another teacher."
            raise DataError(template, code="no_expression", checkpoint=checkpoint.title)
        self.checkpoint = checkpoint
        # some networks lack Contempt
        self._columns = [EXPRESSION.index(name) for name in head.task.label_names]
        self.size = detailed_size(checkpoint.input.size)
        self._heads: HeadWeights = load_heads(checkpoint)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        content = resolve(checkpoint, cache)
        with reading(checkpoint.folder, "checkpoint", "weights"):
            backbone = load_backbone(
                checkpoint.arch, checkpoint.arch_args, checkpoint.dim, checkpoint.outputs, load(content)
            )
        self._fast = fast
        self._backbone: Backbone = backbone.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._forward = torch.compile(self._backbone) if fast else self._backbone

    def __call__(self, images: ByteArray, views: int) -> SoftLabels:
        """Return the mean over the views of (B, S, S, 4) RGBA pictures; transparent parts become black."""
        spec = self.checkpoint.input
        x = normalize(plain(torch.from_numpy(images), spec.size), spec.mean, spec.std).to(self._device)
        if self._fast:  # one shape, compiled once
            x = functional.pad(x, (0, 0) * 3 + (0, EVALUATION_BATCH - len(x)))
        results = []
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._fast):
            for view in (x, x.flip(3))[:views]:
                tensors = self._forward(view.contiguous(memory_format=torch.channels_last))
                outputs = Outputs(*(tensor[: len(images)].float().cpu().numpy() for tensor in tensors))
                values = {
                    head.task.name: array
                    for head, array in apply_heads(self.checkpoint, self._heads, outputs)
                }
                affect = values.get(VALENCE_AROUSAL.name, np.full((len(images), 2), np.nan, np.float32))
                results.append((values[EXPRESSION.name], affect, outputs.embeddings))
        known, affect, embedding = (np.mean(arrays, 0) for arrays in zip(*results, strict=True))
        expression = np.zeros((len(images), len(EXPRESSION.labels)), np.float32)
        expression[:, self._columns] = known
        length = np.linalg.norm(embedding, axis=1, keepdims=True)
        return SoftLabels(expression, affect, (embedding / np.maximum(length, 1e-9)).astype(np.float16))


def teach(
    recipe_file: Path,
    data: Path,
    teachers: Sequence[Teacher],
    out: Path,
    *,
    views: int = 2,
    embeddings: bool = False,
) -> None:
    """Write the teachers' mean soft labels for all rows; a killed call repeats one source at most.

    Two views are the picture and its mirror image. Until ``out`` is complete, finished sources lie in a
    folder beside it.
    """
    folder = out.with_name(out.name + ".parts")
    folder.mkdir(parents=True, exist_ok=True)
    identities = [{"id": teacher.checkpoint.id, "sha256": teacher.checkpoint.sha256} for teacher in teachers]
    common: Origin = {"teachers": identities, "views": views, "embeddings": embeddings}
    files, digests = [], {}
    for number, source in enumerate(read_recipe(recipe_file).sources):
        faces = [open_source(source, data, teacher.size) for teacher in teachers]
        digests[source.name] = faces[0].sha256
        file, origin = (
            folder / f"{number}.parquet",
            {**common, "sources": {source.name: faces[0].sha256}, "rows": len(faces[0])},
        )
        files.append(file)
        if file.exists() and read_origin(file) == origin:
            print(f"{source.name}: {len(faces[0])} rows are there already")  # noqa: T201
            continue
        labels = _label(faces, teachers, views, embeddings)
        write_soft_labels(file, source.name, labels, origin)
        print(f"{source.name}: {len(faces[0])} rows{_agreement(faces[0], labels)}")  # noqa: T201
    join_soft_labels(files, out, {**common, "sources": digests})
    shutil.rmtree(folder)


def _label(
    faces: Sequence[FaceImages], teachers: Sequence[Teacher], views: int, embeddings: bool
) -> SoftLabels:
    """Return the mean of the teachers for every row; ``faces`` has the rows at each teacher's size."""
    batches = []
    for start in tqdm(
        range(0, len(faces[0]), EVALUATION_BATCH),
        faces[0].source,
        unit="batch",
        dynamic_ncols=True,
        leave=False,
    ):
        rows = np.arange(start, min(start + EVALUATION_BATCH, len(faces[0])))
        batches.append(
            [teacher(images.images[rows], views) for teacher, images in zip(teachers, faces, strict=True)]
        )
    by_teacher = list(zip(*batches, strict=True))
    expression = np.mean(
        [np.concatenate([labels.expression for labels in results]) for results in by_teacher], 0
    )
    affects = np.stack(
        [np.concatenate([labels.valence_arousal for labels in results]) for results in by_teacher]
    )
    rated = affects[~np.isnan(affects).all((1, 2))]
    affect = rated.mean(0) if len(rated) else affects[0]
    if not embeddings:
        return SoftLabels(expression, affect, np.zeros((len(expression), 0), np.float16))
    vectors = [np.concatenate([labels.embedding for labels in results]) for results in by_teacher]
    return SoftLabels(expression, affect, np.concatenate(vectors, 1))


def _agreement(faces: FaceImages, labels: SoftLabels) -> str:
    """Return how often the teachers agree with the sure labels of the tuning split, for the console."""
    rows = faces.rows(TUNING, counted=True)
    if not len(rows):
        return ""
    share = float((labels.expression[rows].argmax(1) == faces.expression[rows].argmax(1)).mean())
    return f"; the teachers agree with {share:.1%} of {len(rows)} sure labels for tuning"
