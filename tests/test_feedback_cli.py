from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_hub import FakeHub, use
from feedback_makers import BEN, make_crop, make_record, make_trace
from feedback_publishing import REPO, TOKEN, batches_on, everything_on, published_ids

from hsemotion_space.cli import main
from hsemotion_space.feedback.intake import Intake
from hsemotion_space.feedback.keys import Keys
from hsemotion_space.feedback.limits import Limits
from hsemotion_space.feedback.record import Values, Verdict
from hsemotion_space.feedback.store import FeedbackStore

SECRET = "a secret of forty characters, more or less"
KEYS = Keys(SECRET.encode())
CODES = [KEYS.code(str(number)) for number in range(4)]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HSEMOTION_FEEDBACK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HSEMOTION_FEEDBACK_SECRET", SECRET)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path / "data"


@pytest.fixture
def hub(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("HSEMOTION_FEEDBACK_REPO", REPO)
    with FakeHub(token=TOKEN) as hub, use(hub, monkeypatch, tmp_path / "hub", timeout_s=1):
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def open_store(data: Path) -> FeedbackStore:
    return FeedbackStore(f"sqlite:///{data / 'feedback.sqlite'}", reserve_bytes=0)


def add(
    data: Path,
    person: int,
    number: int,
    label: str = "Fear",
    verdict: Verdict = "wrong",
    scopes: tuple[str, ...] = ("labels", "crop", "publish"),
) -> str:
    corrected: dict[str, Values] = {"expression": {label: 1.0}} if verdict == "wrong" else {}
    values = {"verdict": verdict, "corrected": corrected, "scopes": scopes, "comment": "a comment"}
    record = make_record(number, contributor=KEYS.contributor(CODES[person]), **values)
    with open_store(data) as store:
        return store.add(replace(record, crop=make_crop(number) if "crop" in scopes else b"")).id


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    status = main(["feedback", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_feedback_without_a_database_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = "hsemotion-space: The feedback database feedback.sqlite does not exist.\n"
    for arguments in (["status"], ["export", data / "x"], ["verify"], ["review"]):
        assert run(capsys, *arguments) == (2, expected)


def test_status_prints_counts_tiers_and_agreement(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for person in (0, 1):
        add(data, person, 1)
        add(data, person, 2, "Anger")
    add(data, 2, 3)
    status, out = run(capsys, "status")
    assert status == 0
    assert "5 saved on this server. This server does not publish corrections." in out
    assert "Tiers: 1 raw, 4 agreed, 0 reviewed" in out
    assert "Expression: 1.000 (nominal), 2 items, 2 people" in out
    assert "Action units, AU1: No item was rated by two people." in out


def test_status_and_verify_work_while_the_page_writes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(data, 0, 1)
    with open_store(data):
        assert run(capsys, "status")[0] == 0
        assert run(capsys, "verify")[0] == 0
        status, out = run(capsys, "erase", CODES[0])
    assert status == 2
    assert "Another process writes to the feedback database" in out


def test_export_of_a_tier_is_loaded_by_datasets(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    datasets.disable_progress_bars()
    for person in (0, 1):
        add(data, person, 1)
    add(data, 2, 2, scopes=("labels", "crop"))
    status, out = run(capsys, "export", tmp_path / "agreed")
    assert status == 0
    assert f"2 rows by 2 contributors on 1 faces, 2 with a picture, to {tmp_path / 'agreed'}." in out
    assert "Left out: 1 not to be published." in out
    rows = datasets.load_dataset(str(tmp_path / "agreed"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["corrected_expression"] == ["Fear", "Fear"]
    assert "3 rows" in run(capsys, "export", tmp_path / "own", "--own", "--tier", "raw")[1]
    status, out = run(capsys, "export", tmp_path / "agreed")
    assert (status, "is not empty" in out) == (2, True)


def test_review_by_the_start_of_an_id(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fear, anger, doubt = add(data, 0, 1), add(data, 1, 1, "Anger"), add(data, 2, 2, verdict="cannot_tell")
    _, out = run(capsys, "review")
    texts = ("image, face 1: wrong Expression: Fear", "Expression: Anger", "cannot tell")
    for name, text in zip((fear, anger, doubt), texts, strict=True):
        assert re.search(f"{name[:12]}.*{text}", out)
    assert "comment: 'a comment'" in out
    assert "3 records need a review." in out
    assert run(capsys, "review", fear[:12], "--gold") == (0, "1 approved as known answers.\n")
    assert run(capsys, "review", anger[:12], "--reject", "--reviewer", "Mia") == (0, "1 rejected.\n")
    with open_store(data) as store:
        found = {one.id: (one.review, one.gold) for one in store.records()}
    assert found == {fear: ("approved", True), anger: ("rejected", False), doubt: ("", False)}
    assert "1 records need a review." in run(capsys, "review")[1]
    assert "1 reviewed" in run(capsys, "status")[1]


def test_review_reverts_everything_of_a_contributor(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        add(data, 0, number)
    other = add(data, 1, 9)
    revert = ["review", "--revert", KEYS.contributor(CODES[0])[:8]]
    assert run(capsys, *revert) == (0, "3 records are excluded.\n")
    with open_store(data) as store:
        assert [one.id for one in store.records() if not one.reverted] == [other]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["review", "ab"], "Add --approve, --reject or --gold"),
        (["review", "--approve"], "Add the ids of the records"),
        (["review", "zz", "--approve"], "No record starts with 'zz'"),
        (["review", "", "--approve"], "More than one record starts"),
        (["review", "--revert", "zz"], "No contributor starts"),
        (["push"], "Set HSEMOTION_FEEDBACK_REPO"),
        (["erase", "nonsense"], "typing error"),
    ],
)
def test_feedback_with_unusable_arguments_is_refused(
    data: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    add(data, 0, 1)
    add(data, 1, 2)
    status, out = run(capsys, *arguments)
    assert (status, problem in out) == (2, True), out


def test_push_verify_and_erase(data: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    mine, others = add(data, 0, 1), [add(data, 1, 2), add(data, 2, 3)]
    status, out = run(capsys, "push")
    assert (status, "3 published" in out) == (0, True)
    assert set(published_ids(hub)) == {mine, *others}
    expected = f"Checked 3 records and their batches here and in {REPO}; no problems.\n"
    assert run(capsys, "verify") == (0, expected)
    status, out = run(capsys, "erase", CODES[0])
    assert status == 0
    assert "1 correction and 1 image were erased from this server. The published rows were also erased" in out
    assert set(published_ids(hub)) == set(others)
    assert not any(make_crop(1) in blob for blob in everything_on(hub))
    assert run(capsys, "verify")[0] == 0
    assert TOKEN not in out


def test_erase_finishes_what_the_hub_refused(
    data: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(data, 0, 1)
    run(capsys, "push")
    monkeypatch.delenv("HF_TOKEN")
    status, out = run(capsys, "erase", CODES[0])
    assert (status, "NOT erased yet" in out) == (1, True)
    assert "Set HSEMOTION_FEEDBACK_REPO" in run(capsys, "erase")[1]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert run(capsys, "erase") == (0, "1 of 1 erasures are finished on the Hub.\n")
    assert not batches_on(hub)


def test_verify_finds_what_was_changed_on_the_hub(
    data: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    add(data, 0, 1)
    run(capsys, "push")
    add(data, 1, 2)
    run(capsys, "push")
    first, second = batches_on(hub)
    hub.commit(REPO, {first: b"PAR1 nonsense PAR1"}, kind="dataset")
    hub.commit(REPO, {"data/copy.parquet": hub.files(REPO, kind="dataset")[second]}, kind="dataset")
    status, out = run(capsys, "verify")
    assert status == 1
    for problem in (f"{first} differs", f"{first} has no", "1 rows are published more than once."):
        assert problem in out
    hub.commit(REPO, {}, delete=[second], kind="dataset")
    assert f"{second} was published but is missing." in run(capsys, "verify")[1]


def test_verify_finds_a_damaged_record(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(data, 0, 1)
    with open_store(data) as store, store.database._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE feedback_records SET body = replace(body, 'Fear', 'Joy')")
    status, out = run(capsys, "verify")
    assert (status, "Correction 1 is damaged" in out) == (1, True)


def test_traces_are_written_with_their_agreement_and_their_files(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "one.mp4").write_bytes(b"a clip")
    digest = hashlib.sha256(b"a clip").hexdigest()
    clip = Intake(None, KEYS, Limits()).face_item(digest, 1)  # type: ignore[arg-type]
    with open_store(data) as store:
        for attempt in ("first", "second"):
            store.add(make_trace(0, clip=clip, attempt=attempt))
        store.add(make_trace(0, clip=clip, contributor=BEN, consent_scopes=("labels",)))
    status, told = run(capsys, "traces", tmp_path / "all.csv", "--own", "--clips", tmp_path / "clips")
    assert status == 0 and told.splitlines() == [
        f"Wrote 3 traces to {tmp_path / 'all.csv'}.",
        f"{clip} is face 1 of one.mp4.",
        "Valence, two people: CCC 1.000, Kendall's tau 1.000, mean of 1 pairs.",
        "Valence, two passes of one person: CCC 1.000, Kendall's tau 1.000, mean of 1 pairs.",
    ]
    assert run(capsys, "traces", tmp_path / "shared.parquet")[1].startswith("Wrote 2 traces")
    assert run(capsys, "traces", tmp_path / "shared.txt")[0] == 2
