"""Publishing feedback through a Hub that fails in eight ways, with restarts: nothing is lost, and nothing is
there twice."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from fake_hub import FakeHub, Fault
from feedback_makers import ANNA, BEN, CARL
from feedback_publishing import REPO, PowerCutError, Server, batches_on, published_ids

from hsemotion_space.feedback import repository
from hsemotion_space.feedback.backoff import BREAK_AFTER, BREAK_S, LONGEST_WAIT_S, SHORTEST_WAIT_S, Backoff
from hsemotion_space.feedback.card import CARD, read_counts
from hsemotion_space.feedback.store import FeedbackStore

COMMIT, INFO = "/commit/main", rf"/api/datasets/{REPO}$"
KINDS: dict[str, Callable[[random.Random], Fault]] = {
    "503": lambda rng: Fault("status", rng.choice([COMMIT, "/resolve/", INFO]), status=503),
    "429": lambda rng: Fault(
        "status",
        rng.choice([COMMIT, "/resolve/"]),
        status=429,
        headers={"Retry-After": str(rng.choice([5, 90, 400]))},
    ),
    "cut": lambda rng: Fault(rng.choice(["reset", "cut"]), rng.choice([COMMIT, "/resolve/", INFO])),
    "hang": lambda rng: Fault("hang", rng.choice([COMMIT, INFO]), wait_s=rng.choice([0.05, 2.0])),
    "lost response": lambda rng: Fault("lost_response", rng.choice([COMMIT, "/lfs/"])),
    "garbage": lambda rng: Fault(
        "garbage", rng.choice([COMMIT, "preupload", "/tree/", "/resolve/", "/objects/batch"])
    ),
    "overtaken": lambda rng: Fault("status", COMMIT, status=rng.choice([409, 412])),
    "upload": lambda rng: Fault(rng.choice(["status", "reset"]), "/lfs/", "PUT", count=6),
}


@pytest.mark.parametrize("wanted", [40, pytest.param(200, marks=pytest.mark.long)])
def test_through_all_faults_and_restarts_nothing_is_lost_and_nothing_is_there_twice(
    server: Server, hub: FakeHub, wanted: int
) -> None:
    rng = random.Random(wanted)
    hits = dict.fromkeys(KINDS, 0)
    restarts = empty = 0
    while not hub.has_repo(REPO, kind="dataset") or len(batches_on(hub)) < wanted or not min(hits.values()):
        server.say(rng.randint(1, 3), rng.choice([ANNA, BEN, CARL]), crop=rng.random() < 0.2)
        kind = rng.choice(list(KINDS))
        fault = hub.fail(KINDS[kind](rng)) if rng.random() < 0.7 else None
        for _ in range(rng.randint(1, 4)):
            server.pass_time(rng.choice([5, 61, 400]))
        hub.clear_faults()
        hits[kind] += bool(fault and fault.hits)
        if rng.random() < 0.1:
            server.crash()
            restarts += 1
        elif rng.random() < 0.1 and server.publisher.flush().error == "":
            # a good end, and then the disk is lost
            server.crash(lose_disk=True)
            empty += 1
    server.drain()
    assert published_ids(hub) == dict.fromkeys(server.said, 1)
    assert restarts > 1
    assert empty > 1
    counts = read_counts(hub.files(REPO, kind="dataset")[CARD].decode())
    assert counts.records == len(server.said)
    for earlier, later in pairwise(commit.files for commit in hub.commits(REPO, kind="dataset")):
        assert later.keys() > earlier.keys()
        assert all(later[path] == body for path, body in earlier.items() if path != CARD)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_fault_alone_is_overcome(server: Server, hub: FakeHub, kind: str) -> None:
    hits = 0
    for seed in range(6):
        server.say(2)
        fault = hub.fail(KINDS[kind](random.Random(seed)))
        server.pass_time(61)
        hits += fault.hits
        hub.clear_faults()
        server.drain(2)
    assert published_ids(hub) == dict.fromkeys(server.said, 1)
    assert server.publisher.status().error == ""
    assert hits >= 3  # a repository is read only after somebody else has changed it


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("place", "name"),
    [
        (FeedbackStore, "create_batch"),
        (repository.Repository, "head"),
        (repository.Repository, "commit"),
        (FeedbackStore, "mark_pushed"),
        (FeedbackStore, "mark_verified"),
    ],
)
def test_a_crash_at_any_step_loses_and_doubles_nothing(
    server: Server, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, place: type, name: str, after: bool
) -> None:
    usual: Callable[..., object] = getattr(place, name)

    def cut(*given: object, **options: object) -> None:
        if after:
            usual(*given, **options)
        raise PowerCutError

    for _ in range(3):
        server.say(2)
        server.clock.now_s += 61
        with monkeypatch.context() as patch, pytest.raises(PowerCutError):
            patch.setattr(place, name, cut)
            server.publisher.step()
        server.crash()
    server.say(1)
    server.drain(1)
    assert published_ids(hub) == dict.fromkeys(server.said, 1)
    assert read_counts(hub.files(REPO, kind="dataset")[CARD].decode()).records == 7


def test_a_commit_whose_answer_was_lost_counts_for_the_limit(server: Server, hub: FakeHub) -> None:
    hub.fail(Fault("lost_response", COMMIT))
    server.say(2)
    server.pass_time(61)
    assert server.commits == 1
    server.say(30)
    assert not server.pass_time(10)
    assert server.store.counts()["verified"] == 2
    assert not server.pass_time(40)
    assert server.pass_time(20)
    assert published_ids(hub) == dict.fromkeys(server.said, 1)


def test_a_commit_that_is_carried_out_late_changes_nothing(server: Server, hub: FakeHub) -> None:
    hub.fail(Fault("hang", COMMIT, wait_s=0.6))
    server.say(2)
    server.pass_time(61)
    server.drain(1)
    before = hub.commits(REPO, kind="dataset")
    hub.close()  # waits for the answer that nobody reads
    assert hub.commits(REPO, kind="dataset") == before
    assert published_ids(hub) == dict.fromkeys(server.said, 1)


def test_what_the_hub_asks_for_is_waited_for(server: Server, hub: FakeHub) -> None:
    hub.fail(Fault("status", COMMIT, status=429, headers={"Retry-After": "400"}))
    server.say(2)
    server.pass_time(61)
    hub.requests.clear()
    for _ in range(39):
        server.pass_time(10)
    assert not hub.requests
    assert server.pass_time(10)


def test_after_five_failures_in_a_row_there_is_a_break_and_one_try_decides(
    server: Server, hub: FakeHub
) -> None:
    hub.fail(Fault("reset", "/api/datasets", count=None))
    server.say(2)
    waits = []
    while len(waits) < 2 * BREAK_AFTER:
        hub.requests.clear()
        server.pass_time(1 if waits else 61)
        if hub.requests:
            waits.append(server.publisher.status().next_try_s - server.clock.now_s)
    assert (
        max(waits[: BREAK_AFTER - 1])
        < BREAK_S
        <= min(waits[BREAK_AFTER - 1 :])
        <= max(waits)
        <= LONGEST_WAIT_S
    )
    hub.clear_faults()
    assert server.pass_time(waits[-1])
    assert server.publisher.status().next_try_s == 0


def test_waits_grow_at_random_within_their_limits() -> None:
    longest_s = dict.fromkeys(range(1, 13), 0.0)
    for _ in range(300):
        backoff = Backoff()
        for failure in longest_s:
            backoff.failed("no answer", 1000.0, 0.0)
            wait_s = backoff.next_try_s - 1000.0
            assert SHORTEST_WAIT_S <= wait_s <= LONGEST_WAIT_S
            longest_s[failure] = max(longest_s[failure], wait_s)
    assert longest_s[1] <= 4 < longest_s[3] <= 16 < longest_s[4] <= 32
    assert longest_s[12] > 800


def test_the_hub_is_left_alone_for_an_hour_at_most_whatever_it_asks(server: Server, hub: FakeHub) -> None:
    hub.fail(Fault("status", COMMIT, status=429, headers={"Retry-After": "999999999"}))
    server.say(2)
    server.pass_time(61)
    assert server.publisher.status().next_try_s == server.clock.now_s + 3600
