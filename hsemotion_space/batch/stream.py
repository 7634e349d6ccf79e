"""One file for all inputs, written in memory that does not grow with them."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from hsemotion_space.analysis.export import COLUMNS, SCHEMA_VERSION, SUFFIXES, ExportError, write
from hsemotion_space.types import Analysis


class ExportStream:
    """Collects analyses in a folder beside a file, and makes the file of them at the end.

    The columns of a table are known only then: pictures and clips have different ones.

    It is a context manager, whose end writes the file.

    Args:
        path: ends in ``.csv``, ``.json`` or ``.parquet``; replaced if it exists.
        bom: start a CSV file with a byte order mark, by which spreadsheets recognize UTF-8.

    Raises:
        ExportError: for another suffix, or a folder that cannot be written to.
    """

    def __init__(self, path: Path, *, bom: bool = False) -> None:
        self.path, self._bom = path, bom
        if path.suffix.lower() not in SUFFIXES:
            text = "--out must be a folder or end in {first} or {last}, got '{name}'."
            raise ExportError(
                text, code="unknown_suffix", first=", ".join(SUFFIXES[:-1]), last=SUFFIXES[-1], name=path.name
            )
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        except OSError as error:
            raise _unwritable(path, error) from error
        self._parts: list[Path] = []
        self._write([])  # what a file without any analysis has

    def add(self, analysis: Analysis, source: str) -> None:
        """Add an analysis.

        Raises:
            ExportError: if it cannot be written.
        """
        self._write([(analysis, source)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the file, also when the user stops the command; after an error, leave nothing."""
        try:
            if kind is None or kind is KeyboardInterrupt:
                self._merge()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _merge(self) -> None:
        whole = self._folder / "whole"
        merge: dict[str, Callable[[Sequence[Path], Path], None]] = {
            ".csv": partial(_merge_csv, encoding="utf-8-sig" if self._bom else "utf-8"),
            ".json": _merge_json, ".parquet": _merge_parquet,
        }  # fmt: skip
        try:
            merge[self.path.suffix.lower()](self._parts, whole)
            whole.replace(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _write(self, pairs: Sequence[tuple[Analysis, str]]) -> None:
        part = self._folder / f"{len(self._parts)}{self.path.suffix.lower()}"
        write([analysis for analysis, _ in pairs], part, [source for _, source in pairs])
        self._parts.append(part)


def _unwritable(path: Path, error: OSError) -> ExportError:
    text, reason = "Cannot write '{name}': {reason}.", error.strerror or error
    return ExportError(text, code="unwritable", name=path.name, reason=reason)


def _merge_csv(parts: Sequence[Path], whole: Path, *, encoding: str) -> None:
    present: set[str] = set()
    for part in parts:
        with part.open(encoding="utf-8", newline="") as rows:
            present.update(next(csv.reader(rows)))
    with whole.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, [name for name in COLUMNS if name in present], restval="")
        writer.writeheader()
        for part in parts:
            with part.open(encoding="utf-8", newline="") as rows:
                writer.writerows(csv.DictReader(rows))


def _merge_parquet(parts: Sequence[Path], whole: Path) -> None:
    merged = pa.unify_schemas([pq.read_schema(part) for part in parts])
    schema = pa.schema([merged.field(name) for name in COLUMNS if name in merged.names], merged.metadata)
    with pq.ParquetWriter(whole, schema, compression="zstd") as file:
        for part in parts:
            rows = pa.concat_tables([schema.empty_table(), pq.read_table(part)], promote_options="default")
            file.write_table(rows.select(schema.names).cast(schema))


def _merge_json(parts: Sequence[Path], whole: Path) -> None:
    with whole.open("w", encoding="utf-8") as file:
        file.write(f'{{"schema_version": {SCHEMA_VERSION}, "analyses": [')
        for number, part in enumerate(parts):
            for analysis in json.loads(part.read_text("utf-8"))["analyses"]:
                file.write(", " if number > 1 else "")
                json.dump(analysis, file, ensure_ascii=False, allow_nan=False)
        file.write("]}\n")
