"""What version 0.1 left: a database, a receipt code and a published dataset go on working.

``legacy/feedback-v2.zip`` was written by that version: Ben and Dora published from a disk that was lost; then
Anna gave two statements (one with a picture, one approved as a known answer) that are published and one that
is sealed, Emil one that was set aside, Ben one that waits, and Carl and Dora asked to be erased, which is
pending on the Hub."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, use
from feedback_makers import make_crop, make_record
from feedback_publishing import (
    REPO,
    TOKEN,
    batches_on,
    counts_of,
    everything_in,
    everything_on,
    published_ids,
)

from hsemotion_space.feedback.card import CARD, read_counts
from hsemotion_space.feedback.dataset import decode
from hsemotion_space.feedback.erase import pending_erasures
from hsemotion_space.feedback.keys import Keys
from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.feedback.service import open_feedback
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.settings import Settings

KEYS = Keys(b"a secret of forty characters, more or less")
WHO = {name: KEYS.contributor(KEYS.code(name)) for name in ("Anna", "Ben", "Carl", "Dora", "Emil")}
ANNAS = [
    "e0e2d599128ebfd891cc19b41a32d6fc",
    "9094108712fb9d1e8d7f82339411e39c",
    "d07d70b57436cf3a3429dd6ffbfbaf6b",
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    with zipfile.ZipFile(Path(__file__).parent / "legacy" / "feedback-v2.zip") as archive:
        archive.extractall(tmp_path / "old")
    (tmp_path / "data").mkdir()
    shutil.copy(tmp_path / "old" / "feedback.sqlite", tmp_path / "data")
    return Settings(feedback_data=tmp_path / "data", feedback_repo=REPO, feedback_secret=KEYS.secret.decode())


@pytest.fixture
def hub(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    old = tmp_path / "old" / "dataset"
    with FakeHub(token=TOKEN) as hub, use(hub, monkeypatch, tmp_path / "hub", timeout_s=5):
        files = {str(file.relative_to(old)): file.read_bytes() for file in old.rglob("*") if file.is_file()}
        hub.add_repo(REPO, files, kind="dataset")
        yield hub


def test_a_database_of_version_2_is_updated_with_the_key_alone(settings: Settings) -> None:
    file = settings.feedback_data / "feedback.sqlite"
    before = file.read_bytes()
    with pytest.raises(FeedbackError) as caught:
        FeedbackStore(f"sqlite:///{file}")
    assert caught.value.code == "database_key"
    file.write_bytes(before)
    with pytest.raises(FeedbackError) as caught:
        open_feedback(settings, read_only=True)
    assert caught.value.code == "database_older"
    assert file.read_bytes() == before
    feedback = open_feedback(settings)
    records = feedback.store.records()
    assert feedback.store.notices == ()
    assert [one.id for one in records if one.contributor == WHO["Anna"]] == ANNAS
    assert [one.contributor for one in records[3:]] == [WHO["Emil"], WHO["Ben"]]
    assert [(one.state, one.review, one.gold, one.reverted, one.superseded) for one in records] == [
        ("verified", "", False, False, True), ("verified", "approved", True, False, False), ("sealed", "", False, False, False),
        ("received", "", False, True, False), ("received", "", False, False, False),
    ]  # fmt: skip
    assert [one.comment for one in records] == ["first", "", "second thoughts", "only here", ""]
    assert (records[0].crop, records[1].span_s) == (make_crop(2, 4), (0.5, 1.5))
    assert records[0].predicted == make_record(2).predicted
    assert records[0].provenance["valence_arousal"] == "prior"
    assert {one.consent_statement for one in records} == {"adult_and_permitted"}
    assert [one.id for one in feedback.contributions(KEYS.code("Anna"))[0]] == ANNAS
    assert list(settings.feedback_data.glob("*.backup-v2-*"))
    feedback.close()
    again = open_feedback(settings, read_only=True)
    assert again.store.records() == records
    again.close()


def test_what_waited_is_finished_and_what_only_the_hub_had_comes_back(
    settings: Settings, hub: FakeHub, tmp_path: Path
) -> None:
    dora = [
        row for body in batches_on(hub).values() for row in decode(body) if row.contributor == WHO["Dora"]
    ]
    assert len(dora) == 1
    feedback = open_feedback(settings, TOKEN)
    assert len(pending_erasures(feedback.store)) == 2
    feedback.publisher.flush()
    feedback.publisher.flush()
    assert not pending_erasures(feedback.store)
    bens = [one.id for one in feedback.contributions(KEYS.code("Ben"))[0]]
    assert len(bens) == 2
    assert published_ids(hub) == dict.fromkeys([*ANNAS, *bens], 1)
    gone = [dora[0].id.encode(), WHO["Dora"].encode(), WHO["Carl"].encode()]
    assert not [
        need
        for need in gone
        for blob in [*everything_on(hub), *everything_in(settings.feedback_data)]
        if need in blob
    ]
    assert len(hub.commits(REPO, kind="dataset")) <= 2
    rows = [row for body in batches_on(hub).values() for row in decode(body)]
    assert read_counts(hub.files(REPO, kind="dataset")[CARD].decode()) == counts_of(rows)
    assert feedback.publisher.check() == []
    assert feedback.erase(KEYS.code("Anna")).published == "gone"
    assert published_ids(hub) == dict.fromkeys(bens, 1)
    feedback.close(0.1)


def test_without_its_disk_everything_that_was_published_is_here_again(
    settings: Settings, hub: FakeHub, tmp_path: Path
) -> None:
    (settings.feedback_data / "feedback.sqlite").unlink()
    feedback = open_feedback(settings, TOKEN)
    feedback.publisher.step()
    before = hub.files(REPO, kind="dataset")
    assert feedback.store.counts()["verified"] == len(published_ids(hub))
    assert (
        {one.id for one in feedback.contributions(KEYS.code("Anna"))[0]}
        == published_ids(hub).keys() & set(ANNAS)
        == set(ANNAS[:2])
    )
    assert hub.files(REPO, kind="dataset") == before
    assert feedback.erase(KEYS.code("Anna")).published == "gone"
    assert not [blob for blob in everything_on(hub) if WHO["Anna"].encode() in blob]
    feedback.close(0.1)
