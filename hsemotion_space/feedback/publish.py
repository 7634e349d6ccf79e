"""Publishing: sealed batches go to the Hub from a thread of their own, nothing is lost, nothing is there twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from hsemotion_space.feedback.card import CARD, ERASED, Counts, counts_in, dataset_card, rows_of
from hsemotion_space.feedback.check import check_there
from hsemotion_space.feedback.erasure import erase_remotely
from hsemotion_space.feedback.pace import LONGEST_WAIT_S, Pace, is_time
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
LEARN_S: Final = 5.0
LOOK_S: Final = 5.0  # so long somebody who asks what the Hub has waits for other work there
TRIED, COMMITTED = "publish.tried_s", "publish.committed_s"
HEAD: Final = "publish.head"
"""Note with the newest commit whose files the database knows, those of others included."""


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
        self._pace, self._erase_pace = Pace(), Pace()
        self._error, self._erase_error = "", ""
        self._erase_tries = 0
        self._timeout_s = 0.0
        self._trying: list[Batch] = []
        self._unverified = store.unverified()
        self.knows = False  # whether the database knows the files that the Hub had when this publisher first met it
        self.found_there: set[str] = set()  # contributors, as in ``Erased``, of whom rows were erased that the database did not have
        self._busy = threading.Lock()
        self._stopping, self._wake, self._urgent = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="feedback-publisher", daemon=True)
        self._helper = self._thread

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
            self._wake.clear()
        self._step_safely(last=True)

    def _step_safely(self, *, last: bool) -> None:
        """Do a step; a fault of this program is shown in the status and does not end the thread."""
        try:
            self.step(last=last)
        except Exception as error:  # noqa: BLE001
            self._note_fault(f"Publishing met a fault of this program ({type(error).__name__}).")

    def _note_fault(self, words: str) -> None:
        self._error = self._erase_error = words
        self._erase_tries += 1
        try:
            self._failed(words, 0.0)
        except Exception:  # noqa: BLE001  the database may be what fails
            self._pace.failed(self._clock(), 0.0)

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
            error=self._error or self._erase_error,
            breaker=self._pace.breaker(self._clock()),
            next_try_s=self._pace.next_try_s or self._erase_pace.next_try_s,
            erasures=len(self._store.pending_erasures()),
        )

    def settle(self, contributor: str, wait_s: float) -> str:
        """Try to finish the pending erasures on the Hub, and return why one did not succeed, empty if it did.

        Args:
            contributor: as in ``Erased``; of whom the erasure is waited for.
            wait_s: after so long the answer is that it goes on.
        """
        tries, until_s = self._erase_tries, time.monotonic() + wait_s
        self._urgent.set()
        self._wake.set()
        if not self._thread.is_alive() and not self._helper.is_alive():
            self._helper = threading.Thread(target=self._step_safely, kwargs={"last": False}, name="feedback-erasure", daemon=True)
            self._helper.start()
        while any(one.contributor == contributor for one in self._store.pending_erasures()):
            if self._erase_tries != tries:
                return self._erase_error
            if time.monotonic() > until_s:
                return "the Hub takes long to answer"
            time.sleep(0.02)
        return ""

    def find(self, pseudonym: str) -> Sequence[Row]:
        """Return the published rows of a contributor in files that the store does not know, because its database was lost once.

        Args:
            pseudonym: the published one.

        Raises:
            FeedbackError: if the Hub must be asked and does not answer as it should.
        """
        paths = sorted(self._store.foreign_paths(tombstone_of(pseudonym)))
        if self.knows and not paths:
            return []
        if not self.knows or not self._busy.acquire(timeout=LOOK_S):
            raise FeedbackError("What is published could not be looked up at the moment; please try again in a minute.")
        try:
            with self._remote.session(ERASE_TIMEOUT_S):
                head = self._remote.head()
                return [row for path in paths for row in rows_of(self._remote.read(path, head)) if row.contributor == pseudonym]
        finally:
            self._busy.release()

    def check(self) -> list[str]:
        """Read everything that is published again and return what is wrong with it.

        Raises:
            FeedbackError: if the Hub does not answer as it should.
        """
        with self._busy, self._remote.session(self._timeout_s):
            return check_there(self._store, self._remote)

    def step(self, *, last: bool = False) -> bool:
        """Do what is due: learn what is there, finish erasures, seal, push, read back.

        Args:
            last: do it even if it is too early for the next commit or try.

        Returns:
            Whether batches were committed.
        """
        with self._busy:
            now_s = self._clock()
            urgent = self._urgent.is_set()
            self._urgent.clear()
            may_push = last or self._pace.allows(now_s)
            erase = (last or urgent or self._erase_pace.allows(now_s)) and bool(self._store.pending_erasures())
            push = may_push and (last or (self._may_commit(now_s) and self._store.waits()))
            if not (erase or push or (may_push and (self._unverified or not self.knows))):
                return False
            try:
                with self._store.turn() as mine, self._remote.session(ERASE_TIMEOUT_S if urgent else self._timeout_s):
                    if not mine:
                        self._erase_tries += 1
                        return False
                    return self._work(now_s, last, push=push, erase=erase)
            except FeedbackError as error:
                if erase:
                    self._erase_failed(str(error), _asked_s(error))
                self._failed(str(error), _asked_s(error))
                return False

    def _failed(self, error: str, asked_s: float) -> None:
        self._error = error
        self._pace.failed(self._clock(), asked_s)
        trying, self._trying = self._trying, []
        for batch in trying:
            self._store.mark_failed(batch.id, error, self._pace.next_try_s)

    def _erase_failed(self, error: str, asked_s: float) -> None:
        self._erase_error = error
        self._erase_pace.failed(self._clock(), asked_s)
        self._erase_tries += 1

    def _work(self, now_s: float, last: bool, *, push: bool, erase: bool) -> bool:
        if not self.knows:
            self.knows = self._learn(self._remote.head())
        if erase:
            self._erase()
        made = False
        self._trying = self._seal(now_s, last) if push else []
        if self._trying:
            made = self._push(self._trying, last)
            self._trying = []
        self._verify()
        if push or not erase:
            self._pace.succeeded()
            self._error = ""
        return made

    def _learn(self, head: str) -> bool:
        """Let the database know all files as of a commit, and what was erased elsewhere; return whether it does.

        After the loss of a disk that are many files, so this goes on for ``LEARN_S`` at a time, and publishing is not held up.
        """
        if not head or head == self._store.get_meta(HEAD):
            return True
        self._store.bury(self._remote.read(ERASED, head).decode(errors="replace").split())
        there = {path for path in self._remote.listing("data", head, recursive=True) if path.endswith(".parquet")}
        there, indexed = there - self._store.batch_paths(), self._store.foreign_paths()
        self._store.forget_foreign(indexed - there)
        until_s = time.monotonic() + LEARN_S
        for path in sorted(there - indexed, reverse=True):
            if time.monotonic() > until_s:
                return False
            self._store.index_foreign(path, [(row.id, row.contributor) for row in rows_of(self._remote.read(path, head))])
        self._store.claim_published()
        self._store.set_meta(HEAD, head)
        return True

    def _may_commit(self, now_s: float) -> bool:
        return not 0 <= now_s - self._noted(COMMITTED) < COMMIT_EVERY_S

    def _noted(self, key: str) -> float:
        return float(self._store.get_meta(key) or 0)

    def _seal(self, now_s: float, last: bool) -> list[Batch]:
        """Return what one commit can take: batches that wait already, then new ones.

        What is to take the place of a file with erased rows waits until that is done, or rows would be there twice.
        """
        held = {self._store.last_of(name) for one in self._store.pending_erasures() for name in one.batches}
        waiting = [batch for batch in self._store.batches(pushed=False) if last or is_time(batch.next_try_s, now_s)]
        batches = [batch for batch in waiting if batch.id not in held][:COMMIT_BATCHES]
        size = sum(len(batch.body) for batch in batches)
        while len(batches) < COMMIT_BATCHES and size < COMMIT_BYTES and (new := self._store.seal(BATCH_ROWS, self._encode)):
            batches.append(new)
            size += len(new.body)
        return batches

    def _push(self, batches: Sequence[Batch], last: bool) -> bool:
        """Commit what is not there yet; a file is never overwritten."""
        head = self._remote.head(create=True)
        self.knows = self._learn(head)
        found: dict[str, Digest] = {}
        for folder in {batch.path.rpartition("/")[0] for batch in batches}:
            found.update(self._remote.listing(folder, head))
        for batch in batches:
            if batch.path in found and found[batch.path].matches(batch.body):
                self._pushed([batch], head, self._noted(TRIED))
            elif batch.path in found:
                self._store.mark_failed(batch.id, "Another file lies in its place.", self._clock() + LONGEST_WAIT_S)
        missing = self._without_erased([batch for batch in batches if batch.path not in found])
        if not missing or not (last or self._may_commit(self._clock())):
            return False
        added = Counts.of([row for batch in missing for row in rows_of(batch.body)])
        counts = counts_in(self._remote, head).changed(added, Counts(), self._newcomers(missing))
        files = {batch.path: batch.body for batch in missing} | {CARD: dataset_card(self._remote.repo, counts, self._texts).encode()}
        now_s = self._clock()
        self._store.set_meta(TRIED, repr(now_s))
        oid = self._remote.commit(head, f"Add {added.records} statements in {len(missing)} files", files)
        self._pushed(missing, oid, now_s)
        if self.knows:
            self._store.set_meta(HEAD, oid)
        return True

    def _pushed(self, batches: Collection[Batch], oid: str, when_s: float) -> None:
        noted = self._noted(COMMITTED)
        self._store.set_meta(COMMITTED, repr(max(when_s, noted) if noted <= self._clock() else when_s))
        for batch in batches:
            self._store.mark_pushed(batch.id, oid)
        self._trying = [batch for batch in self._trying if batch not in batches]
        self._unverified += batches

    def _newcomers(self, batches: Collection[Batch]) -> int:
        """Return how many contributors have nothing on the Hub before these batches."""
        given = {one.record.contributor for batch in batches for one in self._store.records(batch=batch.id)}
        return sum(not self._store.records(contributor=name, states=("pushed", "verified"), limit=1) for name in given)

    def _without_erased(self, batches: Sequence[Batch]) -> list[Batch]:
        """Return batches without an erased row, which may have been erased elsewhere: this may be an old copy of a store."""
        gone = self._store.tombstones()
        for batch in batches:
            erased = [one.record.id for one in self._store.records(batch=batch.id) if tombstone_of(one.record.id) in gone]
            if erased:
                self._store.erase_records(erased)
        return [batch for batch in batches if not self._store.batch(batch.id).stale]

    def _verify(self) -> None:
        """Read back once what was pushed."""
        if not self._unverified:
            return
        head = self._remote.head()
        folders = {batch.path.rpartition("/")[0] for batch in self._unverified}
        found = {path: digest for folder in folders for path, digest in self._remote.listing(folder, head).items()}
        wrong = []
        for batch in self._unverified:
            if self._store.batch(batch.id).stale:
                continue
            if batch.path in found and found[batch.path].matches(batch.body):
                self._store.mark_verified(batch.id)
            else:
                wrong.append(batch)
        self._unverified = wrong
        if wrong:
            raise FeedbackError(f"{self._remote.repo} does not hold what was sent ({wrong[0].path}).")

    def _erase(self) -> None:
        """Finish the pending erasures; if that fails, publishing goes on all the same."""
        try:
            head = self._remote.head()
            self.knows = self._learn(head)
            if not self.knows:
                raise FeedbackError(f"{self._remote.repo} is still being read, as the disk of this server was emptied")
            aliased = {one.contributor: one.alias for one in self._store.pending_erasures() if one.alias}
            self.found_there = {contributor for contributor, alias in aliased.items() if self._store.foreign_paths(alias)}
            pushed, oid = erase_remotely(self._store, self._remote, self._encode, self._texts, head)
        except FeedbackError as error:
            self._erase_failed(str(error), _asked_s(error))
            return
        self._unverified += pushed
        if oid:
            self._store.set_meta(COMMITTED, repr(self._clock()))
        self._erase_pace.succeeded()
        self._erase_error = ""
        self._erase_tries += 1
