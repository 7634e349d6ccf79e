"""``hsemotion-space feedback``: the dataset of corrections, for the people who run a server."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hsemotion_space.cli.console import complain
from hsemotion_space.feedback.record import TIERS, FeedbackError, Review, corrections_of, subject_of
from hsemotion_space.settings import Settings
from hsemotion_space.tasks import get_task

if TYPE_CHECKING:
    from hsemotion_space.feedback.service import Feedback

NO_TOKEN = "Set HSEMOTION_FEEDBACK_REPO to owner/name and HF_TOKEN to a token with write access to it."  # noqa: S105  says what to do


def add_feedback(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("status", help="show what is kept, published and waiting, and how far people agree").set_defaults(handler=_status)
    out = commands.add_parser("export", help="write a folder that datasets.load_dataset and `learn` read")
    out.add_argument("folder", type=Path)
    out.add_argument("--tier", choices=TIERS, default="agreed", help="the least that a row must have reached (default %(default)s)")
    out.add_argument("--own", action="store_true", help="for use on this machine only: include what its contributors did not publish")
    out.set_defaults(handler=_export)
    commands.add_parser("push", help="publish what waits; takes the token from HF_TOKEN").set_defaults(handler=_push)
    review = commands.add_parser("review", help="approve or reject records, mark known answers, set aside everything of one contributor")
    review.add_argument("ids", nargs="*", metavar="ID", help="records; without any, those that wait for a review are listed")
    decision = review.add_mutually_exclusive_group()
    decision.add_argument("--approve", action="store_true")
    decision.add_argument("--reject", action="store_true")
    decision.add_argument("--gold", action="store_true", help="approve, and judge contributors by what these records say")
    decision.add_argument("--revert", metavar="CONTRIBUTOR", help="set aside everything of this contributor")
    review.add_argument("--reviewer", default="operator", help="name that is kept with the decision (default %(default)s)")
    review.set_defaults(handler=_review)
    gone = commands.add_parser("erase", help="erase everything given under a receipt code, here and on the Hub")
    gone.add_argument("code", nargs="?", default="", help="the receipt code; without it, erasures that wait for the Hub are finished")
    gone.set_defaults(handler=_erase)
    commands.add_parser("verify", help="read everything that is kept or published again and check it").set_defaults(handler=_verify)


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
        for one in agreement(records):
            name = get_task(one.task).title + (f", {one.label}" if one.label else "")
            value = one.reason if one.alpha is None else f"{one.alpha:.3f} ({one.level}), {one.items} items, {one.raters} people"
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
        f"Wrote {report.rows} rows by {report.contributors} contributors on {report.items} faces, {report.crops} with a picture, "
        f"to {options.folder}. Left out: {left}."
    )
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
        return complain("Say --approve, --reject or --gold.", 2)
    if decision and not options.ids:
        return complain("Name the records.", 2)
    with _opened(read_only=not (decision or options.revert)) as feedback:
        if options.revert:
            contributor = _whole(options.revert, {one.contributor for one in feedback.store.records()}, "contributor")
            print(f"{feedback.store.revert(contributor)} records were set aside.")
        elif not decision:
            _list_waiting(feedback)
        else:
            known = {one.id for one in feedback.store.records()}
            names = [_whole(name, known, "record") for name in options.ids]
            for name in names:
                feedback.store.review(name, decision, options.reviewer)
                feedback.store.mark_gold(name, options.gold)
            print(f"{len(names)} {decision}{' as known answers' if options.gold else ''}.")
    return 0


def _whole(start: str, known: set[str], kind: str) -> str:
    """Return the only name that begins so."""
    found = [name for name in known if name.startswith(start.lower())]
    if len(found) != 1:
        template = "More than one {kind} begins with {start}." if found else "No {kind} begins with {start}."
        raise FeedbackError(template, code="ambiguous", kind=kind, start=repr(start[:40]))
    return found[0]


def _list_waiting(feedback: Feedback) -> None:
    records = feedback.store.records()
    grades = feedback.tiers(records)
    waiting = feedback.store.records(waiting=True)
    for one in waiting:
        when = datetime.fromtimestamp(one.created_s, UTC).strftime("%Y-%m-%d %H:%M")
        what, verdict = subject_of(one), f"{one.verdict.replace('_', ' ')} {corrections_of(one)}".strip()
        print(f"{one.id[:12]}  {when}  by {one.contributor[:8]}  {grades[one.id]:<8}  {what}: {verdict}")
        if one.comment:
            print(f"              comment: {one.comment!r}")
    print(f"{len(waiting)} wait for a review.")


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
        for one in pending_erasures(feedback.store):
            reason = (feedback.publisher.finish_erasures(one.contributor, 600)[0] if feedback.publisher is not None else "") or reason
        left = len(pending_erasures(feedback.store))
    print(f"{waiting - left} of {waiting} erasures were finished on the Hub.{' ' + reason if reason else ''}")
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
        f"{count} records and their batches were read {where}; {len(problems) or 'no'} {'problem' if len(problems) == 1 else 'problems'}."
    )
    return 1 if problems else 0
