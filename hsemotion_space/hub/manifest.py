"""Checkpoint manifests: ``checkpoints/<id>/manifest.toml`` as a checked value."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from hsemotion_space.hub.source import CheckpointError, Source, invalid, read_source
from hsemotion_space.messages import Message, MessageError
from hsemotion_space.tasks import Task, get_task
from hsemotion_space.types import NOT_MEASURED, Provenance, Reliability

Family = Literal["MobileFaceNet", "MobileViT", "EfficientNet", "DDAMFN"]
Crop = Literal["box", "square"]
HeadKind = Literal["scores", "linear", "mlp", "clip_statistics", "pair_mean", "prior"]
Reads = Literal["scores", "embeddings", "both"]
WEIGHTED_KINDS: tuple[HeadKind, ...] = ("linear", "mlp", "clip_statistics")  # with layers of their own
MANIFEST = "manifest.toml"

__all__ = ["MANIFEST", "Checkpoint", "CheckpointError", "HeadSpec", "InputSpec", "read_manifest"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The face picture that the weights expect.

    Attributes:
        size: side in px.
        crop: ``box`` squashes the detected box to a square; ``square`` cuts a square around the box's longer
            side.
        margin: added on every side, as a share of the box (or square) size.
        mean, std: per RGB channel, after division by 255.
    """

    size: int
    crop: Crop
    margin: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """How one task is read from the backbone's outputs.

    Attributes:
        task: with the labels of this checkpoint, in its order.
        kind: ``scores`` takes ``columns`` of the backbone's outputs; ``linear`` and ``mlp`` (hidden layers
            with ReLU) have weights of their own; ``clip_statistics`` has them too and reads mean, standard
            deviation, minimum and maximum over the frames; ``pair_mean`` averages the two part probabilities
            of its source; ``prior`` compares the clip's mean valence and arousal with word norms.
        provenance: trained, rule or prior; shown beside every number.
        columns: which outputs, for ``scores``.
        reads: what heads with weights read from the backbone; ``both`` is embedding, then scores.
        temperature: divides logits before the softmax or sigmoid.
        sources: the tasks that a rule or a prior reads.
        thresholds: decision threshold per label, for independent labels.
        note: a sentence on how far the numbers go.
        reliability: how often its answers were right on held-out pictures.
        least_support: what another task must give to both parts of a label for it to stand out; 0 if it was
            not measured.
    """

    task: Task
    kind: HeadKind
    provenance: Provenance
    columns: tuple[int, ...] = ()
    reads: Reads = "embeddings"
    temperature: float = 1.0
    sources: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    note: str = ""
    reliability: Reliability = NOT_MEASURED
    least_support: float = 0.0

    @property
    def has_weights(self) -> bool:
        """Whether the head has layers in the file of heads, ``<task>.<layer>.weight`` and ``.bias``."""
        return self.kind in WEIGHTED_KINDS


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One weights file and what is true of it.

    Attributes:
        id: the folder's name.
        title: what a user reads.
        folder: where manifest, card and bundled weights lie.
        source: where the weights come from, and what they must be.
        arch, arch_args: for ``timm.create_model``.
        dim, outputs: width of the embedding and of the scores.
        summary: one sentence for the picker.
        recommended: taken when nothing is chosen, and listed first.
        least_length: of the embedding of a face; what is shorter may be none. 0 if it was not measured.
    """

    id: str
    title: str
    family: Family
    license: str
    folder: Path
    source: Source
    arch: str
    dim: int
    outputs: int
    input: InputSpec
    heads: tuple[HeadSpec, ...]
    summary: str = ""
    parameters: int = 0
    arch_args: Mapping[str, int] = field(default_factory=dict)
    recommended: bool = False
    least_length: float = 0.0

    def head(self, task: str) -> HeadSpec | None:
        """Return the head of a task, or None if this checkpoint has none."""
        return next((head for head in self.heads if head.task.name == task), None)

    @property
    def sha256(self) -> str:
        """Digest that names the weights in results: of the weights file or of its published original."""
        published = self.source.upstream.digest if self.source.upstream else self.source.weights
        return self.source.weights.sha256 or published.sha256 or published.git_blob_sha1

    @property
    def heads_sha256(self) -> str:
        """Digest of the file of heads; empty if no head has weights of its own."""
        return self.source.heads.sha256

    @property
    def weights_bytes(self) -> int:
        """Size of the bundled weights file, 0 if it is not there."""
        file = self.folder / self.source.bundled
        return file.stat().st_size if self.source.bundled and file.is_file() else 0


def _choice(value: object, allowed: tuple[str, ...], key: str) -> str:
    if value not in allowed:
        raise invalid(key, f"one of {', '.join(allowed)}", value)
    return str(value)


def _number(value: object, low: float, high: float, key: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise invalid(key, f"a number from {low:g} to {high:g}", value)
    return float(value)


def _triple(value: object, key: str) -> tuple[float, float, float]:
    if (
        not isinstance(value, list)
        or len(value) != 3
        or not all(isinstance(item, int | float) for item in value)
    ):
        raise invalid(key, "three numbers", value)
    return float(value[0]), float(value[1]), float(value[2])


def _input(table: Mapping[str, object]) -> InputSpec:
    size = table["size"]
    if not isinstance(size, int) or not 16 <= size <= 1024:
        raise invalid("[input] size", "from 16 to 1024 px", size)
    margin = _number(table.get("margin", 0.0), -0.4, 1, "[input] margin")
    crop = cast("Crop", _choice(table["crop"], get_args(Crop), "[input] crop"))
    _choice(table.get("resize", "bilinear"), ("bilinear",), "[input] resize")
    mean, std = _triple(table["mean"], "[input] mean"), _triple(table["std"], "[input] std")
    if not min(std) > 0:
        raise invalid("[input] std", "positive", std)
    return InputSpec(size, crop, margin, mean, std)


def _reliability(table: Mapping[str, object], task: Task, where: str) -> Reliability:
    """Return how often the head's answers were right on held-out pictures; empty if not measured."""
    measured = table.get("reliability")
    if measured is None:
        return NOT_MEASURED
    if not isinstance(measured, Mapping):
        raise invalid(f"{where} reliability", "a table", measured)
    counts = []
    for key in ("right", "answers"):
        row = measured.get(key)
        if (
            not isinstance(row, list)
            or len(row) != len(task.labels)
            or any(type(count) is not int for count in row)
        ):
            raise invalid(f"{where} reliability {key}", f"{len(task.labels)} counts", row)
        counts.append(tuple(row))
    return Reliability(counts[0], counts[1], str(measured.get("pictures", "")))


def _least_support(table: Mapping[str, object], task: Task, where: str) -> float:
    """Return what another task must give to both parts of a label; 0 if it was not measured."""
    least = _number(table.get("least_support", 0.0), 0, 0.5, f"{where} least_support")
    if least and not task.none:
        raise invalid(f"{where} least_support", "left out, because the labels have no parts", least)
    return least


def _least_length(table: Mapping[str, object]) -> float:
    """Return the least length of the embedding of a face; 0 if it was not measured."""
    faces = table.get("faces", {})
    least = faces.get("least_length", 0.0) if isinstance(faces, Mapping) else None
    return _number(least, 0, 1e9, "[faces] least_length")


def _head(table: Mapping[str, object], outputs: int) -> HeadSpec:
    where = f"[[heads]] {table.get('task')}"
    try:
        task = get_task(str(table["task"]))
        labels = table.get("labels")
        task = task.subset([str(name) for name in labels]) if isinstance(labels, list) else task
        reliability = _reliability(table, task, where)
    except ValueError as error:
        if isinstance(error, MessageError):
            raise
        raise CheckpointError("{key}: {reason}", code="bad_head", key=where, reason=str(error)) from error
    columns = cast("list[int]", table.get("columns", []))
    kind = cast("HeadKind", _choice(table["kind"], get_args(HeadKind), f"{where} kind"))
    fits = len(columns) == len(task.labels) and all(
        isinstance(column, int) and 0 <= column < outputs for column in columns
    )
    if kind == "scores" and not fits:
        raise invalid(f"{where} columns", f"{len(task.labels)} numbers from 0 to {outputs - 1}", columns)
    thresholds = tuple(float(value) for value in cast("list[float]", table.get("thresholds", [])))
    if len(thresholds) not in (0, len(task.labels)):
        raise invalid(f"{where} thresholds", f"{len(task.labels)} numbers, or left out", thresholds)
    if (kind in ("clip_statistics", "prior")) != (task.scope == "clip"):
        raise invalid(f"{where} kind", f"one that gives values per {task.scope}", kind)
    sources = table.get("source", [])
    return HeadSpec(
        task,
        kind,
        cast("Provenance", _choice(table["provenance"], get_args(Provenance), f"{where} provenance")),
        tuple(columns),
        cast("Reads", _choice(table.get("reads", "embeddings"), get_args(Reads), f"{where} reads")),
        _number(table.get("temperature", 1.0), 1e-6, 1e6, f"{where} temperature"),
        (
            (sources,)
            if isinstance(sources, str)
            else tuple(str(name) for name in cast("list[object]", sources))
        ),
        thresholds,
        str(table.get("note", "")),
        reliability,
        _least_support(table, task, where),
    )


