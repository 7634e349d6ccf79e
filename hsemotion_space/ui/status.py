"""Notices, and how far a job is, as HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from hsemotion_space.jobs import JobStatus
from hsemotion_space.ui.i18n import gettext


def notice_list(notices: Sequence[str]) -> str:
    """Return notices as an HTML list; empty for none."""
    items = "".join(f"<li>{escape(notice)}</li>" for notice in notices)
    return f"<div role='status'><ul class='notices'>{items}</ul></div>" if items else ""


def progress_bar(done: int, total: int, words: str) -> str:
    """Return a progress bar that screen readers announce; an unknown total gives a moving bar."""
    share = min(100, math.floor(100 * done / total)) if total else 0
    values = f"aria-valuemin='0' aria-valuemax='{total}' aria-valuenow='{done}'" if total else ""
    inner = f"<div style='width:{share}%'></div>" if total else "<div class='moving'></div>"
    label = escape(words)
    return (
        f"<div class='progress'><div class='bar' role='progressbar' aria-label='{label}'"
        f" {values}>{inner}</div><p aria-live='polite'>{label}</p></div>"
    )


def job_progress(status: JobStatus) -> str:
    """Return the progress bar of a job that waits or runs."""
    if status.state == "queued" and status.ahead:
        return progress_bar(0, 0, _waiting(status.ahead, status.wait_s))
    if status.phase == "download":
        done = (
            f"{status.done / 1e6:.1f} / {status.total / 1e6:.1f}"
            if status.total
            else f"{status.done / 1e6:.1f}"
        )
        return progress_bar(
            status.done, status.total, gettext("Downloading the weights: {done} MB", done=done)
        )
    if not status.total:
        return progress_bar(0, 0, gettext("Starting…"))
    return progress_bar(
        status.done,
        status.total,
        gettext("{done} of about {total} frames", done=status.done, total=status.total),
    )


def _waiting(ahead: int, seconds: int | None) -> str:
    if seconds is None:
        one = gettext("Waiting for 1 earlier analysis…")
        return one if ahead == 1 else gettext("Waiting for {number} earlier analyses…", number=ahead)
    one = gettext("Waiting for 1 earlier analysis, about {seconds} s…", seconds=seconds)
    return (
        one
        if ahead == 1
        else gettext(
            "Waiting for {number} earlier analyses, about {seconds} s…", number=ahead, seconds=seconds
        )
    )
