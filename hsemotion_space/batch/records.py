"""What a study is, and what is known of each of its inputs."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal

from hsemotion_space import __version__
from hsemotion_space.analysis.export import SCHEMA_VERSION
from hsemotion_space.analysis.summary import schema_of
from hsemotion_space.batch.inputs import Input
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.settings import PipelineConfig, Settings

MANIFEST_COLUMNS: Final = {
    "path": ("string", "Absolute path or address of the input."),
    "source": ("string", "Its name in the tables: the path below the common folder of all arguments."),
    "status": ("string", "done, failed, or started by a run that was interrupted."),
    "file": ("string", "Name of its file in faces/ and embeddings/; empty if there is none."),
    "digest": ("string", "SHA-256 of its bytes, media_sha256 in the tables; empty if it cannot be read."),
    "version": ("string", "What --resume compares: the digest, or what a remote system knows of the file."),
    "faces": ("int64", "Number of faces."),
    "notices": ("list<string>", "Sentences about the analysis."),
    "error_code": ("string", "Short name of the error; empty without one."),
    "error": ("string", "The error as a sentence."),
    "seconds": ("float64", "Duration of the analysis."),
    "updated": ("float64", "When this row was written, in seconds since 1970 (UTC)."),
    "checkpoint_id": ("string", "The checkpoint that made the values."),
    "checkpoint_sha256": ("string", "SHA-256 of its weights file."),
    "heads_sha256": ("string", "SHA-256 of its file of heads; empty if it has none."),
    "settings": ("string", "The settings as JSON."),
    "settings_sha256": ("string", "SHA-256 of the settings."),
}
"""Columns of ``manifest.parquet``: Arrow type and meaning."""
MANIFEST_SCHEMA: Final = schema_of(MANIFEST_COLUMNS)


@dataclass(frozen=True, slots=True)
class Study:
    """What all inputs have in common: two results of one study were made in the same way.

    Attributes:
        settings: of this machine.
        config: what the user chose.
        embeddings: whether embeddings are written too.
        checkpoint_id, checkpoint_sha256, heads_sha256: the weights.
    """

    settings: Settings
    config: PipelineConfig
    embeddings: bool
    checkpoint_id: str
    checkpoint_sha256: str
    heads_sha256: str

    @classmethod
    def of(cls, settings: Settings, config: PipelineConfig, embeddings: bool) -> Study:
        """Look up the checkpoint of a configuration.

        Raises:
            CheckpointError: if it is unknown.
        """
        found = find_checkpoint(settings.checkpoint_roots, config.checkpoint)
        return cls(settings, config, embeddings, found.id, found.sha256, found.heads_sha256)

    def stamp(self) -> dict[str, str]:
        """Return the columns of a record that name weights and settings."""
        chosen = {name: value for name, value in asdict(self.config).items() if value != math.inf}
        choices = chosen | {
            "checkpoint": self.checkpoint_id, "embeddings": self.embeddings,
            "schema_version": SCHEMA_VERSION, "version": __version__,
        }  # fmt: skip
        text = json.dumps(choices, sort_keys=True)
        return {
            "checkpoint_id": self.checkpoint_id, "checkpoint_sha256": self.checkpoint_sha256,
            "heads_sha256": self.heads_sha256,
            "settings": text, "settings_sha256": hashlib.sha256(text.encode()).hexdigest(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """A row of the manifest; ``MANIFEST_COLUMNS`` describes the fields."""

    path: str
    source: str
    status: Literal["started", "done", "failed"]
    checkpoint_id: str
    checkpoint_sha256: str
    heads_sha256: str
    settings: str
    settings_sha256: str
    file: str = ""
    digest: str = ""
    version: str = ""
    faces: int = 0
    notices: tuple[str, ...] = ()
    error_code: str = ""
    error: str = ""
    seconds: float = 0.0
    updated: float = 0.0

    @classmethod
    def started(cls, item: Input, study: Study) -> Record:
        """Return the record of an input whose analysis begins."""
        return cls(item.path, item.source, "started", updated=time.time(), **study.stamp())  # type: ignore[arg-type]

    @classmethod
    def failed(cls, item: Input, study: Study, code: str, error: str) -> Record:
        """Return the record of an input that cannot be analyzed."""
        return replace(cls.started(item, study), status="failed", error_code=code, error=error)
