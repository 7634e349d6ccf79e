"""Publishing: sealed batches go to the Hub from a thread of their own, nothing is lost, nothing is there twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from hsemotion_space.feedback.card import CARD, ERASED, Counts, counts_in, dataset_card, rows_of
from hsemotion_space.feedback.check import check_there
from hsemotion_space.feedback.erasure import erase_remotely, foreign_files
from hsemotion_space.feedback.pace import LONGEST_WAIT_S, Pace
from hsemotion_space.feedback.records import FeedbackError
from hsemotion_space.feedback.remote import HubFailure, Repository
from hsemotion_space.feedback.rows import Row
from hsemotion_space.feedback.status import PublishStatus
from hsemotion_space.feedback.store import Encode, FeedbackStore
from hsemotion_space.feedback.tables import Batch, tombstone_of
from hsemotion_space.hub.source import Digest

COMMIT_EVERY_S: Final = 60.0
"""A statement is pushed as soon as this has passed since the last commit: at once if it is alone, with those of a minute otherwise."""
BATCH_ROWS: Final = 100
COMMIT_BATCHES: Final = 50
COMMIT_BYTES: Final = 64 * 2**20
TICK_S: Final = 1.0
ERASE_TIMEOUT_S: Final = 10.0
TRIED, COMMITTED = "publish.tried_s", "publish.committed_s"
UNKNOWN_FILES: Final = "publish.unknown_files"
"""Note that says whether the repository had files at first contact that the database did not know: ``yes``, ``no``, empty before."""


def _asked_s(error: FeedbackError) -> float:
    """Return how long the Hub asked to be left alone."""
    return error.wait_s if isinstance(error, HubFailure) else 0.0


class Publisher:
    """Seals what may be published and pushes it, at most one commit a minute, and finishes erasures on the Hub.

    After :meth:`start` it does so by itself; without, every :meth:`step` does what is due.

    Args:
        store: where the records are.
        repo: ``owner/name`` of a dataset repository; made, private, if there is none.
        token: of somebody who may write there; appears in no message.
        encode: makes the bytes of a batch.
        texts: consent texts by version, for the card.
        clock: UTC in seconds since 1970.

    Raises:
        FeedbackError: if the name of the repository or the token cannot be one.
    """

    def __init__(
        self,
        store: FeedbackStore,
        repo: str,
        token: str,
        encode: Encode,
        texts: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._encode, self._texts, self._clock = store, encode, texts, clock
        self._remote = Repository(repo, token)
        self._pace = Pace()
        self._error = ""
        self._timeout_s = 0.0
        self._trying: list[Batch] = []
        self._unverified = [batch for batch in store.batches(pushed=True) if not batch.verified_s and not batch.stale]
        self.searched_out: Collection[str] = ()  # contributors, as in ``Erased``, of whom rows were erased that the store did not know
        self._busy = threading.Lock()
        self._stopping, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="feedback-publisher", daemon=True)

    def start(self) -> None:
        """Publish from now on in a thread that does not keep the program from ending."""
        self._thread.start()

    def stop(self, deadline_s: float = 8.0) -> None:
        """Push what waits, for at most so long; what is not pushed then stays in the store for the next start."""
        self._timeout_s = deadline_s
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is None:
            self._thread.start()
        self._thread.join(deadline_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._step_safely(last=False)
            self._wake.wait(TICK_S)
        self._step_safely(last=True)

    def _step_safely(self, *, last: bool) -> None:
        """Do a step; a fault of this program is shown in the status and does not end the thread."""
        try:
            self.step(last=last)
        except Exception as error:  # noqa: BLE001
            self._failed(f"Publishing met a fault of this program ({type(error).__name__}).", 0.0)

    def flush(self) -> PublishStatus:
        """Publish everything that waits, at once, and return how it went."""
        while self.step(last=True):
            pass
        return self.status()

    def status(self) -> PublishStatus:
        """Return how publishing goes."""
        counts = self._store.counts()
        return PublishStatus(
            repo=self._remote.repo,
            saved=counts["received"],
            sealed=counts["sealed"],
            published=counts["pushed"] + counts["verified"],
            last_commit_s=self._noted(COMMITTED),
            error=self._error,
            breaker=self._pace.breaker(self._clock()),
            next_try_s=self._pace.next_try_s,
            erasures=len(self._store.pending_erasures()),
        )

    def settle(self, wait_s: float) -> str:
        """Finish the pending erasures on the Hub, and return why this did not succeed, empty if it did.

        Args:
            wait_s: after so long the answer is that it goes on.
        """
        reasons = []
        worker = threading.Thread(target=lambda: reasons.append(self._settle()), name="feedback-erasure", daemon=True)
        worker.start()
        worker.join(wait_s)
        return reasons[0] if reasons else "the Hub takes long to answer"

    def _settle(self) -> str:
        with self._busy:
            try:
                with self._store.turn() as mine, self._remote.session(ERASE_TIMEOUT_S):
                    if mine:
                        self._erase()
                        self._verify()
            except FeedbackError as error:
                self._failed(str(error), _asked_s(error))
                return str(error)
        return ""

    def find(self, pseudonym: str) -> Sequence[Row]:
        """Return the published rows of a contributor in files that the store does not know, because its database was lost once.

        Args:
            pseudonym: the published one.

        Raises:
            FeedbackError: if the Hub does not answer as it should.
        """
        if self._store.get_meta(UNKNOWN_FILES) == "no":
            return []
        with self._busy, self._remote.session(ERASE_TIMEOUT_S):
            head = self._remote.head()
            paths = foreign_files(self._store, self._remote, head) if head else []
            return [row for path in paths for row in rows_of(self._remote.read(path, head)) if row.contributor == pseudonym]

    def check(self) -> list[str]:
        """Read everything that is published again and return what is wrong with it.

        Raises:
            FeedbackError: if the Hub does not answer as it should.
        """
        with self._busy, self._remote.session(self._timeout_s):
            return check_there(self._store, self._remote)

    def step(self, *, last: bool = False) -> bool:
        """Do what is due: finish erasures, seal, push, read back.

        Args:
            last: do it even if it is too early for the next commit or try.

        Returns:
            Whether batches were committed.
        """
        with self._busy:
            now_s = self._clock()
            if not last and not self._pace.allows(now_s):
                return False
            try:
                with self._store.turn() as mine:
                    return mine and self._work(now_s, last)
            except FeedbackError as error:
                self._failed(str(error), _asked_s(error))
                return False

    def _failed(self, error: str, asked_s: float) -> None:
        self._error = error
        self._pace.failed(self._clock(), asked_s)
        trying, self._trying = self._trying, []
        for batch in trying:
            self._store.mark_failed(batch.id, error, self._pace.next_try_s)

    def _work(self, now_s: float, last: bool) -> bool:
        erasing = bool(self._store.pending_erasures())
        self._trying = self._seal() if last or (self._may_commit(now_s) and self._store.waits()) else []
        made = False
        if erasing or self._trying or self._unverified:
            with self._remote.session(self._timeout_s):
                if erasing:
                    self._erase()
                made = bool(self._trying) and self._push(self._trying, last)
                self._trying = []
                self._verify()
            self._pace.succeeded()
            self._error = ""
        return made

    def _may_commit(self, now_s: float) -> bool:
        return not 0 <= now_s - self._noted(COMMITTED) < COMMIT_EVERY_S

    def _noted(self, key: str) -> float:
        return float(self._store.get_meta(key) or 0)

    def _seal(self) -> list[Batch]:
        """Return what one commit can take: batches that wait already, then new ones."""
        batches = self._store.batches(pushed=False)[:COMMIT_BATCHES]
        size = sum(len(batch.body) for batch in batches)
        while len(batches) < COMMIT_BATCHES and size < COMMIT_BYTES and (new := self._store.seal(BATCH_ROWS, self._encode)):
            batches.append(new)
            size += len(new.body)
        return batches

    def _push(self, batches: Sequence[Batch], last: bool) -> bool:
        """Commit what is not there yet; a file is never overwritten."""
        head = self._remote.head(create=True)
        if not self._store.get_meta(UNKNOWN_FILES):
            self._store.set_meta(UNKNOWN_FILES, "yes" if foreign_files(self._store, self._remote, head) else "no")
        found: dict[str, Digest] = {}
        for folder in {batch.path.rpartition("/")[0] for batch in batches}:
            found.update(self._remote.listing(folder, head))
        for batch in batches:
            if batch.path in found and found[batch.path].matches(batch.body):
                self._pushed([batch], head, self._noted(TRIED))
            elif batch.path in found:
                self._store.mark_failed(batch.id, "Another file lies in its place.", self._clock() + LONGEST_WAIT_S)
        missing = self._without_erased([batch for batch in batches if batch.path not in found], head)
        if not missing or not (last or self._may_commit(self._clock())):
            return False
        added = Counts.of([row for batch in missing for row in rows_of(batch.body)])
        counts = counts_in(self._remote, head).changed(added, Counts(), self._newcomers(missing))
        files = {batch.path: batch.body for batch in missing} | {CARD: dataset_card(self._remote.repo, counts, self._texts).encode()}
        now_s = self._clock()
        self._store.set_meta(TRIED, repr(now_s))
        oid = self._remote.commit(head, f"Add {added.records} statements in {len(missing)} files", files)
        self._pushed(missing, oid, now_s)
        return True

    def _pushed(self, batches: Collection[Batch], oid: str, when_s: float) -> None:
        self._store.set_meta(COMMITTED, repr(max(when_s, self._noted(COMMITTED))))
        for batch in batches:
            self._store.mark_pushed(batch.id, oid)
        self._trying = [batch for batch in self._trying if batch not in batches]
        self._unverified += batches

    def _newcomers(self, batches: Collection[Batch]) -> int:
        """Return how many contributors have nothing on the Hub before these batches."""
        given = {one.record.contributor for batch in batches for one in self._store.records(batch=batch.id)}
        return sum(not self._store.records(contributor=name, states=("pushed", "verified"), limit=1) for name in given)

    def _without_erased(self, batches: Sequence[Batch], head: str) -> list[Batch]:
        """Return batches without an erased row; who erased theirs elsewhere (this may be an old copy of a store) is erased here too."""
        gone = self._store.tombstones() | set(self._remote.read(ERASED, head).decode(errors="replace").split())
        clean = []
        for batch in batches:
            theirs = {one.record.contributor for one in self._store.records(batch=batch.id) if tombstone_of(one.record.id) in gone}
            for contributor in theirs:
                self._store.erase(contributor)
            if not self._store.batch(batch.id).stale:
                clean.append(batch)
        return clean

    def _verify(self) -> None:
        """Read back once what was pushed."""
        if not self._unverified:
            return
        head = self._remote.head()
        folders = {batch.path.rpartition("/")[0] for batch in self._unverified}
        found = {path: digest for folder in folders for path, digest in self._remote.listing(folder, head).items()}
        while self._unverified:
            batch = self._unverified.pop()
            if self._store.batch(batch.id).stale:
                continue
            if batch.path not in found or not found[batch.path].matches(batch.body):
                raise FeedbackError(f"{self._remote.repo} does not hold what was sent ({batch.path}).")
            self._store.mark_verified(batch.id)

    def _erase(self) -> None:
        pushed, self.searched_out = erase_remotely(self._store, self._remote, self._encode, self._texts)
        self._unverified += pushed
        self._store.set_meta(COMMITTED, repr(self._clock()))
