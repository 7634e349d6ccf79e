"""Feedback as a folder that ``datasets`` and ``learn`` read, and everything of one contributor as JSON."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from hsemotion_space.feedback.dataset import to_table, traces_table, write_table
from hsemotion_space.feedback.private import make_folder, write
from hsemotion_space.feedback.record import TIERS, FeedbackError, FeedbackRecord, Json, to_json
from hsemotion_space.feedback.tables import Record
from hsemotion_space.feedback.trace import TraceRecord

FILE: Final = "train-{:05}.parquet"
DATA: Final = "data"
FILE_ROWS: Final = 1000
PUBLISH_SCOPE: Final = "publish"
OWN_VERSION: Final = 2
_CARD: Final = """---
configs:
- config_name: default
  data_files: data/*.parquet
---
# Feedback on predictions of facial affect

{rows:,} statements by {contributors:,} contributors on {items:,} faces, {crops:,} of them with a picture.
{terms}
"""
_SHARED: Final = "Every contributor agreed to publication."
_OWN: Final = "**Not for publication**: not every contributor agreed to it."


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What an export takes in.

    Attributes:
        min_tier: the least sure of ``TIERS`` that a row must have reached.
        include_private: for use by the operator alone: take in what its contributors did not agree to
            publish.
        card: text of the README; a short one is written if it is empty.
    """

    min_tier: str = "agreed"
    include_private: bool = False
    card: str = ""

    def __post_init__(self) -> None:
        if self.min_tier not in TIERS:
            raise FeedbackError(
                "The tier must be one of {names}, got {name}.",
                code="tier",
                name=repr(self.min_tier),
                names=", ".join(TIERS),
            )


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export holds, and why the rest was left out.

    Attributes:
        rows, crops, contributors, items, files: numbers of each.
        by_tier: rows of each tier.
        left_out: records by reason: ``superseded``, ``reverted``, ``rejected``, ``not to be published``,
            ``below the tier``.
    """

    rows: int
    crops: int
    contributors: int
    items: int
    files: int
    by_tier: Mapping[str, int]
    left_out: Mapping[str, int]


def export(
    records: Sequence[FeedbackRecord],
    folder: Path,
    tiers: Mapping[str, str],
    options: ExportOptions | None = None,
) -> ExportReport:
    """Write ``README.md`` and ``data/train-00000.parquet`` and so on, which ``datasets.load_dataset`` reads.

    Args:
        records: all of them; those that do not count any more are left out here.
        folder: must not exist, or be empty; there is nothing in it if the export fails.
        tiers: by the id of a record; one that is not there is ``raw``.
        options: which records.

    Raises:
        FeedbackError: if the folder is not empty or cannot be written, or no record is left.
    """
    options, folder = options or ExportOptions(), folder.resolve()
    if folder.is_dir() and any(folder.iterdir()):
        raise FeedbackError(
            "The folder {name} is not empty. Choose another folder.", code="folder", name=folder.name
        )
    grades = {record.id: tiers.get(record.id, TIERS[0]) for record in records}
    reasons = {record.id: _reason(record, grades[record.id], options) for record in records}
    exported = [record for record in records if not reasons[record.id]]
    left_out = Counter(reason for reason in reasons.values() if reason)
    if not exported:
        raise FeedbackError(
            "No records to export. Omitted: {reasons}.",
            code="empty",
            reasons=_reasons_text(left_out) or "nothing",
        )
    files = [exported[start : start + FILE_ROWS] for start in range(0, len(exported), FILE_ROWS)]
    report = _report(exported, len(files), grades, left_out)
    partial = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        make_folder(partial)
        make_folder(partial / DATA)
        write(partial / "README.md", (options.card or _card(report, options.include_private)).encode())
        for number, part in enumerate(files):
            write(partial / DATA / FILE.format(number), write_table(to_table(part, grades)))
        partial.replace(folder)
    except OSError as error:
        raise FeedbackError(
            "{name} cannot be written: {reason}.",
            code="export_write",
            name=folder.name,
            reason=error.strerror or str(error),
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _reason(record: FeedbackRecord, tier: str, options: ExportOptions) -> str:
    """Return why a record is left out, nothing if it is not."""
    if record.superseded or record.reverted:
        return "superseded" if record.superseded else "reverted"
    if record.review == "rejected":
        return "rejected"
    if not options.include_private and PUBLISH_SCOPE not in record.consent_scopes:
        return "not to be published"
    return "below the tier" if TIERS.index(tier) < TIERS.index(options.min_tier) else ""


def _reasons_text(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items())


def _report(
    exported: Sequence[FeedbackRecord], files: int, grades: Mapping[str, str], left_out: Mapping[str, int]
) -> ExportReport:
    return ExportReport(
        rows=len(exported),
        crops=sum(bool(record.consented_crop) for record in exported),
        contributors=len({record.contributor for record in exported}),
        items=len({record.item for record in exported}),
        files=files,
        by_tier=Counter(grades[record.id] for record in exported),
        left_out=left_out,
    )


def _card(report: ExportReport, include_private: bool) -> str:
    return _CARD.format(
        rows=report.rows,
        contributors=report.contributors,
        items=report.items,
        crops=report.crops,
        terms=_OWN if include_private else _SHARED,
    )


def export_traces(traces: Sequence[TraceRecord], file: Path, *, include_private: bool) -> int:
    """Write the traces that hold as a table and return their number; those set aside are left out.

    Args:
        traces: of the store.
        file: ``.parquet`` gets a row per trace with the columns of the dataset, ``.csv`` a row per sample.
        include_private: for use by the operator alone: take in what must not be published.

    Raises:
        FeedbackError: if there is none, or the file has another ending or cannot be written.
    """
    held = [
        one for one in traces
        if not (one.superseded or one.reverted) and (include_private or PUBLISH_SCOPE in one.consent_scopes)
    ]  # fmt: skip
    if file.suffix not in (".parquet", ".csv"):
        raise FeedbackError("{name} must end in .parquet or .csv.", code="export_suffix", name=file.name)
    if not held:
        raise FeedbackError(
            "No records to export. Omitted: {reasons}.", code="empty", reasons=f"{len(traces)} traces"
        )
    body = write_table(traces_table(held)) if file.suffix == ".parquet" else _samples(held).encode()
    _write_whole(file, body)
    return len(held)


def _samples(traces: Sequence[TraceRecord]) -> str:
    lines = ["clip,face,contributor,dimension,attempt,bounded,time_s,value"]
    for one in traces:
        about = f"{one.clip},{one.face},{one.contributor},{one.dimension},{one.attempt},{one.bounded}"
        lines += [f"{about},{time},{value}" for time, value in zip(one.times_s, one.values, strict=True)]
    return "\n".join([*lines, ""])


def export_own(records: Sequence[Record], file: Path) -> int:
    """Write everything stored of one contributor as JSON, crops in base64; return the number of records.

    Args:
        records: of the contributor, in whatever state.
        file: replaced if it exists; it is there either wholly or not at all.

    Raises:
        FeedbackError: if the file cannot be written.
    """
    document = {"own_data_version": OWN_VERSION, "records": list(_own_records(records))}
    _write_whole(file, f"{json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)}\n".encode())
    return len(records)


def _write_whole(file: Path, body: bytes) -> None:
    """Write a file that only this user can read, wholly or not at all."""
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")
    try:
        write(partial, body)
        partial.replace(file)
    except OSError as error:
        raise FeedbackError(
            "{name} cannot be written: {reason}.",
            code="export_write",
            name=file.name,
            reason=error.strerror or str(error),
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _own_records(records: Sequence[Record]) -> Iterator[Mapping[str, Json]]:
    for record in records:
        yield {
            "number": record.number,
            "created": datetime.fromtimestamp(record.created_s, UTC).isoformat(),
            "state": record.state,
            "batch": record.batch,
            "superseded": record.superseded,
            "review": record.review,
            "reverted": record.reverted,
            "record": to_json(record),
            "crop_png_base64": base64.b64encode(record.crop).decode(),
        }
