"""The stand-in for the Hub against the client library that the project uses."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fake_hub import FakeHub, use
from huggingface_hub import CommitOperationAdd as Add
from huggingface_hub import CommitOperationDelete as Delete
from huggingface_hub import HfApi, constants, create_repo, file_download, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError
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
    return (
        HfApi().create_commit(DATASET, operations, commit_message="batch", repo_type="dataset", **options).oid
    )


def test_small_and_large_files_are_committed(hub: FakeHub) -> None:
    hub.add_repo(DATASET, {"old.txt": b"old", "gone/a.txt": b"a", "gone/b.txt": b"b"}, kind="dataset")
    picture = bytes(5000)
    operations = [
        Add("batch/rows.jsonl", b'{"id": 1}\n'),
        Add("batch/faces.parquet", picture),
        Delete("old.txt"),
        Delete("gone/"),
    ]
    made = HfApi().create_commit(
        DATASET, operations, commit_message="batch 1", commit_description="why", repo_type="dataset"
    )
    assert hub.files(DATASET, kind="dataset") == {
        "batch/rows.jsonl": b'{"id": 1}\n',
        "batch/faces.parquet": picture,
    }
    assert hub.commits(DATASET, kind="dataset")[-1].oid == made.oid
    assert list(hub.lfs_objects(DATASET, kind="dataset").values()) == [picture]
    assert len(hub.seen("PUT")) == 1
    assert hub.commits(DATASET, kind="dataset")[-1].message == "batch 1\n\nwhy"
    assert (
        committed("batch/rows.jsonl", b'{"id": 1}\n') == committed("batch/faces.parquet", picture) == made.oid
    ), "nothing changed"
    with pytest.raises(EntryNotFoundError):
        HfApi().create_commit(DATASET, [Delete("none.txt")], commit_message="delete", repo_type="dataset")


def test_a_stale_parent_is_refused(hub: FakeHub) -> None:
    stale = hub.add_repo(DATASET, kind="dataset")
    fresh = hub.commit(DATASET, {"other.txt": b"other"}, kind="dataset")
    with pytest.raises(HfHubHTTPError, match="412"):
        committed("rows.jsonl", b"1", parent_commit=stale)
    committed("rows.jsonl", b"1", parent_commit=fresh)
    assert len(hub.commits(DATASET, kind="dataset")) == 3


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
    assert b"a face" not in [
        content for commit in hub.commits(DATASET, kind="dataset") for content in commit.files.values()
    ]
    assert ("erase.jpg" in hub.files(DATASET, kind="dataset")) is not rewrite
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(DATASET, "erase.jpg", repo_type="dataset")
    assert (
        Path(hf_hub_download(DATASET, "keep.parquet", repo_type="dataset", revision=revision)).read_bytes()
        == b"keep"
    )


def test_a_token_is_needed_to_write_and_to_read_what_is_private(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    committed("faces.parquet", WEIGHTS)
    assert Path(hf_hub_download(DATASET, "faces.parquet", repo_type="dataset")).read_bytes() == WEIGHTS


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
    with (
        pytest.raises(ValueError, match="Expecting value"),
        FakeHub() as broken,
        pytest.raises(OSError, match="closed connection"),
    ):
        urllib.request.urlopen(f"{broken.url}/api/repos/create", b"this is not JSON")
