"""Put trained heads into a checkpoint folder: the file of heads, the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import tomlkit
from safetensors.numpy import load_file, save
from tomlkit.items import AoT, InlineTable, Table

from hsemotion_space.hub.manifest import WEIGHTED_KINDS, Checkpoint, read_manifest
from hsemotion_space.hub.manifest_document import edited_manifest
from hsemotion_space.hub.weights import HEADS_FILE
from hsemotion_space.tasks import TASKS, get_task
from hsemotion_space.training.files import DataError
from hsemotion_space.training.trained_head import TrainedHead
from hsemotion_space.types import NOT_MEASURED, Reliability


@dataclass(frozen=True, slots=True)
class Attachment:
    """A head for a checkpoint.

    Attributes:
        head: trained on features of the checkpoint's weights.
        note: a sentence on the scope of the numbers: the figure that was reached, and on which data.
        thresholds: (K,) of independent labels, empty for none.
        reliability: how often its answers were right on tuning pictures.
        least_support: what both parts of a label need for it to stand out, 0 for labels without parts.
    """

    head: TrainedHead
    note: str
    thresholds: tuple[float, ...] = ()
    reliability: Reliability = NOT_MEASURED
    least_support: float = 0.0


def attach_heads(attachments: Sequence[Attachment], folder: Path) -> Checkpoint:
    """Put heads, at most one per task, into a checkpoint, replacing those of their tasks; return it.

    The weights are stored in half precision; the manifest keeps its comments and its order. Nothing changes
    if a head belongs to other weights or has other labels than the app's task, or if the manifest would
    become invalid.
    """
    checkpoint, file = read_manifest(folder), folder / HEADS_FILE
    tensors = dict(load_file(file)) if file.exists() else {}
    for item in attachments:
        _check(item.head, checkpoint)
        name = item.head.task.name
        tensors = {key: array for key, array in tensors.items() if key.split(".")[0] != name}
        for number, layer in enumerate(item.head.layers):
            for part, array in zip(("weight", "bias"), layer, strict=True):
                tensors[f"{name}.{number}.{part}"] = np.ascontiguousarray(array, np.float16)
    content = save(dict(sorted(tensors.items())))
    with edited_manifest(folder, {HEADS_FILE: content}) as document:
        source = cast("Table", document["source"])
        source["heads_sha256"] = hashlib.sha256(content).hexdigest()
        source.pop("heads_bytes", None)
        for item in attachments:
            _describe(document, item)
    return read_manifest(folder)


def drop_heads(folder: Path, sha256: str) -> list[str]:
    """Write the digest of new weights into the manifest, remove heads of other weights; return their tasks.

    Rules and priors that read such a head go with it.
    """
    dropped: list[str] = []
    if read_manifest(folder).source.weights.sha256 == sha256:
        return dropped
    with edited_manifest(folder) as document:
        source, entries = cast("Table", document["source"]), cast("AoT", document["heads"])
        source["sha256"] = sha256
        document.pop("faces", None)
        for key in ("heads_sha256", "heads_bytes", "bytes", "hub"):
            source.pop(key, None)
        dropped = [str(entry["task"]) for entry in entries if entry["kind"] in WEIGHTED_KINDS]
        # rules and priors that read them
        dropped += [str(entry["task"]) for entry in entries if set(_sources(entry)) & set(dropped)]
        for place in reversed(range(len(entries))):
            if str(entries[place]["task"]) in dropped:
                del entries[place]
            else:
                for measured in ("temperature", "reliability", "least_support"):
                    entries[place].pop(measured, None)
    (folder / HEADS_FILE).unlink(missing_ok=True)
    return dropped


def _sources(entry: Table) -> list[str]:
    source = entry.get("source", [])
    return [str(source)] if isinstance(source, str) else [str(name) for name in source]


def set_measured(folder: Path, task: str, temperature: float, reliability: Reliability) -> None:
    """Write the temperature of a head and how often it is right into the manifest of a checkpoint folder."""
    with edited_manifest(folder) as document:
        entries = [entry for entry in cast("AoT", document["heads"]) if entry["task"] == task]
        if not entries:
            raise DataError(
                "{checkpoint} has no head for {task}.", code="no_head", checkpoint=folder.name, task=task
            )
        entries[0].update({"temperature": temperature, "reliability": _inline(reliability)})


def set_least_length(folder: Path, least: float) -> None:
    """Write how long the embedding of a face is at least into the manifest of a checkpoint folder."""
    with edited_manifest(folder) as document:
        document["faces"] = {"least_length": least}


def _inline(reliability: Reliability) -> InlineTable:
    table = tomlkit.inline_table()
    table.update(
        {
            "right": list(reliability.right),
            "answers": list(reliability.answers),
            "pictures": reliability.pictures,
        }
    )
    return table


def _check(head: TrainedHead, checkpoint: Checkpoint) -> None:
    if head.sha256 != checkpoint.sha256:
        template = (
            "The head belongs to features of {other}, not to the weights of {checkpoint}; train it on those."
        )
        raise DataError(
            template,
            code="other_weights",
            other=head.checkpoint or "another source",
            checkpoint=checkpoint.id,
        )
    if other := sorted(set(head.task.label_names) ^ set(get_task(head.task.name).label_names)):
        template = "The labels {labels} differ from those of the app; this head serves the challenge alone."
        raise DataError(template, code="labels", labels=", ".join(other))


def _describe(document: tomlkit.TOMLDocument, item: Attachment) -> None:
    """Replace the entry of one head, or add it in the order of the tasks."""
    head, entry = item.head, tomlkit.table()
    values = {"task": head.task.name, "kind": head.kind, "reads": head.reads, "provenance": "trained"}
    optional = {
        "temperature": head.temperature if head.temperature != 1 else None,
        "thresholds": list(item.thresholds), "note": item.note,
        "reliability": _inline(item.reliability) if item.reliability else None,
        "least_support": item.least_support,
    }  # fmt: skip
    for key, value in (values | optional).items():
        if value or key == "note":
            entry.add(key, value)
    entry.add(tomlkit.nl())
    entries, order = cast("AoT", document["heads"]), [task.name for task in TASKS]
    ranks, rank = [order.index(str(old["task"])) for old in entries], order.index(head.task.name)
    if rank in ranks:
        entries[ranks.index(rank)] = entry
    else:
        entries.insert(next((place for place, other in enumerate(ranks) if other > rank), len(ranks)), entry)
