"""``hsemotion-space checkpoints``: list, download, import and publish checkpoints."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from hsemotion_space.cli.console import downloading, report_error
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.hub.registry import find_checkpoint, list_checkpoints, read_registry
from hsemotion_space.hub.source import Digest
from hsemotion_space.hub.weights import heads_file, locate, resolve
from hsemotion_space.settings import Settings
from hsemotion_space.tasks import TASKS
from hsemotion_space.types import PROVENANCE_LABELS

IMPORT = """
NAME is a published checkpoint of the list; its file is downloaded from its authors. FILE is such a file on
this machine: a whole network or a state dict, written by torch.save. Nothing in it is executed: its tensors
are extracted, checked against the architecture, and written as safetensors with a manifest into the cache,
where every command and the page find them.
"""


def add_checkpoints(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("list", help="list every checkpoint and the provenance of its numbers").set_defaults(
        handler=_list
    )
    compare = commands.add_parser(
        "compare", help="print the figures of every trained checkpoint as a Markdown table"
    )
    compare.set_defaults(handler=_compare)
    fetch = commands.add_parser("fetch", help="download and verify weights, for use offline")
    fetch.add_argument("ids", nargs="+", metavar="ID")
    fetch.set_defaults(handler=_fetch)
    importing = commands.add_parser(
        "import", help="convert a published file into a checkpoint, safely", description=IMPORT
    )
    importing.add_argument("what", metavar="NAME|FILE")
    importing.add_argument(
        "--like",
        default="",
        metavar="ID",
        help="the published checkpoint whose manifest fits FILE; default: found by name or structure",
    )
    importing.add_argument("--id", default="", help="id of the new checkpoint; default: that of the manifest")
    importing.set_defaults(handler=_import)
    publish = commands.add_parser(
        "publish", help="publish a checkpoint on the Hugging Face Hub; reads the token from HF_TOKEN"
    )
    publish.add_argument("id", metavar="ID")
    publish.add_argument("--repo", required=True, metavar="OWNER/NAME")
    publish.add_argument("--private", action="store_true")
    publish.add_argument("--dry-run", action="store_true", help="show the files, upload nothing")
    publish.set_defaults(handler=_publish)


def _list(_: argparse.Namespace) -> int:
    settings = Settings.from_env()
    for checkpoint in list_checkpoints(settings.checkpoint_roots):
        where = locate(checkpoint, settings.cache)
        state = where.message or (
            f"{checkpoint.weights_bytes / 1e6:.1f} MB" if checkpoint.weights_bytes else "in the cache"
        )
        print(
            f"{checkpoint.id}  {checkpoint.title}, {checkpoint.family}, {checkpoint.input.size} px,"
            f" {checkpoint.license}; {state}"
        )
        for head in checkpoint.heads:
            print(
                f"  {head.task.title}:"
                f" {PROVENANCE_LABELS[head.provenance]}{'. ' + head.note if head.note else ''}"
            )
        for task in (task for task in TASKS if checkpoint.head(task.name) is None):
            print(f"  {task.title}: not predicted by this checkpoint")
    for name, fault in read_registry(settings.checkpoint_roots).faults.items():
        print(f"{name}  cannot be used: {fault}")
    return 0


def _compare(_: argparse.Namespace) -> int:
    from hsemotion_space.hub.compare import comparison  # noqa: PLC0415

    found = list_checkpoints(Settings.from_env().checkpoint_roots)
    records = [(checkpoint, checkpoint.folder / "training.json") for checkpoint in found]
    try:
        print(
            comparison(
                [
                    (checkpoint, json.loads(file.read_text("utf-8")))
                    for checkpoint, file in records
                    if file.exists()
                ]
            ),
            end="",
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        return report_error(
            f"A training record cannot be compared ({error!r}); run `hsemotion-space learn finish` for its"
            " checkpoint.",
            2,
        )
    return 0


def _fetch(options: argparse.Namespace) -> int:
    settings = Settings.from_env()
    for checkpoint in [find_checkpoint(settings.checkpoint_roots, name) for name in options.ids]:
        with downloading(checkpoint.id) as report:
            size = len(resolve(checkpoint, settings.cache, report))
            if checkpoint.heads_sha256:
                size += len(heads_file(checkpoint, report))
        print(f"{checkpoint.id}: {size / 1e6:.1f} MB, verified")
    return 0


def _import(options: argparse.Namespace) -> int:
    from hsemotion_space.hub.imports import ImportRequest, import_checkpoint  # noqa: PLC0415
    from hsemotion_space.inference.network import load_network  # noqa: PLC0415  heavy
    from hsemotion_space.vision.engine import EngineOptions  # noqa: PLC0415  heavy

    settings = Settings.from_env()
    request = ImportRequest(options.what, options.like, options.id)
    with downloading(Path(options.what).name) as report:
        message = import_checkpoint(
            request,
            settings.checkpoint_roots,
            settings.cache,
            lambda checkpoint: load_network(checkpoint, EngineOptions("torch")),
            report,
        )
    print(message)
    return 0


def _publish(options: argparse.Namespace) -> int:
    from hsemotion_space.hub.publish import describe, prepare, publish, write_back  # noqa: PLC0415

    settings = Settings.from_env()
    checkpoint = find_checkpoint(settings.checkpoint_roots, options.id)
    weights = resolve(checkpoint, settings.cache)
    heads = heads_file(checkpoint) if checkpoint.heads_sha256 else b""
    publication = prepare(checkpoint, weights, heads)
    if options.dry_run:
        print(describe(publication, options.repo))
        return 0
    token = os.environ.get("HF_TOKEN", "")
    if not token:
        raise CheckpointError(
            "HF_TOKEN is not set. Create a token with write access to this repository and set it; `--dry-run`"
            " needs none.",
            code="no_token",
        )
    source = publish(publication, options.repo, token, options.private)
    write_back(checkpoint.folder, source, Digest.of(weights), Digest.of(heads) if heads else Digest())
    print(
        f"Published {checkpoint.id} as {source.repo} at {source.revision}; the manifest names this revision."
    )
    return 0
