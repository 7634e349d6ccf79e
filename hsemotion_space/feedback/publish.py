"""Publishing: a thread pushes sealed batches to the Hub; none is lost, none is published twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from hsemotion_space.feedback.backoff import Backoff
from hsemotion_space.feedback.card import CARD, dataset_card
from hsemotion_space.feedback.dataset import encode
from hsemotion_space.feedback.erase import erase_on_hub, pending_erasures
from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.feedback.repository import Repository, RepositoryError
from hsemotion_space.feedback.status import PublishStatus
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.sync import HEAD, restore, verify_dataset
from hsemotion_space.feedback.tables import Batch
from hsemotion_space.hub.source import Digest
from hsemotion_space.messages import Message

COMMIT_EVERY_S: Final = 60.0
"""A statement is pushed as soon as this has passed since the last commit: at once if it is alone, with those
of a minute otherwise."""
BATCH_ROWS: Final = 100
COMMIT_BATCHES: Final = 50
COMMIT_BYTES: Final = 64 * 2**20
TICK_S: Final = 1.0
ERASE_TIMEOUT_S: Final = 10.0
ERASE_WAIT_S: Final = 20.0
TRIED, COMMITTED = "publish.tried_s", "publish.committed_s"


def _retry_after_s(error: FeedbackError) -> float:
    """Return how long the Hub asked to be left alone."""
    return error.wait_s if isinstance(error, RepositoryError) else 0.0


class Publisher:
    """Restores rows from the Hub, pushes sealed batches at most once a minute, completes erasures there.

    After :meth:`start` it does so by itself; without, every :meth:`step` does what is due.

    Args:
        store: where the records are.
        repo: ``owner/name`` of a dataset repository; made, private, if there is none.
        token: of somebody who may write there; appears in no message.
        texts: consent texts by version, for the card.
        clock: UTC in seconds since 1970.

    Attributes:
        restored: whether the database knows everything that the Hub had when this publisher first met it.

    Raises:
        FeedbackError: if the name of the repository or the token cannot be one.
    """

    def __init__(
        self,
        store: FeedbackStore,
        repo: str,
        token: str,
        texts: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._texts, self._clock = store, texts, clock
        self._remote = Repository(repo, token)
        self._pushes, self._erasures = Backoff(), Backoff()
        self._erase_tries, self._erased_there = 0, set[str]()
        self._timeout_s = 0.0
        self._unverified = store.unverified()
        self.restored = self._restoring = False
        self._busy = threading.Lock()
        self._stopping, self._wake, self._urgent = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="feedback-publisher", daemon=True)
        self._helper = self._thread

    def start(self) -> None:
        """Publish from now on in a thread that does not keep the program from ending."""
        self._thread.start()

    def stop(self, deadline_s: float = 8.0) -> None:
        """Push waiting batches within a time limit; the rest stays in the store for the next start."""
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
            words = Message(
                "Publishing failed because of a program error ({error}).", error=type(error).__name__
            )
            self._pushes.failed(words, self._clock(), 0.0)
            self._erase_failed(words, 0.0)

    def flush(self) -> PublishStatus:
        """Publish everything that waits, at once, and return how it went."""
        while self.step(last=True) or self._restoring:
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
            error=self._pushes.error or self._erasures.error,
            next_try_s=self._pushes.next_try_s or self._erasures.next_try_s,
            erasures=len(pending_erasures(self._store)),
        )

    def finish_erasures(self, key: str, wait_s: float = ERASE_WAIT_S) -> tuple[str, bool]:
        """Try to finish the pending erasures on the Hub.

        Args:
            key: ``PendingErasure.contributor``; of whom the erasure is waited for.
            wait_s: after so long the answer is that it goes on.

        Returns:
            Why it did not succeed, empty if it did; and whether the Hub had something of theirs.
        """
        tries, until_s = self._erase_tries, time.monotonic() + wait_s
        self._urgent.set()
        self._wake.set()
        while any(erasure.contributor == key for erasure in pending_erasures(self._store)):
            self._help()
            if self._erase_tries != tries:
                return self._erasures.error, False
            if time.monotonic() > until_s:
                return Message("The Hub is slow to answer."), False
            time.sleep(0.02)
        return "", key in self._erased_there

    def _help(self) -> None:
        """Run a step in a thread, if none runs; a running one may be past the erasures and miss a new one."""
        if self._urgent.is_set() and not self._thread.is_alive() and not self._helper.is_alive():
            self._helper = threading.Thread(
                target=self._step_safely, kwargs={"last": False}, name="feedback-erasure", daemon=True
            )
            self._helper.start()

    def check(self) -> list[str]:
        """Read everything that is published again and return what is wrong with it.

        Raises:
            FeedbackError: if the Hub does not answer as it should.
        """
        with self._busy, self._remote.session(self._timeout_s):
            return verify_dataset(self._store, self._remote)

    def step(self, *, last: bool = False) -> bool:
        """Do what is due: restore, finish erasures, seal, push, read back.

        Args:
            last: do it even if it is too early for the next commit or try.

        Returns:
            Whether batches were committed.
        """
        with self._busy:
            now_s, self._restoring = self._clock(), False
            urgent = self._urgent.is_set()
            self._urgent.clear()
            may_push = last or self._pushes.allows(now_s)
            erase = (last or urgent or self._erasures.allows(now_s)) and bool(pending_erasures(self._store))
            push = may_push and (last or self._may_commit(now_s)) and self._store.has_pending()
            if not (erase or push or (may_push and (self._unverified or not self.restored))):
                return False
            try:
                with (
                    self._store.publish_lock() as acquired,
                    self._remote.session(ERASE_TIMEOUT_S if urgent else self._timeout_s),
                ):
                    if not acquired:
                        self._erase_tries += 1
                        return False
                    return self._work(last, push=push, erase=erase)
            except FeedbackError as error:
                self._restoring = False
                if erase:
                    self._erase_failed(error.message, _retry_after_s(error))
                self._pushes.failed(error.message, self._clock(), _retry_after_s(error))
                return False

    def _erase_failed(self, error: str, retry_after_s: float) -> None:
        self._erasures.failed(error, self._clock(), retry_after_s)
        self._erase_tries += 1

    def _work(self, last: bool, *, push: bool, erase: bool) -> bool:
        if erase or not self.restored:
            head = self._remote.head()
            self._restore(head)
            if erase:
                self._erase(head)
        made = push and self.restored and self._push(last)
        self._verify()
        if push or not erase:
            self._pushes.succeeded()
        return made

    def _restore(self, head: str) -> None:
        self.restored = restore(self._store, self._remote, head)
        self._restoring = not self.restored

    def _may_commit(self, now_s: float) -> bool:
        return not 0 <= now_s - self._noted(COMMITTED) < COMMIT_EVERY_S

    def _noted(self, key: str) -> float:
        return float(self._store.get_meta(key) or 0)

    def _next_batches(self) -> list[Batch]:
        """Return what one commit can take: batches that wait already, then new ones.

        What is to take the place of a file with erased rows waits until that is done, or rows would be there
        twice.
        """
        held = {
            self._store.latest_replacement(name)
            for erasure in pending_erasures(self._store)
            for name in erasure.batches
        }
        batches = [batch for batch in self._store.batches(pushed=False) if batch.id not in held][
            :COMMIT_BATCHES
        ]
        size = sum(len(batch.body) for batch in batches)
        while (
            len(batches) < COMMIT_BATCHES
            and size < COMMIT_BYTES
            and (new := self._store.create_batch(BATCH_ROWS, encode))
        ):
            batches.append(new)
            size += len(new.body)
        return batches

    def _push(self, last: bool) -> bool:
        """Commit what is not there yet; a file is never overwritten."""
        head = self._remote.head(create=True)
        self._restore(head)
        if not self.restored or not (batches := self._next_batches()):
            return False
        found: dict[str, Digest] = {}
        for folder in {batch.path.rpartition("/")[0] for batch in batches}:
            found.update(self._remote.listing(folder, head))
        for batch in batches:
            if batch.path in found and found[batch.path].matches(batch.body):
                self._pushed([batch], head, self._noted(TRIED))
        taken = [
            batch.path
            for batch in batches
            if batch.path in found and not found[batch.path].matches(batch.body)
        ]
        missing = [batch for batch in batches if batch.path not in found]
        if missing and (last or self._may_commit(self._clock())):
            self._commit(missing, head)
        else:
            missing = []
        if taken:
            raise FeedbackError("{path} already holds another file.", code="path_taken", path=taken[0])
        return bool(missing)

    def _commit(self, batches: Sequence[Batch], head: str) -> None:
        card = dataset_card(
            self._remote.repo, self._store.published([batch.id for batch in batches]), self._texts
        )
        now_s = self._clock()
        self._store.set_meta(TRIED, repr(now_s))
        message = f"Add {sum(batch.rows for batch in batches)} statements in {len(batches)} files"
        oid = self._remote.commit(
            head, message, {**{batch.path: batch.body for batch in batches}, CARD: card.encode()}
        )
        self._pushed(batches, oid, now_s)
        self._store.set_meta(HEAD, oid)

    def _pushed(self, batches: Collection[Batch], oid: str, when_s: float) -> None:
        noted = self._noted(COMMITTED)
        self._store.set_meta(COMMITTED, repr(max(when_s, noted) if noted <= self._clock() else when_s))
        for batch in batches:
            self._store.mark_pushed(batch.id, oid)
        self._unverified += batches

    def _verify(self) -> None:
        """Read back once what was pushed."""
        if not self._unverified:
            return
        head = self._remote.head()
        folders = {batch.path.rpartition("/")[0] for batch in self._unverified}
        found = {
            path: digest for folder in folders for path, digest in self._remote.listing(folder, head).items()
        }
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
            raise FeedbackError(
                "{repo} does not contain the uploaded bytes of {path}.",
                code="hub_differs",
                repo=self._remote.repo,
                path=wrong[0].path,
            )

    def _erase(self, head: str) -> None:
        """Finish the pending erasures; if that fails, publishing goes on all the same."""
        try:
            if not self.restored:
                raise FeedbackError(
                    "{repo} is still being restored to this server.", code="restoring", repo=self._remote.repo
                )
            keys = {erasure.contributor for erasure in pending_erasures(self._store) if erasure.batches}
            pushed, oid = erase_on_hub(self._store, self._remote, self._texts, head)
        except FeedbackError as error:
            self._erase_failed(error.message, _retry_after_s(error))
            return
        self._erased_there |= keys
        self._unverified += pushed
        if oid:
            self._store.set_meta(COMMITTED, repr(self._clock()))
        self._erasures.succeeded()
        self._erase_tries += 1
