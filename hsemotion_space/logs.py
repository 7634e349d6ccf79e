"""Logs of the server: JSON lines, or text on a terminal; nothing in them comes from a visitor."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import Final

EVENTS: Final = logging.getLogger("hsemotion_space.events")
"""One record per job and per refusal; whoever counts them adds a handler."""
EVENT_FIELDS: Final = frozenset(
    {
        "kind",
        "state",
        "code",
        "checkpoints",
        "faces",
        "frames",
        "waited_s",
        "ran_s",
        "where",
        "method",
        "status",
    }
)
"""What an event may hold. Whatever a visitor can choose has no field: ids, names, addresses, texts."""


def log_event(name: str, /, level: int = logging.INFO, **values: str | float) -> None:
    """Log what happened.

    Args:
        name: of the event: ``job`` or ``refusal``.
        level: events below INFO are counted but not written.
        values: by the names of ``EVENT_FIELDS``; empty texts are left out.

    Raises:
        ValueError: if a value has no field.
    """
    if unknown := values.keys() - EVENT_FIELDS:
        raise ValueError(f"events have no field {', '.join(sorted(unknown))}")
    EVENTS.log(level, name, extra={"event": {key: value for key, value in values.items() if value != ""}})


def origin_of(error: BaseException) -> str:
    """Return the kind and the origin of an error; its own text may hold names of files."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].name}, line {frames[-1].lineno} of {frames[-1].filename.rpartition('/')[2]}"
    return type(error).__name__ + (place if frames else "")


def install_logs() -> None:
    """Write the log of this process to standard error, in place of every other format."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.INFO)
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("hsemotion_space").setLevel(logging.INFO)
    EVENTS.setLevel(logging.DEBUG)
    logging.captureWarnings(True)


class JsonFormatter(logging.Formatter):
    """One JSON object per record, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line: time, level and logger, then an event with its values, or a message."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        event = getattr(record, "event", None)
        line |= {"message": record.getMessage()} if event is None else {"event": record.msg, **event}
        if record.exc_info and record.exc_info[1]:
            line["error"] = origin_of(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        event: dict[str, object] = getattr(record, "event", {})
        text = " ".join([record.getMessage(), *(f"{key}={value}" for key, value in event.items())])
        if record.exc_info and record.exc_info[1]:
            text += f" ({origin_of(record.exc_info[1])})"
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{clock} {record.levelname.lower()}: {text}".replace("\n", "\\n").replace("\r", "\\r")
