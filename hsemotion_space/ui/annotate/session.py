"""Where an annotator is: the queue, what was answered, what was shown.

Kept here and not in the browser; no picture is in it.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hsemotion_space.feedback.annotation import AgreementCount, Answer
from hsemotion_space.traces import Trace
from hsemotion_space.ui.annotate.items import Item, Key

MOST_SESSIONS: Final = 500
MOST_REMEMBERED: Final = 5000
"""Things of one session whose prediction was shown; beyond that no answer of it is blind."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one item.

    Attributes:
        answer: None if it was skipped.
        record: id of what was kept, empty if nothing was.
        code: receipt code that it was kept under.
        with_known, with_others: whether the answer is the known one and that of the others; None if there is
            none.
        lines: what the annotator is told about it: term and text.
    """

    answer: Answer | None
    record: str = ""
    code: str = ""
    with_known: bool | None = None
    with_others: bool | None = None
    lines: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Session:
    """One annotator at one page; who changes it holds ``lock``.

    Attributes:
        items: the queue.
        at: index of the item that is shown; the length of the queue at its end.
        entries: by index.
        path: indices in the order in which they were dealt with, for undoing.
        replaced: by what it is about, the record of an answer that was undone too late to be taken back.
        revealed: things whose prediction or known answer was shown.
        shown: digests of media whose results the page shows elsewhere.
        turn: rises with everything that happens, so that nothing is done twice.
        code: receipt code; empty before the first answer is kept.
        hides: whether predictions are hidden until the answer.
        pad: whether the plane is asked for too.
        dimension: what is traced while clips play; empty if faces are labeled.
        bounded: whether traces have the scale -1 to 1.
        passes: traces of the item that is shown, by attempt.
        notice: what must be said with the item that is shown.
        todo: files to be analyzed still.
        running: jobs to wait for.
        finished: jobs whose items come into the queue, in the order of their sources.
        made: by file and checkpoint, the job that analyzes or analyzed it.
        problems: why files could not be analyzed.
        checkpoint: that analyzes them.
        client: the network that asked for that.
    """

    items: tuple[Item, ...] = ()
    at: int = 0
    entries: dict[int, Entry] = field(default_factory=dict)
    path: list[int] = field(default_factory=list)
    replaced: dict[Key, str] = field(default_factory=dict)
    revealed: set[Key] = field(default_factory=set)
    shown: set[str] = field(default_factory=set)
    turn: int = 0
    code: str = ""
    hides: bool = True
    pad: bool = False
    dimension: str = ""
    bounded: bool = True
    passes: dict[str, Trace] = field(default_factory=dict)
    notice: str = ""
    todo: list[Path] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    made: dict[tuple[str, str], str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    checkpoint: str = ""
    client: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def item(self) -> Item | None:
        """What is asked now; None at the end."""
        return self.items[self.at] if self.at < len(self.items) else None

    @property
    def last(self) -> Entry | None:
        """What was dealt with last."""
        return self.entries.get(self.path[-1]) if self.path else None

    def begin(self, items: tuple[Item, ...]) -> None:
        """Start with a new queue; what was shown stays known."""
        self.items, self.at, self.entries, self.path, self.replaced, self.notice = items, 0, {}, [], {}, ""
        self.passes = {}

    def reveal(self, item: Item) -> None:
        """Note that the prediction of an item was shown, or a known answer to it."""
        if len(self.revealed) < MOST_REMEMBERED:
            self.revealed.add(item.key)

    def is_blind(self, item: Item) -> bool:
        """Return whether nothing was shown of what is predicted for an item, or known about it."""
        hidden = item.key not in self.revealed and item.media not in self.shown
        return self.hides and hidden and len(self.revealed) < MOST_REMEMBERED

    def settle(self, entry: Entry) -> None:
        """Note what became of the item that is shown, and go to the next."""
        self.entries[self.at] = entry
        self.path.append(self.at)
        self.at += 1
        self.passes = {}

    def back(self) -> Entry | None:
        """Go back to what was dealt with last, and return what became of it; None at the beginning."""
        if not self.path:
            return None
        self.at = self.path.pop()
        return self.entries.pop(self.at)

    def drop(self, job: str) -> int:
        """Take what is still to come of an analysis out of the queue; return how much that is."""
        left = tuple(item for item in self.items[self.at :] if item.job != job)
        gone = len(self.items) - self.at - len(left)
        self.items = (*self.items[: self.at], *left)
        return gone

    @property
    def counts(self) -> Mapping[str, int]:
        """How many are ``answered`` and ``skipped``, and how many are ``left``."""
        skipped = sum(entry.answer is None for entry in self.entries.values())
        return {
            "answered": len(self.entries) - skipped,
            "skipped": skipped,
            "left": len(self.items) - self.at,
        }

    @property
    def tallies(self) -> tuple[AgreementCount, AgreementCount]:
        """How often the answers were the known ones, and those of others."""
        known, others = AgreementCount(), AgreementCount()
        for entry in self.entries.values():
            known, others = known.add(entry.with_known), others.add(entry.with_others)
        return known, others


class Sessions:
    """The sessions of all pages by an unguessable key; the least recently used one is evicted."""

    def __init__(self, most: int = MOST_SESSIONS) -> None:
        self._most = most
        self._kept: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object) -> Session | None:
        """Return a session; None if there is none of this key."""
        with self._lock:
            if not isinstance(key, str) or key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]

    def make(self) -> tuple[str, Session]:
        """Return a new session and its key."""
        key, session = secrets.token_hex(16), Session()
        with self._lock:
            self._kept[key] = session
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return key, session

    def __len__(self) -> int:
        """Return the number of sessions in memory."""
        return len(self._kept)
