"""The stand-in for the Hub against the client library that the project uses."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from fake_hub import FakeHub, Fault, environment, use
from huggingface_hub import CommitOperationAdd as Add
from huggingface_hub import CommitOperationDelete as Delete
from huggingface_hub import HfApi, ModelCard, constants, create_repo, file_download, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import close_session

MODEL = "org/faces"
DATASET = "org/feedback"
WEIGHTS = bytes(range(256)) * 40
README = b"---\nlicense: apache-2.0\n---\n# Faces\n"
FILES = {"model.safetensors": WEIGHTS, "manifest.toml": b'id = "faces"\n', "cards/README.md": README}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with FakeHub() as hub, use(hub, monkeypatch, tmp_path / "cache"):
        yield hub


@pytest.fixture
def revision(hub: FakeHub) -> str:
    return hub.add_repo(MODEL, FILES)


def fetched(path: str = "model.safetensors", **options: object) -> bytes:
    return Path(hf_hub_download(MODEL, path, **options)).read_bytes()


def committed(path: str, content: bytes, **options: object) -> str:
    operations = [Add(path, content)]
    return HfApi().create_commit(DATASET, operations, commit_message="batch", repo_type="dataset", **options).oid


def test_a_pinned_file_arrives_and_is_not_asked_for_again(hub: FakeHub, revision: str, tmp_path: Path) -> None:
    assert fetched(revision=revision) == WEIGHTS
    assert [request.method for request in hub.requests] == ["HEAD", "GET"]
    assert list((tmp_path / "cache" / "hub").glob(f"*/blobs/{hashlib.sha256(WEIGHTS).hexdigest()}"))
    hub.requests.clear()
    assert fetched(revision=revision) == WEIGHTS
    assert hub.requests == []


def test_the_main_branch_moves_and_pinned_revisions_stay(hub: FakeHub, revision: str) -> None:
    assert fetched("manifest.toml") == FILES["manifest.toml"]
    newer = hub.commit(MODEL, {"manifest.toml": b"id = 2\n"}, delete=["cards/"])
    assert fetched("manifest.toml") == b"id = 2\n"
    assert fetched("manifest.toml", revision=revision) == FILES["manifest.toml"]
    assert HfApi().model_info(MODEL).sha == newer != revision
    assert set(HfApi().list_repo_files(MODEL)) == {"model.safetensors", "manifest.toml"}


def test_a_cut_download_is_resumed_where_it_ended(hub: FakeHub, revision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)
    fault = hub.fail(Fault("cut", "model.safetensors", at=1000, count=2))
    assert fetched(revision=revision) == WEIGHTS
    assert fault.hits == 2
    assert [request.headers.get("range") for request in hub.seen("GET")] == [None, "bytes=1000-", "bytes=2000-"]


def test_a_flipped_byte_is_accepted_by_the_library(hub: FakeHub, revision: str) -> None:
    hub.fail(Fault("flip", "model.safetensors", at=7))
    content = fetched(revision=revision)
    assert [place for place, (got, meant) in enumerate(zip(content, WEIGHTS, strict=True)) if got != meant] == [7]


def test_a_shortened_file_is_refused_by_the_library(hub: FakeHub, revision: str) -> None:
    hub.fail(Fault("truncate", "model.safetensors"))
    with pytest.raises(OSError, match="Consistency check failed"):
        fetched(revision=revision)


@pytest.mark.parametrize(
    ("repo", "path", "revision", "error"),
    [
        ("org/none", "model.safetensors", "main", RepositoryNotFoundError),
        (MODEL, "none.txt", "main", EntryNotFoundError),
        (MODEL, "model.safetensors", "0" * 40, RevisionNotFoundError),
    ],
)
def test_what_is_missing_is_named(hub: FakeHub, revision: str, repo: str, path: str, error: type[Exception]) -> None:
    hub.add_repo(MODEL, FILES)
    with pytest.raises(error):
        hf_hub_download(repo, path, revision=revision)


def test_retry_after_is_obeyed_and_other_failures_are_not_retried(hub: FakeHub, revision: str) -> None:
    hub.fail(Fault("status", "resolve", "GET", status=429, headers={"Retry-After": "7"}))
    assert fetched(revision=revision) == WEIGHTS
    assert hub.waits_s == [8.0]
    hub.fail(Fault("status", "resolve", "GET", status=503, body=b"down"))
    with pytest.raises(HfHubHTTPError, match="503"):
        fetched("manifest.toml", revision=revision)


def test_a_hub_that_is_down_is_told_apart_from_a_missing_file(hub: FakeHub, revision: str) -> None:
    hub.fail(Fault("reset", count=None))
    with pytest.raises(httpx2.RemoteProtocolError):
        fetched(revision=revision)
    hub.clear_faults()
    hub.close()
    with pytest.raises(LocalEntryNotFoundError):
        fetched(revision=revision)


def test_a_hanging_answer_times_out_in_the_client_and_ends_with_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with FakeHub() as hub, use(hub, monkeypatch, tmp_path, timeout_s=1):
        revision = hub.add_repo(MODEL, FILES)
        fault = hub.fail(Fault("hang", "resolve", "GET"))
        assert fetched(revision=revision) == WEIGHTS
        assert fault.hits == 1
        hub.fail(Fault("hang", "whoami"))
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(HfApi().whoami, token="hf_x")
            while not hub.seen(path="whoami"):
                time.sleep(0.005)
            started_s = time.monotonic()
            hub.close()
            assert isinstance(pending.exception(timeout=5), httpx2.RemoteProtocolError)
        assert time.monotonic() - started_s < 10
        assert not [thread for thread in threading.enumerate() if "process_request" in thread.name]


def test_a_short_hang_is_only_a_delay(hub: FakeHub, revision: str) -> None:
    started_s = time.monotonic()
    hub.fail(Fault("hang", method="HEAD", wait_s=0.2))
    assert fetched(revision=revision) == WEIGHTS
    assert time.monotonic() - started_s >= 0.2


def test_a_snapshot_holds_all_files(hub: FakeHub, revision: str) -> None:
    for options in ({"revision": revision}, {}):
        folder = Path(snapshot_download(MODEL, **options))
        assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == FILES


def test_listings_agree_with_git(hub: FakeHub, revision: str) -> None:
    rows = {row.path: row for row in HfApi().list_repo_tree(MODEL, recursive=True)}
    assert set(rows) == {*FILES, "cards"}
    assert rows["model.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert rows["manifest.toml"].blob_id == hashlib.sha1(b"blob 13\0" + FILES["manifest.toml"]).hexdigest()
    assert {row.path for row in HfApi().list_repo_tree(MODEL)} == {"model.safetensors", "manifest.toml", "cards"}
    assert [row.path for row in HfApi().list_repo_tree(MODEL, "cards")] == ["cards/README.md"]
    sizes = {sibling.rfilename: sibling.size for sibling in HfApi().model_info(MODEL, files_metadata=True).siblings}
    assert sizes == {path: len(content) for path, content in FILES.items()}


def test_a_repository_is_made_once(hub: FakeHub) -> None:
    url = create_repo(DATASET, repo_type="dataset", private=True)
    assert (url.repo_id, url.repo_type) == (DATASET, "dataset")
    with pytest.raises(HfHubHTTPError, match="409"):
        create_repo(DATASET, repo_type="dataset")
    assert create_repo(DATASET, repo_type="dataset", exist_ok=True) == url
    assert HfApi().repo_info(DATASET, repo_type="dataset").private
    assert len(hub.commits(DATASET, kind="dataset")) == 1


def test_small_and_large_files_are_committed(hub: FakeHub) -> None:
    hub.add_repo(DATASET, {"old.txt": b"old", "gone/a.txt": b"a", "gone/b.txt": b"b"}, kind="dataset")
    picture = bytes(5000)
    operations = [
        Add("batch/rows.jsonl", b'{"id": 1}\n'),
        Add("batch/faces.parquet", picture),
        Delete("old.txt"),
        Delete("gone/"),
    ]
    made = HfApi().create_commit(DATASET, operations, commit_message="batch 1", commit_description="why", repo_type="dataset")
    assert hub.files(DATASET, kind="dataset") == {"batch/rows.jsonl": b'{"id": 1}\n', "batch/faces.parquet": picture}
    assert hub.commits(DATASET, kind="dataset")[-1].oid == made.oid
    assert list(hub.lfs_objects(DATASET, kind="dataset").values()) == [picture]
    assert len(hub.seen("PUT")) == 1
    newest, first = HfApi().list_repo_commits(DATASET, repo_type="dataset")
    assert (newest.commit_id, newest.title, newest.message, first.title) == (made.oid, "batch 1", "why", "initial commit")
    with pytest.raises(EntryNotFoundError):
        HfApi().create_commit(DATASET, [Delete("none.txt")], commit_message="delete", repo_type="dataset")


@pytest.mark.parametrize("path", ["rows.jsonl", "faces.parquet"])
def test_an_unchanged_file_makes_no_commit(hub: FakeHub, path: str) -> None:
    hub.add_repo(DATASET, kind="dataset")
    first = committed(path, b"content")
    assert committed(path, b"content") == first
    assert len(hub.commits(DATASET, kind="dataset")) == 2


def test_a_commit_without_operations_is_a_commit(hub: FakeHub) -> None:
    before = hub.add_repo(DATASET, {"a.txt": b"a"}, kind="dataset")
    body = b'{"key": "header", "value": {"summary": "empty", "description": ""}}\n'
    request = urllib.request.Request(f"{hub.url}/api/datasets/{DATASET}/commit/main", body, method="POST")
    with urllib.request.urlopen(request) as response:
        assert response.status == 200
    first, empty = hub.commits(DATASET, kind="dataset")
    assert (first.oid, empty.files) == (before, first.files)
    assert empty.oid != before


def test_a_stale_parent_is_refused(hub: FakeHub) -> None:
    stale = hub.add_repo(DATASET, kind="dataset")
    fresh = hub.commit(DATASET, {"other.txt": b"other"}, kind="dataset")
    with pytest.raises(HfHubHTTPError, match="412"):
        committed("rows.jsonl", b"1", parent_commit=stale)
    committed("rows.jsonl", b"1", parent_commit=fresh)
    assert len(hub.commits(DATASET, kind="dataset")) == 3


@pytest.mark.parametrize("path", ["rows.jsonl", "faces.parquet"])
def test_a_commit_whose_answer_was_lost_is_made_once(hub: FakeHub, path: str) -> None:
    hub.add_repo(DATASET, kind="dataset")
    hub.fail(Fault("lost_response", "/commit/main", "POST"))
    with pytest.raises(httpx2.RemoteProtocolError):
        committed(path, b"content")
    assert committed(path, b"content") == hub.commits(DATASET, kind="dataset")[-1].oid
    assert len(hub.commits(DATASET, kind="dataset")) == 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("status", "/commit/", status=503), HfHubHTTPError),
        (Fault("garbage", "/commit/"), ValueError),
        (Fault("reset", "/commit/"), httpx2.RemoteProtocolError),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_a_failed_commit_changes_nothing(hub: FakeHub, fault: Fault, error: type[Exception]) -> None:
    hub.add_repo(DATASET, kind="dataset")
    hub.fail(fault)
    with pytest.raises(error):
        committed("rows.jsonl", b"1")
    assert len(hub.commits(DATASET, kind="dataset")) == 1


def test_uploads_are_repeated_until_they_succeed(hub: FakeHub) -> None:
    hub.add_repo(DATASET, kind="dataset")
    hub.fail(Fault("status", "preupload", count=2))
    hub.fail(Fault("reset", "/lfs/", "PUT", count=2))
    committed("faces.parquet", WEIGHTS)
    assert hub.files(DATASET, kind="dataset") == {"faces.parquet": WEIGHTS}
    assert len(hub.seen("PUT")) == 3


def test_bodies_of_unknown_length_are_read_whole() -> None:
    with FakeHub() as hub, httpx2.Client() as client:
        hub.add_repo(MODEL)
        url = f"{hub.url}/lfs/models/{MODEL}/{hashlib.sha256(WEIGHTS).hexdigest()}"
        assert client.put(url, content=(WEIGHTS[start : start + 999] for start in range(0, len(WEIGHTS), 999))).status_code == 200
        assert client.put(url, content=b"something else").status_code == 400
        assert list(hub.lfs_objects(MODEL).values()) == [WEIGHTS]


def test_squashing_leaves_one_commit_and_no_way_to_the_old_ones(hub: FakeHub, revision: str) -> None:
    hub.commit(MODEL, {"model.safetensors": b"newer"})
    HfApi().super_squash_history(MODEL, commit_message="squashed")
    (only,) = hub.commits(MODEL)
    assert (only.message, only.files) == ("squashed", FILES | {"model.safetensors": b"newer"})
    with pytest.raises(RevisionNotFoundError):
        fetched(revision=revision)
    assert WEIGHTS in hub.lfs_objects(MODEL).values()


@pytest.mark.parametrize("rewrite", [True, False])
def test_large_files_are_deleted_for_good(hub: FakeHub, rewrite: bool) -> None:
    revision = hub.add_repo(DATASET, {"keep.parquet": b"keep", "rows.jsonl": b"1"}, kind="dataset")
    hub.commit(DATASET, {"erase.jpg": b"a face"}, kind="dataset")
    api = HfApi()
    gone = [file for file in api.list_lfs_files(DATASET, repo_type="dataset") if file.filename == "erase.jpg"]
    assert [file.size for file in gone] == [len(b"a face")]
    api.permanently_delete_lfs_files(DATASET, gone, repo_type="dataset", rewrite_history=rewrite)
    assert list(hub.lfs_objects(DATASET, kind="dataset").values()) == [b"keep"]
    assert [file.filename for file in api.list_lfs_files(DATASET, repo_type="dataset")] == ["keep.parquet"]
    assert b"a face" not in [content for commit in hub.commits(DATASET, kind="dataset") for content in commit.files.values()]
    assert ("erase.jpg" in hub.files(DATASET, kind="dataset")) is not rewrite
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(DATASET, "erase.jpg", repo_type="dataset")
    assert Path(hf_hub_download(DATASET, "keep.parquet", repo_type="dataset", revision=revision)).read_bytes() == b"keep"


def test_a_card_without_a_license_is_refused(hub: FakeHub) -> None:
    ModelCard(README.decode()).validate()
    with pytest.raises(ValueError, match="license"):
        ModelCard("---\ntags: [faces]\n---\n# Faces\n").validate()
    hub.add_repo(DATASET, kind="dataset")
    committed("README.md", README)
    with pytest.raises(ValueError, match="license"):
        committed("README.md", b"# Faces\n")


def test_a_token_is_needed_to_write_and_to_read_what_is_private(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add_repo(MODEL, FILES)
    hub.add_repo(DATASET, {"rows.jsonl": b"1"}, kind="dataset", private=True)
    hub.token = "hf_right"
    assert fetched() == WEIGHTS
    for token in (False, "hf_wrong"):
        with pytest.raises(HfHubHTTPError, match="401"):
            committed("rows.jsonl", b"2", token=token)
        with pytest.raises(HfHubHTTPError, match="401"):
            create_repo("org/new", token=token)
        with pytest.raises(HfHubHTTPError, match="401"):
            HfApi().repo_info(DATASET, repo_type="dataset", token=token)
    with pytest.raises(RepositoryNotFoundError):
        HfApi().repo_info(DATASET, repo_type="dataset")
    assert not hub.has_repo("org/new")
    assert [request.headers.get("authorization") for request in hub.requests[-2:]] == ["sent", None]
    assert "hf_wrong" not in repr(hub.requests)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert HfApi().whoami()["name"] == "tester"
    committed("faces.parquet", WEIGHTS)
    assert Path(hf_hub_download(DATASET, "faces.parquet", repo_type="dataset")).read_bytes() == WEIGHTS


def test_downloads_run_side_by_side(hub: FakeHub) -> None:
    contents = {f"file{number}.safetensors": bytes([number]) * 200_000 for number in range(8)}
    revision = hub.add_repo(MODEL, contents)
    hub.fail(Fault("cut", "resolve", count=4))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda path: fetched(path, revision=revision), contents)) == list(contents.values())


def test_two_hubs_and_the_real_address_do_not_mix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = {name: getattr(constants, name) for name in dir(constants)}
    variables, pause = dict(os.environ), file_download.time.sleep
    for number in range(2):
        with FakeHub() as hub, use(hub, monkeypatch, tmp_path / str(number)):
            hub.add_repo(MODEL, {"model.safetensors": bytes([number]) * 9})
            assert fetched() == bytes([number]) * 9
            assert HfApi().endpoint == constants.ENDPOINT == hub.url
    assert {name: getattr(constants, name) for name in dir(constants)} == before
    assert dict(os.environ) == variables
    assert file_download.time.sleep is pause is time.sleep
    assert constants.is_offline_mode()


def test_a_subprocess_finds_the_hub(hub: FakeHub, revision: str, tmp_path: Path) -> None:
    code = f"from huggingface_hub import hf_hub_download as get; print(open(get('{MODEL}', 'manifest.toml', revision='{revision}')).read())"
    variables = os.environ | environment(hub, tmp_path / "other")
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == 'id = "faces"'
    assert [request.method for request in hub.requests] == ["HEAD", "GET"]


def test_plain_files_are_served_with_ranges() -> None:
    with FakeHub() as hub:
        url = hub.add_raw("org/repo/main/file.bin", bytes(range(100)))
        spans = {"": (0, 100), "bytes=10-": (10, 100), "bytes=10-19": (10, 20), "bytes=-5": (95, 100), "bytes=0-999": (0, 100)}
        for span, expected in spans.items():
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Range": span} if span else {})) as response:
                assert response.read() == bytes(range(*expected))
                assert response.status == (206 if span else 200)
        for address, span, status in ((url, "bytes=100-", 416), (hub.url + "/raw/none", "", 404), (hub.url + "/none", "", 404)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(urllib.request.Request(address, headers={"Range": span} if span else {}))
            caught.value.close()
            assert caught.value.code == status


def test_closing_leaves_nothing_open(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hub = FakeHub()
        client = httpx2.Client()
        assert client.get(hub.add_raw("a", b"a")).content == b"a"
        hub.close()
        hub.close()
        with pytest.raises(httpx2.ConnectError):
            client.get(hub.url)
        client.close()
    close_session()
    assert capfd.readouterr() == ("", "")


def test_mistakes_of_the_stand_in_are_raised(hub: FakeHub) -> None:
    with pytest.raises(ValueError, match="Expecting value"), FakeHub() as broken, pytest.raises(OSError, match="closed connection"):
        urllib.request.urlopen(f"{broken.url}/api/repos/create", b"this is not JSON")
