"""Run teacher networks over every picture of a recipe once, so that a training step costs no pass through them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch.nn import functional
from tqdm import tqdm

from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.hub.weights import HeadWeights, load_heads, resolve
from hsemotion_space.inference.heads import apply_heads
from hsemotion_space.tasks import EXPRESSION, VALENCE_AROUSAL
from hsemotion_space.training.augment import normalize, plain
from hsemotion_space.training.data import TUNING, DataError, FaceImages
from hsemotion_space.training.evaluate import EVALUATION_BATCH
from hsemotion_space.training.recipe import Source, read_recipe
from hsemotion_space.training.soft_labels import Origin, SoftLabels, join_soft_labels, read_origin, write_soft_labels
from hsemotion_space.training.sources import detailed, open_source
from hsemotion_space.types import ByteArray, FloatArray
from hsemotion_space.vision.backbones import Backbone, load_backbone

MOST_VIEWS = 2  # the picture as it is, and flipped


class _Outputs(NamedTuple):
    """What a backbone gave for B pictures: embeddings (B, D) and scores (B, K)."""

    embeddings: FloatArray
    scores: FloatArray


class Teacher:
    """A checkpoint that says something about pictures of the training data; an expression that it does not know gets 0.

    Args:
        checkpoint: its manifest.
        cache: the cache folder of the settings.
        fast: compiles the network and computes in bfloat16, as training does.

    Raises:
        DataError: if it does not read expressions.
        CheckpointError: if its weights cannot be had or do not fit.
    """

    def __init__(self, checkpoint: Checkpoint, cache: Path, fast: bool = False) -> None:
        head = checkpoint.head(EXPRESSION.name)
        if head is None:
            raise DataError(f"{checkpoint.title} cannot teach: it does not read expressions.")
        self.checkpoint = checkpoint
        self._columns = [EXPRESSION.index(name) for name in head.task.label_names]  # some networks lack Contempt
        self.size = detailed(checkpoint.input.size)
        self._heads: HeadWeights = load_heads(checkpoint)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            state = load(resolve(checkpoint, cache))
            backbone = load_backbone(checkpoint.arch, checkpoint.arch_args, checkpoint.dim, checkpoint.outputs, state)
        except (ValueError, SafetensorError) as error:
            raise DataError(f"{checkpoint.title} cannot be loaded: {error}") from error
        self._fast = fast
        self._backbone: Backbone = backbone.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._forward = torch.compile(self._backbone) if fast else self._backbone

    def __call__(self, images: ByteArray, views: int) -> SoftLabels:
        """Return the mean over the views of (B, S, S, 4) RGBA pictures, whose transparent parts become black."""
        spec = self.checkpoint.input
        x = normalize(plain(torch.from_numpy(images), spec.size), spec.mean, spec.std).to(self._device)
        if self._fast:  # one shape, compiled once
            x = functional.pad(x, (0, 0) * 3 + (0, EVALUATION_BATCH - len(x)))
        seen = []
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._fast):
            for view in (x, x.flip(3))[:views]:
                read = self._forward(view.contiguous(memory_format=torch.channels_last))
                outputs = _Outputs(*(part[: len(images)].float().cpu().numpy() for part in read))
                values = {head.task.name: read for head, read in apply_heads(self.checkpoint, self._heads, outputs)}
                affect = values.get(VALENCE_AROUSAL.name, np.full((len(images), 2), np.nan, np.float32))
                seen.append((values[EXPRESSION.name], affect, outputs.embeddings))
        known, affect, embedding = (np.mean(parts, 0) for parts in zip(*seen, strict=True))
        expression = np.zeros((len(images), len(EXPRESSION.labels)), np.float32)
        expression[:, self._columns] = known
        length = np.linalg.norm(embedding, axis=1, keepdims=True)
        return SoftLabels(expression, affect, (embedding / np.maximum(length, 1e-9)).astype(np.float16))


@dataclass(frozen=True, slots=True)
class Lesson:
    """What ``learn teach`` is asked for.

    Attributes:
        teachers: whose probabilities, valence and arousal are averaged.
        views: 1 for the picture as it is, 2 for the mean of it and its mirror image.
        embeddings: whether the embeddings are kept as well.
    """

    teachers: tuple[Teacher, ...]
    views: int = MOST_VIEWS
    embeddings: bool = False

    def origin(self, digests: dict[str, str]) -> Origin:
        """Return what a file of soft labels of some sources says about itself."""
        teachers = [{"id": teacher.checkpoint.id, "sha256": teacher.checkpoint.sha256} for teacher in self.teachers]
        return {"teachers": teachers, "views": self.views, "embeddings": self.embeddings, "sources": digests}


def teach(recipe_file: Path, data: Path, lesson: Lesson, out: Path) -> None:
    """Write the soft labels of every row of every source of a recipe; a killed call does at most one source again.

    Args:
        recipe_file: names the sources; its table ``[teaching]`` need not exist yet.
        data: folder that the file patterns start from.
        lesson: teachers and options.
        out: Parquet file; until it is complete, finished sources lie in a folder beside it.

    Raises:
        DataError: if the recipe, the data or a teacher cannot be used.
    """
    recipe = read_recipe(recipe_file)
    folder = out.with_name(out.name + ".parts")
    folder.mkdir(parents=True, exist_ok=True)
    parts, digests = [], {}
    for number, source in enumerate(recipe.sources):
        faces = [open_source(source, data, teacher.size) for teacher in lesson.teachers]
        digests[source.name] = faces[0].sha256
        part, origin = folder / f"{number}.parquet", lesson.origin({source.name: faces[0].sha256}) | {"rows": len(faces[0])}
        parts.append(part)
        if part.exists() and read_origin(part) == origin:
            print(f"{source.name}: {len(faces[0])} rows, done before")  # noqa: T201
            continue
        labels = _ask(source, faces, lesson)
        write_soft_labels(part, source.name, labels, origin)
        print(f"{source.name}: {len(faces[0])} rows{_agreement(faces[0], labels)}")  # noqa: T201
    join_soft_labels(parts, out, lesson.origin(digests))
    shutil.rmtree(folder)


def _ask(source: Source, faces: Sequence[FaceImages], lesson: Lesson) -> SoftLabels:
    """Return the mean of what the teachers say about every row; ``faces`` has the same rows at the size that each wants."""
    done = []
    for start in tqdm(range(0, len(faces[0]), EVALUATION_BATCH), desc=source.name, unit="batch", dynamic_ncols=True, leave=False):
        rows = np.arange(start, min(start + EVALUATION_BATCH, len(faces[0])))
        done.append([teacher(seen.images[rows], lesson.views) for teacher, seen in zip(lesson.teachers, faces, strict=True)])
    by_teacher = list(zip(*done, strict=True))
    expression = np.mean([np.concatenate([part.expression for part in parts]) for parts in by_teacher], 0)
    affects = np.stack([np.concatenate([part.valence_arousal for part in parts]) for parts in by_teacher])
    rating = affects[~np.isnan(affects).all((1, 2))]
    affect = rating.mean(0) if len(rating) else affects[0]
    embeddings = [np.concatenate([part.embedding for part in parts]) for parts in by_teacher] if lesson.embeddings else []
    embedding = np.concatenate(embeddings, 1) if embeddings else np.zeros((len(expression), 0), np.float16)
    return SoftLabels(expression, affect, embedding)


def _agreement(faces: FaceImages, labels: SoftLabels) -> str:
    """Return how often the teachers agree with the sure labels of the tuning split, in words."""
    rows = faces.rows(TUNING, counted=True)
    if not len(rows):
        return ""
    share = float((labels.expression[rows].argmax(1) == faces.expression[rows].argmax(1)).mean())
    return f", {share:.1%} of {len(rows)} sure labels for tuning agree with the teacher"
