"""Downloads where the server already fails when it is asked, the disk is really full, or a process really dies halfway."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fake_hub import FakeHub, Fault, environment, use
from huggingface_hub import constants, get_session
from huggingface_hub.utils import validate_repo_id

from hsemotion_space.hub import fetch
from hsemotion_space.hub.source import CheckpointError, Digest, HubSource

REPO, NAME = "faces/small", "model.safetensors"
CONTENT = random.Random(0).randbytes(4000)
BIG = random.Random(0).randbytes(200_000)  # more than what files hold back before they write
SHA256 = hashlib.sha256(BIG).hexdigest()
ON_HUB = re.escape(f"{NAME} of {REPO} on the Hugging Face Hub")
KINDS = pytest.mark.parametrize("kind", ["hub", "upstream"])


@dataclass(frozen=True)
class Place:
    hub: FakeHub
    source: HubSource
    waits_s: list[float]

    @property
    def kept(self) -> Path:
        path = fetch.cached_on_hub(self.source, NAME)
        assert path is not None
        return path.resolve()

    def fetch(self) -> bytes:
        self.hub.requests.clear()
        return fetch.from_hub("Small", self.source, NAME, Digest.of(CONTENT))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with FakeHub() as hub, use(hub, monkeypatch, tmp_path / "hf", timeout_s=1):
        waits_s: list[float] = []
        monkeypatch.setattr(fetch, "sleep", waits_s.append)
        monkeypatch.setattr(fetch, "TIMEOUT_S", 0.2)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
        yield Place(hub, HubSource(REPO, hub.add_repo(REPO, {NAME: CONTENT}), NAME), waits_s)


def answers(status: int, code: str = "", count: int | None = None) -> Fault:
    return Fault("status", status=status, count=count, headers={"X-Error-Code": code} if code else {})


AGAIN = r" could not be had: {}\. Try again in a few minutes, or pick another checkpoint\."
NOWHERE = r": there is no {}, or it is private\. Correct \[source\] in its manifest\."
REFUSED = r" answers {}\. Correct \[source\] in its manifest, or pick another checkpoint\."
WHEN_ASKED = {
    "nothing wrong": (None, ""),
    "failing twice": (answers(503, count=2), ""),
    "failing for ever": (answers(503), AGAIN.format("the server answers 503")),
    "closed": (Fault("reset", count=None), AGAIN.format(r"the connection broke \(RemoteProtocolError\)")),
    "hanging": (Fault("hang", count=None, wait_s=1.0), AGAIN.format("the server does not answer")),
    "a web page": (Fault("garbage", count=None), AGAIN.format("what answers is not the Hub")),
    "no file": (answers(404, "EntryNotFound"), NOWHERE.format(ON_HUB)),
    "no revision": (answers(404, "RevisionNotFound"), NOWHERE.format(ON_HUB)),
    "no repository": (answers(401, "RepoNotFound"), NOWHERE.format(ON_HUB)),
    "for members only": (answers(403, "GatedRepo"), NOWHERE.format(ON_HUB)),
    "unknown": (answers(401), REFUSED.format(401)),
    "forbidden": (answers(403), REFUSED.format(403)),
}


@pytest.mark.parametrize("damaged", [False, True], ids=["empty cache", "damaged cache"])
@pytest.mark.parametrize("case", WHEN_ASKED)
def test_a_server_that_fails_when_asked_gives_a_sentence_soon(place: Place, case: str, damaged: bool) -> None:
    if damaged:
        place.fetch()
        place.kept.write_bytes(CONTENT[:-1] + b"?")
    fault, words = WHEN_ASKED[case]
    if fault is not None:
        place.hub.fail(replace(fault, method="HEAD", hits=0))
    if words:
        with pytest.raises(CheckpointError, match=rf"^Small.*{words}$"):
            place.fetch()
        assert {request.method for request in place.hub.requests} == {"HEAD"}
        assert len(place.hub.requests) <= fetch.TRIES
    else:
        assert place.fetch() == CONTENT
    assert place.hub.waits_s == []  # the client itself would wait for minutes


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_no_server_makes_anyone_wait_for_hours(place: Place, method: str) -> None:
    place.hub.fail(Fault("status", method=method, count=None, status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(CheckpointError, match="could not be had: the server answers 429"):
        place.fetch()
    assert place.waits_s == [fetch.LONGEST_WAIT_S] * (fetch.TRIES - 1)
    assert place.hub.waits_s == []


def test_refusals_reach_others_who_use_the_client_as_they_are(place: Place) -> None:
    seen: list[int] = []

    def other_thread() -> None:
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(lambda: get_session().get(place.hub.url).status_code).result())

    place.hub.fail(answers(503))
    with pytest.raises(fetch._Failed, match="answers 503"), fetch._refusals_end_the_try("Small", NAME):
        other_thread()
        get_session().get(place.hub.url)
    assert seen == [503]
    assert get_session().get(place.hub.url).status_code == 503


def test_a_server_that_turns_away_between_two_questions_gives_a_sentence(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fetch()
    place.kept.write_bytes(b"?")
    monkeypatch.setattr(fetch, "_ask", lambda *_: None)
    place.hub.fail(replace(answers(401), method="HEAD"))
    with pytest.raises(CheckpointError, match="could not be had: the server does not answer"):
        place.fetch()


def test_a_copy_that_cannot_be_read_counts_as_damaged(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fetch()
    read, broken = Path.read_bytes, [OSError(errno.EIO, "Input/output error")] * 2

    def read_bytes(path: Path) -> bytes:
        if broken and path.name == NAME:
            raise broken.pop()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with monkeypatch.context() as patch:
        patch.setattr(fetch, "is_offline", lambda: True)
        with pytest.raises(CheckpointError, match="Small is damaged on this machine"):
            place.fetch()
    assert place.fetch() == CONTENT
    assert not broken


def test_a_repository_name_that_the_client_refuses_never_gets_to_it() -> None:
    draw, accepted = random.Random(0), 0
    for _ in range(20_000):
        name = "".join(draw.choice("ab1-._/é.git") for _ in range(draw.randrange(1, 9)))
        try:
            HubSource(name, "0" * 40, NAME)
        except CheckpointError:
            continue
        validate_repo_id(name)
        accepted += 1
    assert accepted > 100


SCRIPT = """
import hashlib, resource, sys, time
from pathlib import Path
from huggingface_hub import constants
from hsemotion_space.hub import fetch
from hsemotion_space.hub.source import CheckpointError, Digest, HubSource, UpstreamSource
kind, where, sha256, folder, halt = sys.argv[1:]
fetch.CHUNK = constants.DOWNLOAD_CHUNK_SIZE = 20_000
fetch.sleep = lambda _: None

