"""The folder of a study: one Parquet file per input, a journal that survives a kill, and two tables."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from hsemotion_space.analysis.summary import SUMMARY_SCHEMA, Person
from hsemotion_space.batch.inputs import Input, version_of
from hsemotion_space.batch.records import MANIFEST_SCHEMA, Record, Study
from hsemotion_space.media.formats import MediaError
from hsemotion_space.messages import MessageError

FACES: Final = "faces"
EMBEDDINGS: Final = "embeddings"
_JOURNAL, _PARTIAL = "journal", "partial"
_ATTEMPTS = 3
_ROWS = 200  # of a table in memory at a time
_FIELDS = [item.name for item in fields(Record)]


class FolderError(MessageError, ValueError):
    """A folder of results cannot be used."""


class ResultFolder:
    """Writes the results of a study so that at any moment each input is complete or absent.

    A file is written below ``partial/`` and renamed; then a line is appended to the journal of this part.
    Only what a journal names counts. Several parts may write to one folder at the same time.

    Args:
        path: created if it does not exist.
        part: name of the share of the inputs that this process analyzes; it names the journal.
        resume: whether this part may already have results.

    Raises:
        FolderError: if the folder cannot be written to, or has results and ``resume`` is False.
    """

    def __init__(self, path: Path, part: str = "all", resume: bool = False) -> None:
        self.path = path
        self._journal = path / _JOURNAL / f"{part}.jsonl"
        if not resume and self._journal.exists():
            text = "'{name}' already has results. Add --resume to complete them, or choose another folder."
            raise FolderError(text, code="has_results", name=path.name)
        with self._writing():
            for name in (FACES, EMBEDDINGS, _JOURNAL, _PARTIAL):
                (path / name).mkdir(parents=True, exist_ok=True)
            with self._journal.open("ab+") as file:
                file.seek(max(file.tell() - 1, 0))
                if file.read(1) not in (b"", b"\n"):
                    file.write(b"\n")  # after a line that a killed process did not finish
        self._last = {
            name: _record(_row(file, offset)) for name, (_, file, offset) in self._index()[0].items()
        }

    def pending(self, inputs: Sequence[Input], study: Study) -> list[Input]:
        """Return the inputs that have no result for their content, name and settings.

        An input whose analysis was interrupted comes last, in case it ended the process.
        """
        left = [item for item in inputs if not self._is_done(item, study)]
        return sorted(
            left, key=lambda item: item.path in self._last and self._last[item.path].status == "started"
        )

    def _is_done(self, item: Input, study: Study) -> bool:
        record = self._last.get(item.path)
        wanted = {"status": "done", "source": item.source, **study.stamp()}
        if record is None or any(getattr(record, name) != value for name, value in wanted.items()):
            return False
        with suppress(MediaError):
            return (self.path / FACES / record.file).is_file() and version_of(item.path) == record.version
        return False

    def add(
        self, record: Record, tables: Mapping[str, pa.Table] | None = None, people: Sequence[Person] = ()
    ) -> None:
        """Store what is known of an input, in place of what was known before.

        Args:
            record: its row of the manifest.
            tables: content of its files ``record.file`` in ``faces`` and perhaps ``embeddings``.
            people: its rows of the summary.

        Raises:
            FolderError: if the folder cannot be written to.
        """
        tables, old = tables or {}, self._last[record.path].file if record.path in self._last else ""
        if record.status == "started":
            record, old = replace(record, file=old), ""  # the old file stays until there is a new one
        with self._writing():
            for folder, rows in tables.items():
                partial = self.path / _PARTIAL / f"{folder}-{record.file}"
                pq.write_table(rows, partial, compression="zstd")
                partial.replace(self.path / folder / record.file)
            for folder in (FACES, EMBEDDINGS) if old else ():
                if old != record.file or folder not in tables:
                    (self.path / folder / old).unlink(missing_ok=True)
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(record) | {"people": people}) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or kind is KeyboardInterrupt:
            self.finish()

    def finish(self) -> None:
        """Write ``manifest.parquet`` and ``summary.parquet`` from the journals of all parts.

        Raises:
            FolderError: if the folder cannot be written to.
        """
        # again if another part has written meanwhile; one that goes on writing does this itself at its end
        for _ in range(_ATTEMPTS):
            sizes = self._sizes()
            index, columns = self._index()
            rows = (_row(file, offset) for _, (_, file, offset) in sorted(index.items()))
            summary = pa.schema([field for field in SUMMARY_SCHEMA if field.name in columns])
            names = [self.path / _PARTIAL / f"{secrets.token_hex(4)}.parquet" for _ in range(2)]
            with self._writing():
                with (
                    pq.ParquetWriter(names[0], MANIFEST_SCHEMA) as manifest,
                    pq.ParquetWriter(names[1], summary) as table,
                ):
                    while some := list(islice(rows, _ROWS)):
                        manifest.write_table(
                            pa.Table.from_pylist([_printable(row) for row in some], MANIFEST_SCHEMA)
                        )
                        table.write_table(
                            pa.Table.from_pylist([one for row in some for one in row["people"]], summary)
                        )
                names[0].replace(self.path / "manifest.parquet")
                names[1].replace(self.path / "summary.parquet")
            if sizes == self._sizes():
                return

    def _sizes(self) -> dict[Path, int]:
        return {file: file.stat().st_size for file in self._journals()}

    def _journals(self) -> list[Path]:
        return sorted((self.path / _JOURNAL).glob("*.jsonl"))

    def _index(self) -> tuple[dict[str, tuple[float, Path, int]], set[str]]:
        """Return time, journal and offset of the last row of each input, and the columns of the summary."""
        index: dict[str, tuple[float, Path, int]] = {}
        columns: set[str] = set()
        for file in self._journals():
            with file.open("rb") as lines:
                offset = 0
                for line in lines:
                    if row := _parsed(line):
                        index[row["path"]] = max(
                            index.get(row["path"], (0.0, file, 0)), (row["updated"], file, offset)
                        )
                        columns.update(*row["people"])
                    offset += len(line)
        return index, columns

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            text = "Cannot write to '{name}': {reason}."
            raise FolderError(
                text, code="unwritable", name=self.path.name, reason=error.strerror or error
            ) from error


def _parsed(line: bytes) -> dict[str, Any]:
    """Return a row, empty for a line that a killed process did not finish."""
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}


def _row(file: Path, offset: int) -> dict[str, Any]:
    with file.open("rb") as lines:
        lines.seek(offset)
        return _parsed(lines.readline())


def _record(row: Mapping[str, Any]) -> Record:
    return Record(**{name: row[name] for name in _FIELDS if name != "notices"}, notices=tuple(row["notices"]))


def _printable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose texts UTF-8 can hold: names of files may carry bytes that are no text."""
    return {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }
