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

from hsemotion_space.feedback.dataset import to_table, write_table
from hsemotion_space.feedback.private import make_folder, write
from hsemotion_space.feedback.record import TIERS, FeedbackError, FeedbackRecord, Json, to_json

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

{rows:,} statements by {contributors:,} contributors on {items:,} faces, {crops:,} of them with a picture. {terms}
"""
_SHARED: Final = "Every contributor agreed to publication."
_OWN: Final = "**Not for publication**: not every contributor agreed to it."


@dataclass(frozen=True, slots=True)
class Choice:
    """What an export takes in.

    Attributes:
        least: the least sure of ``TIERS`` that a row must have reached.
        own: for use by the operator alone: take in what its contributors did not agree to publish.
        card: text of the README; a short one is written if it is empty.
    """

    least: str = "agreed"
    own: bool = False
    card: str = ""

    def __post_init__(self) -> None:
        if self.least not in TIERS:
            raise FeedbackError("The tier must be one of {names}, got {name}.", code="tier", name=repr(self.least), names=", ".join(TIERS))


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export holds, and why the rest was left out.

    Attributes:
        rows, crops, contributors, items, files: numbers of each.
        by_tier: rows of each tier.
        left_out: records by reason: ``superseded``, ``reverted``, ``rejected``, ``not to be published``, ``below the tier``.
    """

    rows: int
    crops: int
    contributors: int
    items: int
    files: int
    by_tier: Mapping[str, int]
    left_out: Mapping[str, int]


def export(
    stored: Sequence[FeedbackRecord],
    folder: Path,
    tiers: Mapping[str, str],
    choice: Choice | None = None,
) -> ExportReport:
    """Write ``README.md`` and ``data/train-00000.parquet`` and so on, which ``datasets.load_dataset`` reads.

    Args:
        stored: all records; those that do not count any more are left out here.
        folder: must not exist, or be empty; there is nothing in it if the export fails.
        tiers: by the id of a record; one that is not there is ``raw``.
        choice: which records.

    Raises:
        FeedbackError: if the folder is not empty or cannot be written, or no record is left.
    """
    choice, folder = choice or Choice(), folder.resolve()
    if folder.is_dir() and any(folder.iterdir()):
        raise FeedbackError("The folder {name} is not empty. Choose another folder.", code="folder", name=folder.name)
    grades = {one.id: tiers.get(one.id, TIERS[0]) for one in stored}
    reasons = {one.id: _reason(one, grades[one.id], choice) for one in stored}
    kept = [one for one in stored if not reasons[one.id]]
    left_out = Counter(reason for reason in reasons.values() if reason)
    if not kept:
        raise FeedbackError("No records to export. Omitted: {reasons}.", code="empty", reasons=_in_words(left_out) or "nothing")
    files = [kept[start : start + FILE_ROWS] for start in range(0, len(kept), FILE_ROWS)]
    report = _report(kept, len(files), grades, left_out)
    partial = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        make_folder(partial)
        make_folder(partial / DATA)
        write(partial / "README.md", (choice.card or _card(report, choice.own)).encode())
        for number, part in enumerate(files):
            write(partial / DATA / FILE.format(number), write_table(to_table(part, grades)))
        partial.replace(folder)
    except OSError as error:
        raise FeedbackError(
            "{name} cannot be written: {reason}.", code="export_write", name=folder.name, reason=error.strerror or str(error)
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _reason(one: FeedbackRecord, tier: str, choice: Choice) -> str:
    """Return why a record is left out, nothing if it is not."""
    if one.superseded or one.reverted:
        return "superseded" if one.superseded else "reverted"
    if one.review == "rejected":
        return "rejected"
    if not choice.own and PUBLISH_SCOPE not in one.consent_scopes:
        return "not to be published"
    return "below the tier" if TIERS.index(tier) < TIERS.index(choice.least) else ""


def _in_words(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items())


def _report(kept: Sequence[FeedbackRecord], files: int, grades: Mapping[str, str], left_out: Mapping[str, int]) -> ExportReport:
    return ExportReport(
        rows=len(kept),
        crops=sum(bool(one.shown_crop) for one in kept),
        contributors=len({one.contributor for one in kept}),
        items=len({one.item for one in kept}),
        files=files,
        by_tier=Counter(grades[one.id] for one in kept),
        left_out=left_out,
    )


def _card(report: ExportReport, own: bool) -> str:
    return _CARD.format(
        rows=report.rows, contributors=report.contributors, items=report.items, crops=report.crops, terms=_OWN if own else _SHARED
    )


def export_own(stored: Sequence[FeedbackRecord], file: Path) -> int:
    """Write everything that is kept of one contributor as JSON, with comments, exact times and crops (base64); return how much it is.

    Args:
        stored: the records of the contributor, in whatever state.
        file: replaced if it exists; it is there either wholly or not at all.

    Raises:
        FeedbackError: if the file cannot be written.
    """
    document = {"own_data_version": OWN_VERSION, "records": list(_own_records(stored))}
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")
    try:
        write(partial, (json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())
        partial.replace(file)
    except OSError as error:
        raise FeedbackError(
            "{name} cannot be written: {reason}.", code="export_write", name=file.name, reason=error.strerror or str(error)
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return len(stored)


def _own_records(stored: Sequence[FeedbackRecord]) -> Iterator[Mapping[str, Json]]:
    for one in stored:
        yield {
            "number": one.number,
            "created": datetime.fromtimestamp(one.created_s, UTC).isoformat(),
            "state": one.state,
            "batch": one.batch,
            "superseded": one.superseded,
            "review": one.review,
            "reverted": one.reverted,
            "record": to_json(one),
            "crop_png_base64": base64.b64encode(one.crop).decode(),
        }