def _check_sources(head: HeadSpec, before: Mapping[str, HeadSpec]) -> None:
    """A rule and a prior read tasks that come before them and have the labels that they need."""
    key = f"[[heads]] {head.task.name} source"
    count = {"pair_mean": 1, "prior": 2}.get(head.kind, 0)
    if len(head.sources) != count or not set(head.sources) <= before.keys():
        raise invalid(key, f"the names of {count} tasks that come before it", ", ".join(head.sources))
    labels = [set(before[name].task.label_names) for name in head.sources]
    if head.kind == "pair_mean":
        fits = all(len(label.parts) == 2 and set(label.parts) <= labels[0] for label in head.task.labels)
    else:
        fits = head.kind != "prior" or (
            labels[0] == {"Valence", "Arousal"}
            and "Neutral" in labels[1]
            and all(label.norm for label in head.task.labels)
        )
    if not fits:
        raise invalid(key, "tasks with the labels that this task is made of", " and ".join(head.sources))


def _heads(tables: Sequence[Mapping[str, object]], outputs: int) -> tuple[HeadSpec, ...]:
    heads: dict[str, HeadSpec] = {}
    for head in (_head(table, outputs) for table in tables):
        if head.task.name in heads:
            raise invalid("[[heads]] task", "different in each entry", head.task.name)
        _check_sources(head, heads)
        heads[head.task.name] = head
    return tuple(heads.values())


def _checkpoint(folder: Path) -> Checkpoint:
    table = tomllib.loads((folder / MANIFEST).read_text("utf-8"))
    backbone, source = table["backbone"], read_source(table["source"])
    if table["id"] != folder.name:
        raise invalid("id", "the name of the folder", table["id"])
    outputs = int(backbone["outputs"])
    heads = _heads(table["heads"], outputs)
    if any(head.has_weights for head in heads) and not source.heads.known:
        raise CheckpointError(
            "[source] needs heads_sha256 because some heads have weights.", code="no_digest"
        )
    return Checkpoint(
        id=folder.name,
        title=str(table["title"]),
        family=cast("Family", _choice(table["family"], get_args(Family), "family")),
        license=str(table["license"]),
        folder=folder,
        source=source,
        arch=str(backbone["arch"]),
        dim=int(backbone["dim"]),
        outputs=outputs,
        input=_input(table["input"]),
        heads=heads,
        summary=str(table.get("summary", "")),
        parameters=int(backbone.get("parameters", 0)),
        arch_args={str(key): int(value) for key, value in backbone.get("args", {}).items()},
        recommended=bool(table.get("recommended", False)),
        least_length=_least_length(table),
    )


def read_manifest(folder: Path) -> Checkpoint:
    """Read ``manifest.toml`` of a checkpoint folder.

    Raises:
        CheckpointError: naming the checkpoint and the key that is wrong.
    """
    try:
        return _checkpoint(folder)
    except CheckpointError as error:
        reason, code, cause = error.message, error.code, cast("Exception", error)
    except KeyError as error:
        reason, code, cause = (
            Message("{file} lacks {key}.", file=MANIFEST, key=str(error)),
            "missing_key",
            error,
        )
    except (
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        LookupError,
        RecursionError,
        OSError,
    ) as error:
        # the text of an OSError holds the path
        words = error.strerror if isinstance(error, OSError) else str(error)
        reason, code, cause = (
            Message("{file} cannot be read ({reason}).", file=MANIFEST, reason=words),
            "unreadable",
            error,
        )
    raise CheckpointError("Checkpoint {id}: {reason}", code=code, id=folder.name, reason=reason) from cause
