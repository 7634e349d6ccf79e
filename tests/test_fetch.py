"""Downloads under faults: the right bytes or a sentence, never wrong bytes."""

from __future__ import annotations

import errno
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from fake_hub import FakeHub, Fault, use
from huggingface_hub import constants

from hsemotion_space.hub import fetch
from hsemotion_space.hub.source import CheckpointError, Digest, HubSource, UpstreamSource

CONTENT = random.Random(0).randbytes(4000)
NAME = "model.safetensors"
DOCS = Path(__file__).resolve().parent.parent / "docs" / "checkpoints.md"


@dataclass
class Place:
    """One file at one place, and how to fetch it."""

    hub: FakeHub
    get: Callable[..., bytes]
    kept: Callable[[], Path | None]
    waits_s: list[float]
    reported: list[tuple[int, int]] = field(default_factory=list)

    def fetch(self) -> bytes:
        self.hub.requests.clear()
        return self.get(report=lambda done, total: self.reported.append((done, total)))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as fake, use(fake, monkeypatch, tmp_path / "hf", timeout_s=1):
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
        monkeypatch.setattr(fetch, "CHUNK", 500)
        monkeypatch.setattr(fetch, "TIMEOUT_S", 1.0)
        yield fake


def place_at(kind: str, hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes = CONTENT) -> Place:
    waits: list[float] = []
    monkeypatch.setattr(fetch, "sleep", waits.append)
    digest = Digest.of(content)
    if kind == "hub":
        source = HubSource("faces/small", hub.add_repo("faces/small", {NAME: content}), NAME)
        hub.commit("faces/small", {NAME: b"a moved branch"})
        return Place(
            hub,
            lambda **options: fetch.from_hub("Small", source, NAME, digest, **options),
            lambda: fetch.cached_on_hub(source, NAME),
            waits,
        )
    upstream = UpstreamSource("small.pt", hub.add_raw("0123/small.pt", content), "https://example.org", digest)
    file = fetch.upstream_file(upstream, folder / "upstream")
    return Place(
        hub, lambda **options: fetch.from_upstream("Small", upstream, folder / "upstream", **options),
        lambda: file if file.is_file() else None, waits,
    )  # fmt: skip


