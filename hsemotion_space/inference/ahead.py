"""Run an iteration in a thread of its own, a bounded number of items ahead of the consumer."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import TypeVar

Item = TypeVar("Item")


def iterate_ahead(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """Yield ``items``, in order, while a thread already makes the next ones.

    Close the generator (``contextlib.closing``) to be sure that the thread has ended.

    Args:
        items: iterated in the thread; what that raises is raised here, after the items before it.
        depth: items that may wait to be taken, at least 1.
    """
    made: SimpleQueue[tuple[Item] | BaseException | None] = SimpleQueue()
    slots, is_closed = Semaphore(depth - 1), False

    def make() -> None:
        try:
            for item in items:
                made.put((item,))
                del item  # nothing of it stays while the thread waits
                slots.acquire()
                if is_closed:
                    break
            made.put(None)
        except BaseException as error:  # noqa: BLE001  raised below
            made.put(error)

    thread = Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while (result := made.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            slots.release()
            (item,) = result
            del result
            yield item
            del item
    finally:
        is_closed = True
        slots.release()
        thread.join()
