"""From one input to its record and its files: the same function on one machine and on a cluster."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from hsemotion_space.analysis.embeddings import embedding_table
from hsemotion_space.analysis.export import COLUMNS, SCHEMA_VERSION, table
from hsemotion_space.analysis.summary import Person, schema_of, summarize
from hsemotion_space.batch.folder import EMBEDDINGS, FACES
from hsemotion_space.batch.inputs import Input, is_remote, local_copy, version_of
from hsemotion_space.batch.records import Record, Study
from hsemotion_space.inference.pipeline import Pipeline
from hsemotion_space.media.formats import MediaError, file_sha256
from hsemotion_space.types import Analysis

log = logging.getLogger(__name__)
# all files have all columns, so that the files of a folder can be read as one table
_FRAMES = schema_of(COLUMNS).with_metadata({"schema_version": str(SCHEMA_VERSION)})
Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an input.

    Attributes:
        record: its row of the manifest.
        tables: content of its files by the folder that they belong in.
        people: its rows of the summary.
        analysis: None if it failed, or was made on another machine.
    """

    record: Record
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    people: Sequence[Person] = ()
    analysis: Analysis | None = None


class Analyst:
    """Analyzes the inputs of a study one after another; the networks stay loaded.

    Args:
        study: what all inputs have in common.
        report: called with bytes done and bytes in total while the weights are downloaded.

    Raises:
        CheckpointError: if the checkpoint cannot be loaded.
    """

    def __init__(self, study: Study, report: Report = lambda _done, _total: None) -> None:
        self.study = study
        self._pipeline = Pipeline(study.settings)
        self._pipeline.network(study.checkpoint_id, report)

    def analyze(self, item: Input, report: Report | None = None) -> Outcome:
        """Return what became of an input; whatever one input causes, the others can be analyzed.

        Args:
            item: to analyze.
            report: called with frames done and frames expected.
        """
        start = time.perf_counter()
        try:
            with local_copy(item.path) as file:
                outcome = self._outcome(item, self._pipeline.analyze(file, self.study.config, report))
        except MediaError as error:
            outcome = self._failed(item, error.code, str(error))
        except Exception as error:
            log.exception("%s", item.source)
            outcome = self._failed(item, "unexpected", f"{type(error).__name__}: {error}")
        seconds = round(time.perf_counter() - start, 3)
        return replace(outcome, record=replace(outcome.record, seconds=seconds, updated=time.time()))

    def _outcome(self, item: Input, analysis: Analysis) -> Outcome:
        # two inputs may have the same content
        digest, path = analysis.media.sha256, item.path.encode("utf-8", "surrogateescape")
        record = replace(
            Record.started(item, self.study), status="done", digest=digest, faces=len(analysis.faces),
            file=f"{digest}-{hashlib.sha256(path).hexdigest()[:8]}.parquet",
            version=version_of(item.path) if is_remote(item.path) else digest,
            notices=tuple(map(str, analysis.notices)),
        )  # fmt: skip
        rows = pa.concat_tables(
            [_FRAMES.empty_table(), table([analysis], [item.source])], promote_options="default"
        )
        tables = {FACES: rows.select(_FRAMES.names).cast(_FRAMES)}
        if self.study.embeddings and analysis.faces:
            tables[EMBEDDINGS] = embedding_table(analysis, item.source)
        return Outcome(record, tables, summarize(analysis, item.source), analysis)

    def _failed(self, item: Input, code: str, reason: str) -> Outcome:
        record = Record.failed(item, self.study, code, reason)
        with suppress(MediaError):
            if not is_remote(item.path):
                record = replace(record, digest=file_sha256(Path(item.path)))
        return Outcome(record)