@pytest.fixture(params=["hub", "upstream"])
def place(request: pytest.FixtureRequest, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return place_at(request.param, hub, tmp_path, monkeypatch)


def fault(kind: str, count: int | None = 1, **options: object) -> Fault:
    return Fault(kind, path="resolve|raw", method="GET", count=count, **options)  # type: ignore[arg-type]


GONE = "could not be had: the server answers 503"
WRONG = "could not be had: what arrived is not what the manifest says"
NOWHERE = Fault("status", path="resolve|raw", count=None, status=404, headers={"X-Error-Code": "EntryNotFound"})
CASES: dict[str, tuple[list[Fault], str]] = {
    "nothing wrong": ([], ""),
    "cut once": ([fault("cut")], ""),
    "cut twice": ([fault("cut"), fault("cut", at=1200)], ""),
    "one byte wrong, once": ([fault("flip")], ""),
    "one byte wrong, twice": ([fault("flip", 2)], ""),
    "one byte wrong, always": ([fault("flip", None)], WRONG),
    "shortened, once": ([fault("truncate")], ""),
    "shortened, always": ([fault("truncate", None)], "could not be had"),
    "busy (429, told when to come back)": ([fault("status", status=429, headers={"Retry-After": "1"})], ""),
    "failing (503) twice": ([fault("status", 2)], ""),
    "failing (503) for ever": ([fault("status", None)], GONE),
    "hanging once": ([fault("hang", wait_s=1.4)], ""),
    "connection closed once": ([fault("reset")], ""),
    "a web page in place of the file, always": ([fault("garbage", None)], "could not be had"),
    "no such file (404)": ([replace(NOWHERE)], "there is no"),
    "not allowed (403)": ([Fault("status", path="resolve|raw", count=None, status=403)], "answers 403"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_right_bytes_or_a_sentence(place: Place, case: str) -> None:
    faults, words = CASES[case]
    for item in faults:
        place.hub.fail(replace(item, hits=0))
    if words:
        with pytest.raises(CheckpointError, match=rf"^Small: .*({words}).*\.$") as caught:
            place.fetch()
        assert re.search(r"Correct \[source\]|pick another checkpoint", str(caught.value))
        assert re.search(".*".join(map(re.escape, table()[case][0].split("…"))), str(caught.value))
        kept = place.kept()
        assert kept is None or kept.read_bytes() != CONTENT
    else:
        assert place.fetch() == CONTENT
        kept = place.kept()
        assert kept is not None
        assert kept.read_bytes() == CONTENT
        assert place.reported[0] == (0, len(CONTENT))
        assert place.reported[-1] == (len(CONTENT), len(CONTENT))
    gets = [request for request in place.hub.requests if request.method == "GET"]
    assert len(gets) <= 6 if "always" not in case else 3 <= len(gets) <= 20
    assert len(place.waits_s) <= 2


def table() -> dict[str, tuple[str, str]]:
    """Return what the docs say for each fault: the words that a user reads, and the bytes that are loaded."""
    section = DOCS.read_text("utf-8").partition("## When something goes wrong")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \| ([^|]+?) \|$", section, re.MULTILINE)
    return {what: (words, loaded) for what, words, loaded in rows[1:]}


ELSEWHERE = {
    "asked of a Hub that never answers": "test_a_server_that_fails_when_asked_gives_a_sentence_soon",
    "no such commit or repository, or a private one": "test_a_server_that_fails_when_asked_gives_a_sentence_soon",
    "busy (429), come back in an hour": "test_no_server_makes_anyone_wait_for_hours",
    "branch moved": "test_the_right_bytes_or_a_sentence",
    "redirected": "test_a_redirect_is_followed",
    "cached copy damaged": "test_a_damaged_copy_is_replaced_or_refused",
    "cached copy damaged, offline": "test_a_damaged_copy_is_replaced_or_refused",
    "cached copy cannot be read": "test_a_copy_that_cannot_be_read_counts_as_damaged",
    "not here, offline": "test_offline_without_a_copy_is_told_and_asks_nobody",
    "disk full": "test_a_full_or_locked_disk_is_told",
    "disk read-only": "test_a_full_or_locked_disk_is_told",
    "killed in the middle": "test_a_process_that_dies_halfway_leaves_nothing_in_place_of_the_file",
    "two at once": "test_two_processes_that_start_together_both_get_the_right_bytes",
}


def test_the_table_of_the_docs_is_what_is_tested() -> None:
    assert table().keys() == CASES.keys() | ELSEWHERE.keys()
    for case, (_, words) in CASES.items():
        assert table()[case][1] == ("none" if words else "the right ones"), case
    tests = "".join(file.read_text("utf-8") for file in (Path(__file__), Path(__file__).parent / "faults" / "test_fetch_faults.py"))
    assert [name for name in ELSEWHERE.values() if f"def {name}(" not in tests] == []


def test_a_broken_download_goes_on_where_it_stopped(place: Place) -> None:
    place.hub.fail(fault("cut", at=2600))
    assert place.fetch() == CONTENT
    ranges = [request.headers.get("range", "") for request in place.hub.requests if request.method == "GET"]
    assert re.fullmatch(r"bytes=2\d\d\d-", ranges[-1]), ranges


def test_a_warm_start_asks_nobody(place: Place) -> None:
    assert place.fetch() == CONTENT
    place.hub.fail(Fault("reset", count=None))
    assert place.fetch() == CONTENT
    assert place.hub.requests == []


def test_a_damaged_copy_is_replaced_or_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fetch()
    kept = place.kept()
    assert kept is not None
    for damaged in (CONTENT[:-1] + b"?", CONTENT[:100], b"", CONTENT + b"?"):
        kept.resolve().write_bytes(damaged)
        monkeypatch.setattr(fetch, "is_offline", lambda: True)
        with pytest.raises(CheckpointError, match="Small is damaged on this machine, and HF_HUB_OFFLINE=1 forbids downloads"):
            place.fetch()
        monkeypatch.setattr(fetch, "is_offline", lambda: False)
        assert place.fetch() == CONTENT
        assert kept.read_bytes() == CONTENT


def test_offline_without_a_copy_is_told_and_asks_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "is_offline", lambda: True)
    with pytest.raises(CheckpointError, match="Small is not on this machine, and HF_HUB_OFFLINE=1 forbids downloads"):
        place.fetch()
    assert place.hub.requests == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_locked_disk_is_told(place: Place, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    target = (
        "hsemotion_space.hub.fetch._pour" if "upstream" in str(place.get.__code__.co_names) else "huggingface_hub.file_download.http_get"
    )
    monkeypatch.setattr(target, refuse)
    words = "no room left on the disk" if code == errno.ENOSPC else "Read-only file system"
    with pytest.raises(CheckpointError, match=rf"cannot be kept in the cache \(.*{words}\)\. Make room there, or set HSEMOTION_CACHE"):
        place.fetch()


def test_no_token_is_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    place.fetch()
    assert place.hub.requests
    assert not [request for request in place.hub.requests if "authorization" in request.headers or "canary" in str(request)]


def test_what_a_report_raises_stops_the_download(place: Place) -> None:
    class Stop(Exception):
        pass

    def report(done: int, _: int) -> None:
        if done > 1000:
            raise Stop

    with pytest.raises(Stop):
        place.get(report=report)
    assert place.kept() is None
    assert place.fetch() == CONTENT


def test_a_redirect_is_followed(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_at("upstream", hub, tmp_path, monkeypatch)
    moved = hub.add_raw("moved/small.pt", CONTENT)
    hub.fail(Fault("status", path="0123", status=302, headers={"Location": moved}))
    assert place.fetch() == CONTENT


def test_a_partial_file_that_is_too_long_is_dropped(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_at("upstream", hub, tmp_path, monkeypatch)
    place.fetch()
    kept = place.kept()
    assert kept is not None
    kept.rename(f"{kept}.part")
    assert place.fetch() == CONTENT  # complete already
    for stale in (CONTENT + b"more", b"wrong" * 100):
        kept.unlink()
        Path(f"{kept}.part").write_bytes(stale)
        assert place.fetch() == CONTENT


def one_random_run(kind: str, hub: FakeHub, place: Place, draw: random.Random, content: bytes) -> str:
    kept = place.kept()
    if kept is not None:
        state = draw.choice(("gone", "damaged", "shortened", "good"))
        if state == "gone":
            kept.unlink()
        elif state != "good":
            kept.resolve().write_bytes(draw.randbytes(len(content)) if state == "damaged" else content[: draw.randrange(len(content))])
    partial = Path(f"{kept}.part")
    if kind == "upstream" and kept is not None and draw.random() < 0.3:
        partial.write_bytes(draw.choice((content[: draw.randrange(len(content))], draw.randbytes(draw.randrange(1, 6000)))))
    hub.clear_faults()
    for _ in range(draw.randrange(5)):
        name = draw.choice(("status", "cut", "flip", "truncate", "reset", "garbage"))
        status = draw.choice((429, 500, 503, 404, 416, 206))
        hub.fail(
            fault(name, draw.choice((1, 1, 2, None)), status=status, at=draw.randrange(len(content)) if name in ("cut", "flip") else None)
        )
    try:
        assert place.fetch() == content
    except CheckpointError:
        return "refused"
    return "right"


@pytest.mark.parametrize("runs", [250, pytest.param(2500, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["hub", "upstream"])
def test_no_wrong_byte_in_random_faults(kind: str, runs: int, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_at(kind, hub, tmp_path, monkeypatch)
    place.fetch()
    draw = random.Random(1)
    ends = [one_random_run(kind, hub, place, draw, CONTENT) for _ in range(runs)]
    assert min(ends.count("right"), ends.count("refused")) > runs / 20
