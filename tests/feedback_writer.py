"""A process that writes feedback and prints a line per acknowledged record; it is killed, traced or denied
its disk.

feedback_writer.py URL threads SEED     three threads write and one seals until the process is killed
feedback_writer.py URL count N          N records, one after the other; what fails is tried again
feedback_writer.py URL file-limit N     up to N records with crops, with a limit on the size of files that is
lifted in the end"""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace

from feedback_makers import hash_of, make_crop, make_record

from hsemotion_space.feedback.record import FeedbackError, FeedbackRecord
from hsemotion_space.feedback.store import FeedbackStore

FILE_LIMIT = 400_000
TRIES = 20


def say(*words: object) -> None:
    """Print a line in one system call, so that no line is half there."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def encode(stored: Sequence[FeedbackRecord]) -> bytes:
    return b"\n".join(one.id.encode() for one in stored)


def write_for_ever(store: FeedbackStore, contributor: str) -> None:
    number = 0
    while True:
        number += 1
        ack = store.add(
            replace(
                make_record(number % 40, contributor=contributor, comment=str(number)),
                crop=make_crop(number % 7, 16),
            )
        )
        say("ack", ack.id)


def threads(url: str, seed: str) -> None:
    store = FeedbackStore(url)
    for name in range(3):
        threading.Thread(target=write_for_ever, args=[store, hash_of(f"{seed} {name}")]).start()
    while True:
        store.create_batch(25, encode)


def patiently_open(url: str) -> FeedbackStore:
    for _ in range(TRIES):
        try:
            return FeedbackStore(url)
        except FeedbackError as error:
            say("failed", error)
    raise SystemExit("cannot be opened")


def count(url: str, records: int) -> None:
    store = patiently_open(url)
    for number in range(records):
        for _ in range(TRIES):
            try:
                say("ack", store.add(replace(make_record(number), crop=make_crop(number))).id)
                break
            except FeedbackError as error:
                say("failed", error)
    say("done")


def file_limit(url: str, records: int) -> None:
    store = FeedbackStore(url)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, hard))
    for number in range(records):
        try:
            say("ack", store.add(replace(make_record(number), crop=make_crop(number, 64))).id)
        except FeedbackError as error:
            say("failed", error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    say("ack", store.add(replace(make_record(records), crop=make_crop(records))).id)
    say("done")


if __name__ == "__main__":
    address, mode, value = sys.argv[1:]
    if mode == "threads":
        threads(address, value)
    elif mode == "count":
        count(address, int(value))
    else:
        file_limit(address, int(value))
