"""``hsemotion-space feedback``: the dataset of corrections, for the operator of a server."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hsemotion_space.cli.console import report_error
from hsemotion_space.feedback.record import TIERS, FeedbackError, Review, corrections_of, subject_of
from hsemotion_space.settings import Settings
from hsemotion_space.tasks import get_task

if TYPE_CHECKING:
    from hsemotion_space.feedback.service import Feedback

# a sentence
NO_TOKEN = "Set HSEMOTION_FEEDBACK_REPO to owner/name and HF_TOKEN to a token with write access to it."  # noqa: S105


def add_feedback(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser(
        "status", help="show how much is saved, published and pending, and how far people agree"
    ).set_defaults(handler=_status)
    out = commands.add_parser("export", help="write a folder for datasets.load_dataset and `learn`")
    out.add_argument("folder", type=Path)
    out.add_argument(
        "--tier", choices=TIERS, default="agreed", help="lowest tier of a row (default %(default)s)"
    )
    out.add_argument(
        "--own",
        action="store_true",
        help="include rows that must not be published, for use on this machine only",
    )
    out.set_defaults(handler=_export)
    traces = commands.add_parser(
        "traces", help="write continuous ratings to a .parquet or .csv file and show how far they agree"
    )
    traces.add_argument("file", type=Path)
    traces.add_argument(
        "--own",
        action="store_true",
        help="include traces that must not be published, for use on this machine only",
    )
    traces.add_argument(
        "--clips", type=Path, help="folder of the rated files: show which of them is which clip of the file"
    )
    traces.set_defaults(handler=_traces)
    commands.add_parser("push", help="publish pending records; reads the token from HF_TOKEN").set_defaults(
        handler=_push
    )
    review = commands.add_parser(
        "review", help="approve or reject records, mark known answers, exclude a contributor"
    )
    review.add_argument(
        "ids", nargs="*", metavar="ID", help="records; default: list the records that need a review"
    )
    decision = review.add_mutually_exclusive_group()
    decision.add_argument("--approve", action="store_true")
    decision.add_argument("--reject", action="store_true")
    decision.add_argument(
        "--gold", action="store_true", help="approve, and use these records to check contributors"
    )
    decision.add_argument("--revert", metavar="CONTRIBUTOR", help="exclude all records of this contributor")
    review.add_argument(
        "--reviewer", default="operator", help="name stored with the decision (default %(default)s)"
    )
    review.set_defaults(handler=_review)
    erase = commands.add_parser("erase", help="erase all records of a receipt code, here and on the Hub")
    erase.add_argument(
        "code", nargs="?", default="", help="receipt code; default: finish the pending erasures on the Hub"
    )
    erase.set_defaults(handler=_erase)
    commands.add_parser("verify", help="read and check all saved and published records").set_defaults(
        handler=_verify
    )


@contextmanager
def _opened(*, read_only: bool = False) -> Iterator[Feedback]:
    from hsemotion_space.feedback.service import open_feedback  # noqa: PLC0415  heavy

    feedback = open_feedback(Settings.from_env(), os.environ.get("HF_TOKEN", ""), read_only)
    try:
        yield feedback
    finally:
        feedback.store.close()


def _status(_: argparse.Namespace) -> int:
    from hsemotion_space.feedback.trust import agreement  # noqa: PLC0415

    with _opened(read_only=True) as feedback:
        print(feedback.message)
        records = feedback.store.records()
        grades = list(feedback.tiers(records).values())
        print("Tiers: " + ", ".join(f"{grades.count(tier)} {tier}" for tier in TIERS))
        print("Agreement (Krippendorff's alpha):")
        for record in agreement(records):
            name = get_task(record.task).title + (f", {record.label}" if record.label else "")
            value = (
                record.reason
                if record.alpha is None
                else f"{record.alpha:.3f} ({record.level}), {record.items} items, {record.raters} people"
            )
            print(f"  {name}: {value}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from hsemotion_space.feedback.export import ExportOptions, export  # noqa: PLC0415

    with _opened(read_only=True) as feedback:
        records = feedback.store.records()
        export_options = ExportOptions(options.tier, options.own)
        report = export(records, options.folder, feedback.tiers(records), export_options)
    left = ", ".join(f"{count} {reason}" for reason, count in report.left_out.items()) or "nothing"
    print(
        f"Wrote {report.rows} rows by {report.contributors} contributors on {report.items} faces,"
        f" {report.crops} with a picture, to {options.folder}. Left out: {left}."
    )
    return 0


def _traces(options: argparse.Namespace) -> int:
    from hsemotion_space.feedback.export import export_traces  # noqa: PLC0415
    from hsemotion_space.feedback.trace import agreements  # noqa: PLC0415

    with _opened(read_only=True) as feedback:
        traces = feedback.store.traces()
        count = export_traces(traces, options.file, include_private=options.own)
        print(f"Wrote {count} traces to {options.file}.")
        faces = {(one.clip, one.face) for one in traces}
        for file in sorted(options.clips.iterdir()) if options.clips else ():
            if file.is_file():
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                for clip, face in sorted(faces):
                    if feedback.intake.face_item(digest, face) == clip:
                        print(f"{clip} is face {face} of {file.name}.")
    found = list(agreements(traces))
    for dimension, alone in sorted({(dimension, alone) for dimension, alone, _ in found}):
        pairs = [one for name, same, one in found if (name, same) == (dimension, alone)]
        who = "two passes of one person" if alone else "two people"
        bounded = [one.concordance for one in pairs if one.concordance is not None]
        concordance = f"CCC {sum(bounded) / len(bounded):.3f}, " if bounded else ""
        ordinal = sum(one.ordinal for one in pairs) / len(pairs)
        print(f"{dimension}, {who}: {concordance}Kendall's tau {ordinal:.3f}, mean of {len(pairs)} pairs.")
    return 0


def _push(_: argparse.Namespace) -> int:
    with _opened() as feedback:
        if feedback.publisher is None:
            raise FeedbackError(NO_TOKEN, code="no_token")
        status = feedback.publisher.flush()
    print(status.message)
    return 1 if status.error else 0


def _review(options: argparse.Namespace) -> int:
    decision: Review = "rejected" if options.reject else "approved" if options.approve or options.gold else ""
    if options.ids and not decision:
        return report_error("Add --approve, --reject or --gold.", 2)
    if decision and not options.ids:
        return report_error("Add the ids of the records.", 2)
    with _opened(read_only=not (decision or options.revert)) as feedback:
        if options.revert:
            contributor = _match(
                options.revert, {record.contributor for record in feedback.store.records()}, "contributor"
            )
            print(f"{feedback.store.revert(contributor)} records are excluded.")
        elif not decision:
            _list_waiting(feedback)
        else:
            known = {record.id for record in feedback.store.records()}
            names = [_match(name, known, "record") for name in options.ids]
            for name in names:
                feedback.store.review(name, decision, options.reviewer)
                feedback.store.mark_gold(name, options.gold)
            print(f"{len(names)} {decision}{' as known answers' if options.gold else ''}.")
    return 0


def _match(start: str, known: set[str], what: str) -> str:
    """Return the only name that starts so."""
    found = [name for name in known if name.startswith(start.lower())]
    if len(found) != 1:
        template = (
            "More than one {what} starts with {start}; add digits."
            if found
            else "No {what} starts with {start}."
        )
        raise FeedbackError(template, code="ambiguous", what=what, start=repr(start[:40]))
    return found[0]


def _list_waiting(feedback: Feedback) -> None:
    records = feedback.store.records()
    grades = feedback.tiers(records)
    waiting = feedback.store.records(waiting=True)
    for record in waiting:
        when = datetime.fromtimestamp(record.created_s, UTC).strftime("%Y-%m-%d %H:%M")
        what, verdict = (
            subject_of(record),
            f"{record.verdict.replace('_', ' ')} {corrections_of(record)}".strip(),
        )
        print(
            f"{record.id[:12]}  {when}  by {record.contributor[:8]}  {grades[record.id]:<8}  {what}:"
            f" {verdict}"
        )
        if record.comment:
            print(f"              comment: {record.comment!r}")
    print(f"{len(waiting)} records need a review.")


def _erase(options: argparse.Namespace) -> int:
    with _opened() as feedback:
        if options.code:
            report = feedback.erase(options.code)
            print(report.message)
            return 0 if report.done else 1
        from hsemotion_space.feedback.erase import pending_erasures  # noqa: PLC0415

        waiting = len(pending_erasures(feedback.store))
        if waiting and feedback.publisher is None:
            raise FeedbackError(NO_TOKEN, code="no_token")
        reason = ""
        for record in pending_erasures(feedback.store):
            reason = (
                feedback.publisher.finish_erasures(record.contributor, 600)[0]
                if feedback.publisher is not None
                else ""
            ) or reason
        left = len(pending_erasures(feedback.store))
    print(f"{waiting - left} of {waiting} erasures are finished on the Hub.{' ' + reason if reason else ''}")
    return 1 if left else 0


def _verify(_: argparse.Namespace) -> int:
    from hsemotion_space.feedback.sync import verify_database  # noqa: PLC0415

    with _opened(read_only=True) as feedback:
        problems = verify_database(feedback.store)
        count = sum(feedback.store.counts().values())
        if feedback.publisher is not None:
            problems += feedback.publisher.check()
        where = f"here and in {feedback.settings.feedback_repo}" if feedback.publisher is not None else "here"
    for problem in problems:
        print(problem)
    print(
        f"Checked {count} records and their batches {where}; {len(problems) or 'no'}"
        f" {'problem' if len(problems) == 1 else 'problems'}."
    )
    return 1 if problems else 0
