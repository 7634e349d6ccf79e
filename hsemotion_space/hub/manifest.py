"""Checkpoint manifests: ``checkpoints/<id>/manifest.toml`` as a checked value. The folder is the registry."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args

from hsemotion_space.hub.measured import read_least_length, read_reliability, read_support
from hsemotion_space.hub.source import CheckpointError, Source, read_source
from hsemotion_space.tasks import Task, get_task
from hsemotion_space.types import NOT_MEASURED, Provenance, Reliability

Family = Literal["MobileFaceNet", "MobileViT", "EfficientNet", "DDAMFN"]
Crop = Literal["box", "square"]
HeadKind = Literal["scores", "linear", "mlp", "clip_statistics", "pair_mean", "prior"]
Reads = Literal["scores", "embeddings", "both"]
WEIGHTED_KINDS: tuple[HeadKind, ...] = ("linear", "mlp", "clip_statistics")  # with layers of their own
MANIFEST = "manifest.toml"

__all__ = [
    "Checkpoint", "CheckpointError", "HeadSpec", "InputSpec", "Registry", "find_checkpoint", "list_checkpoints", "read_manifest",
    "read_registry",
]  # fmt: skip
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The face picture that the weights expect.

    Attributes:
        size: side in px.
        crop: ``box`` squashes the detected box to a square; ``square`` cuts a square around the box's longer side.
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
        kind: ``scores`` takes ``columns`` of the backbone's outputs; ``linear`` and ``mlp`` (hidden layers with ReLU) have weights of
            their own; ``clip_statistics`` has them too and reads mean, standard deviation, minimum and maximum over
            the frames; ``pair_mean`` averages the two part probabilities of its source; ``prior`` compares the clip's mean valence and
            arousal with word norms.
        provenance: trained, rule or prior; shown beside every number.
        columns: which outputs, for ``scores``.
        reads: what heads with weights read from the backbone; ``both`` is embedding, then scores.
        temperature: divides logits before the softmax or sigmoid.
        sources: the tasks that a rule or a prior reads.
        thresholds: decision threshold per label, for independent labels.
        note: a sentence on how far the numbers go.
        reliability: how often its answers were right on held-out pictures.
        least_support: what another task must give to both parts of a label for it to stand out; 0 if it was not measured.
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
        """Whether the head has layers in the file of heads, as ``<task>.<layer>.weight`` and ``<task>.<layer>.bias``."""
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
        """Digest by which results name the weights: of the weights file or, before it was converted, of the published file."""
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


def _choice(value: object, allowed: tuple[str, ...], where: str) -> str:
    if value not in allowed:
        raise CheckpointError(f"{where} must be one of {', '.join(allowed)}, got {value!r}.")
    return str(value)


def _triple(value: object, where: str) -> tuple[float, float, float]:
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(item, int | float) for item in value):
        raise CheckpointError(f"{where} must be three numbers, got {value!r}.")
    return float(value[0]), float(value[1]), float(value[2])


def _input(table: Mapping[str, object]) -> InputSpec:
    size, margin = table["size"], table.get("margin", 0.0)
    if not isinstance(size, int) or not 16 <= size <= 1024 or not isinstance(margin, int | float) or not -0.4 <= margin <= 1:
        raise CheckpointError(f"[input] needs a size from 16 to 1024 px and a margin from -0.4 to 1, got {size!r} and {margin!r}.")
    crop = cast("Crop", _choice(table["crop"], get_args(Crop), "[input] crop"))
    _choice(table.get("resize", "bilinear"), ("bilinear",), "[input] resize")
    mean, std = _triple(table["mean"], "[input] mean"), _triple(table["std"], "[input] std")
    if min(std) <= 0:
        raise CheckpointError(f"[input] std must be positive, got {std}.")
    return InputSpec(size, crop, float(margin), mean, std)


def _head(table: Mapping[str, object], outputs: int) -> HeadSpec:
    where = f"[[heads]] {table.get('task')}"
    try:
        task = get_task(str(table["task"]))
        labels = table.get("labels")
        task = task.subset([str(name) for name in labels]) if isinstance(labels, list) else task
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error
    columns = cast("list[int]", table.get("columns", []))
    kind = cast("HeadKind", _choice(table["kind"], get_args(HeadKind), f"{where} kind"))
    if kind == "scores" and (len(columns) != len(task.labels) or not all(isinstance(c, int) and 0 <= c < outputs for c in columns)):
        raise CheckpointError(f"{where} needs {len(task.labels)} columns from 0 to {outputs - 1}, got {columns!r}.")
    thresholds = tuple(float(value) for value in cast("list[float]", table.get("thresholds", [])))
    if len(thresholds) not in (0, len(task.labels)):
        raise CheckpointError(f"{where} needs {len(task.labels)} thresholds or none, got {len(thresholds)}.")
    temperature = table.get("temperature", 1.0)
    if not isinstance(temperature, int | float) or temperature <= 0:
        raise CheckpointError(f"{where} temperature must be positive, got {temperature!r}.")
    if (kind in ("clip_statistics", "prior")) != (task.scope == "clip"):
        raise CheckpointError(f"{where}: a head of kind {kind} does not give values per {task.scope}.")
    sources = table.get("source", [])
    return HeadSpec(
        task,
        kind,
        cast("Provenance", _choice(table["provenance"], get_args(Provenance), f"{where} provenance")),
        tuple(columns),
        cast("Reads", _choice(table.get("reads", "embeddings"), get_args(Reads), f"{where} reads")),
        float(temperature),
        (sources,) if isinstance(sources, str) else tuple(str(name) for name in cast("list[object]", sources)),
        thresholds,
        str(table.get("note", "")),
        read_reliability(table, task, where),
        read_support(table, task, where),
    )


def _check_sources(head: HeadSpec, before: Mapping[str, HeadSpec], where: str) -> None:
    """A rule and a prior read tasks that come before them and have the labels that they need."""
    wanted, words = {"pair_mean": (1, "one task that comes before it"), "prior": (2, "two tasks that come before it")}.get(
        head.kind, (0, "no task")
    )
    if len(head.sources) != wanted or not set(head.sources) <= before.keys():
        raise CheckpointError(f"{where} source must name {words}, got {', '.join(head.sources)!r}.")
    labels = [set(before[name].task.label_names) for name in head.sources]
    if head.kind == "pair_mean":
        fits = all(len(label.parts) == 2 and set(label.parts) <= labels[0] for label in head.task.labels)
    else:
        fits = head.kind != "prior" or (
            labels[0] == {"Valence", "Arousal"} and "Neutral" in labels[1] and all(label.norm for label in head.task.labels)
        )
    if not fits:
        raise CheckpointError(f"{where} source {' and '.join(head.sources)} lacks labels that this task is made of.")


def _heads(tables: Sequence[Mapping[str, object]], outputs: int) -> tuple[HeadSpec, ...]:
    heads: dict[str, HeadSpec] = {}
    for head in (_head(table, outputs) for table in tables):
        where = f"[[heads]] {head.task.name}"
        if head.task.name in heads:
            raise CheckpointError(f"{where} is there twice.")
        _check_sources(head, heads, where)
        heads[head.task.name] = head
    return tuple(heads.values())


def read_manifest(folder: Path) -> Checkpoint:
    """Read ``manifest.toml`` of a checkpoint folder.

    Raises:
        CheckpointError: naming the checkpoint and the key that is wrong.
    """
    try:
        table = tomllib.loads((folder / MANIFEST).read_text("utf-8"))
        backbone, source = table["backbone"], read_source(table["source"])
        if table["id"] != folder.name:
            raise CheckpointError(f"id must be the folder's name, got {table['id']!r}.")
        outputs = int(backbone["outputs"])
        heads = _heads(table["heads"], outputs)
        if any(head.has_weights for head in heads) and not source.heads.known:
            raise CheckpointError("[source] heads_sha256 is missing, but there are heads with weights of their own.")
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
            least_length=read_least_length(table),
        )
    except KeyError as error:
        raise CheckpointError(f"Checkpoint {folder.name}: {MANIFEST} lacks {error}.") from error
    except CheckpointError as error:
        raise CheckpointError(f"Checkpoint {folder.name}: {error}") from error
    except OSError as error:  # its own text holds the path
        raise CheckpointError(f"Checkpoint {folder.name}: {MANIFEST} cannot be read ({error.strerror}).") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RecursionError) as error:
        raise CheckpointError(f"Checkpoint {folder.name}: {MANIFEST} cannot be read ({error}).") from error


@dataclass(frozen=True, slots=True)
class Registry:
    """The checkpoints of this machine.

    Attributes:
        checkpoints: that can be used: recommended ones first, then bundled, then imported ones, then the others; by id among equals.
        faults: what is wrong with each of the others, by the name of its folder.
    """

    checkpoints: tuple[Checkpoint, ...]
    faults: Mapping[str, str]


def read_registry(roots: Sequence[Path]) -> Registry:
    """Read every manifest; what is wrong with one does not keep the others from being used.

    Args:
        roots: folders of checkpoint folders. The first one is the project's; later ones hold what was imported, and win over the same id
            before them.
    """
    found: dict[str, Checkpoint] = {}
    faults: dict[str, str] = {}
    ours: set[str] = set()
    for root in roots:
        try:
            folders = sorted(file.parent for file in root.glob(f"*/{MANIFEST}"))
        except OSError as error:
            _tell(root, f"it cannot be read ({error.strerror})")
            continue
        for folder in folders:
            try:
                found[folder.name] = read_manifest(folder)
            except CheckpointError as error:
                faults[folder.name] = str(error)
                _tell(folder, str(error))
        if root == roots[0]:
            ours = {name for name, item in found.items() if item.weights_bytes}
    order = sorted(found.values(), key=lambda item: (not item.recommended, item.id not in ours, not item.weights_bytes, item.id))
    return Registry(tuple(order), faults)


@cache
def _tell(folder: Path, fault: str) -> None:
    """Log once why a folder is passed over, although manifests are read again and again."""
    log.warning("%s is left out: %s", folder, fault)


def list_checkpoints(roots: Sequence[Path]) -> tuple[Checkpoint, ...]:
    """Return every checkpoint that can be used, in the order of :class:`Registry`.

    Args:
        roots: as :func:`read_registry`.

    Raises:
        CheckpointError: if there is none, with all that is wrong.
    """
    registry = read_registry(roots)
    if registry.checkpoints:
        return registry.checkpoints
    if registry.faults:
        raise CheckpointError("No checkpoint can be used. " + " ".join(registry.faults.values()))
    raise CheckpointError(f"There is no checkpoint below {roots[0].name}/; set HSEMOTION_CHECKPOINTS to the folder that has them.")


def find_checkpoint(roots: Sequence[Path], checkpoint_id: str) -> Checkpoint:
    """Return one checkpoint by id; an empty id takes the first one whose weights are bundled.

    Raises:
        CheckpointError: if there is no such checkpoint, or what is wrong with it.
    """
    checkpoints = list_checkpoints(roots)
    for checkpoint in checkpoints:
        if checkpoint.id == checkpoint_id or (not checkpoint_id and checkpoint.weights_bytes):
            return checkpoint
    if fault := read_registry(roots).faults.get(checkpoint_id):
        raise CheckpointError(fault)
    known = ", ".join(checkpoint.id for checkpoint in checkpoints)
    raise CheckpointError(f"There is no checkpoint {checkpoint_id!r}; there are {known}.")