def report(done, total):
    if halt == "halfway" and done >= 100_000:
        print("halfway", flush=True)
        time.sleep(60)

print("ready", flush=True)
sys.stdin.readline()
if halt == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    if kind == "hub":
        source = HubSource("faces/small", where, "model.safetensors")
        content = fetch.from_hub("Small", source, source.filename, Digest(sha256), report)
    else:
        content = fetch.from_upstream("Small", UpstreamSource("small.pt", where, "", Digest(sha256)), Path(folder), report)
    print(hashlib.sha256(content).hexdigest())
except CheckpointError as error:
    print(error)
"""


class Machine:
    """Processes that share a cache and fetch the same file."""

    def __init__(self, kind: str, hub: FakeHub, folder: Path) -> None:
        where = hub.add_repo(REPO, {NAME: BIG}) if kind == "hub" else hub.add_raw("0123/small.pt", BIG)
        self.folder, self.words = folder, [kind, where, SHA256, str(folder / "upstream")]
        self.env = os.environ | environment(hub, folder / "hf")

    def start(self, halt: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *self.words, halt], env=self.env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n"  # it waits, so that nothing else is read ahead here and lost
        if halt != "barrier":
            process.stdin.write("\n")
            process.stdin.flush()
        return process

    def in_place(self) -> list[Path]:
        """Return the files that a start would read."""
        files = [*self.folder.glob("hf/hub/*/snapshots/*/*"), *self.folder.glob("hf/hub/*/blobs/*"), *self.folder.glob("upstream/*")]
        return [file for file in files if file.suffix not in {".incomplete", ".lock", ".part"}]


def last_line(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.splitlines()[-1]


@KINDS
def test_a_process_that_dies_halfway_leaves_nothing_in_place_of_the_file(kind: str, tmp_path: Path) -> None:
    with FakeHub() as hub:
        machine = Machine(kind, hub, tmp_path)
        victim = machine.start("halfway")
        assert victim.stdout is not None
        assert victim.stdout.readline() == "halfway\n"
        victim.kill()
        victim.communicate()
        assert machine.in_place() == []
        hub.requests.clear()
        assert last_line(machine.start()) == SHA256
        (get,) = hub.seen("GET")
        assert ("range" in get.headers) == (kind == "upstream")  # the Hub client starts again
        assert any(file.read_bytes() == BIG for file in machine.in_place())


@KINDS
def test_two_processes_that_start_together_both_get_the_right_bytes(kind: str, tmp_path: Path) -> None:
    with FakeHub() as hub:
        machine = Machine(kind, hub, tmp_path)
        hub.fail(Fault("hang", method="GET", wait_s=0.3))
        pair = [machine.start("barrier") for _ in range(2)]
        for process in pair:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [last_line(process) for process in pair] == [SHA256, SHA256]
        assert len(hub.seen("GET")) == 1


@KINDS
def test_a_disk_that_takes_half_the_file_is_told_and_a_larger_one_heals_it(kind: str, tmp_path: Path) -> None:
    with FakeHub() as hub:
        machine = Machine(kind, hub, tmp_path)
        words = last_line(machine.start("full"))
        assert re.fullmatch(
            r"Small: the file cannot be kept in the cache \(File too large\)\. Make room there, or set HSEMOTION_CACHE.*", words
        )
        assert machine.in_place() == []
        assert last_line(machine.start()) == SHA256


FAULTS = ("status", "cut", "flip", "truncate", "reset", "garbage")


def random_fault(draw: random.Random) -> Fault:
    kind, status = draw.choice(FAULTS), draw.choice((401, 403, 404, 408, 416, 429, 500, 503))
    code = draw.choice(("", "EntryNotFound", "RevisionNotFound", "RepoNotFound", "GatedRepo"))
    at = draw.randrange(len(CONTENT)) if kind in {"cut", "flip"} else None
    return replace(answers(status, code), kind=kind, method=draw.choice(("", "HEAD", "GET")), count=draw.choice((1, 1, 2, None)), at=at)


def spoil(place: Place, draw: random.Random) -> None:
    """Leave the cache as a crash, a clean-up or a bad disk may leave it."""
    pointer = fetch.cached_on_hub(place.source, NAME)
    state = draw.choice(("good", "no name", "no content", "nothing", "flipped", "short", "long"))
    if pointer is None or state == "good":
        return
    blob, at = pointer.resolve(), draw.randrange(len(CONTENT))
    if state in {"no content", "nothing"}:
        blob.unlink()
    if state in {"no name", "nothing"}:
        pointer.unlink()
    if state in {"flipped", "short", "long"}:
        flipped = CONTENT[:at] + bytes([CONTENT[at] ^ 1]) + CONTENT[at + 1 :]
        blob.write_bytes({"flipped": flipped, "short": CONTENT[:at], "long": CONTENT + b"?"}[state])


@pytest.mark.parametrize("runs", [300, pytest.param(5000, marks=pytest.mark.long)])
def test_no_wrong_byte_whatever_fails_at_the_question_or_at_the_answer(place: Place, runs: int) -> None:
    draw, ends = random.Random(2), {"right": 0, "refused": 0}
    for _ in range(runs):
        spoil(place, draw)
        for _ in range(draw.randrange(4)):
            place.hub.fail(random_fault(draw))
        try:
            assert place.fetch() == CONTENT
            ends["right"] += 1
        except CheckpointError as error:
            assert re.search(r"^Small.*(pick another checkpoint|Correct \[source\] in its manifest)\.$", str(error))
            ends["refused"] += 1
        place.hub.clear_faults()
    assert place.fetch() == CONTENT
    assert min(ends.values()) > runs / 10, ends
