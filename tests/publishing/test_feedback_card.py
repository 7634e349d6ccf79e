"""The card of the published dataset: counts, metadata, and what it tells."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_hub import FakeHub
from feedback_makers import ANNA, BEN, CARL
from feedback_publishing import REPO, TEXTS, Server, batches_on, counts_of
from huggingface_hub import DatasetCard

from hsemotion_space.feedback.card import CARD, dataset_card, read_counts
from hsemotion_space.feedback.dataset import COLUMNS, decode
from hsemotion_space.feedback.record import VERDICTS
from hsemotion_space.feedback.tables import Counts


def card_of(hub: FakeHub) -> str:
    return hub.files(REPO, kind="dataset")[CARD].decode()


def test_counts_of_the_card_are_those_of_the_files(server: Server, hub: FakeHub) -> None:
    for turn in range(4):
        server.say(2, ANNA)
        server.say(turn, BEN, crop=True)
        server.say(1, CARL if turn == 3 else ANNA)
        server.pass_time(61)
        rows = [row for body in batches_on(hub).values() for row in decode(body)]
        assert read_counts(card_of(hub)) == counts_of(rows)
    assert read_counts(card_of(hub)) == Counts(
        18, 6, 3, {"correct": 0, "wrong": 18, "cannot_tell": 0, "not_a_face": 0}, ("1",)
    )
    assert "| with a picture | 6 |" in card_of(hub)


@pytest.mark.parametrize(
    "spoiled",
    [None, b"# By hand\n", b"---\n[\n---\n", b"---\nfeedback_counts: {records: -1}\n---\n", b"\xff\xfe"],
)
def test_a_card_that_was_spoiled_is_counted_anew(server: Server, hub: FakeHub, spoiled: bytes | None) -> None:
    server.say(3, crop=True)
    server.pass_time(61)
    change = {"delete": [CARD]} if spoiled is None else {}
    hub.commit(REPO, {CARD: spoiled} if spoiled else {}, kind="dataset", **change)
    hub.commit(REPO, {"data/odd.parquet": b"no batch"}, kind="dataset")
    server.say(2, BEN)
    server.pass_time(61)
    counts = read_counts(card_of(hub))
    assert (counts.records, counts.with_crop, counts.contributors) == (5, 3, 2)


def test_the_card_has_metadata_that_the_hub_reads(hub: FakeHub) -> None:
    counts = Counts(1234, 200, 31, {"wrong": 1234}, ("1", "2"))
    card = DatasetCard(dataset_card(REPO, counts, TEXTS))
    card.validate(repo_type="dataset")
    data = card.data
    assert (data.license, data["license_name"], data.size_categories) == (
        "other",
        "research-only-consented-faces",
        ["1K<n<10K"],
    )
    assert data["license_link"] == f"https://huggingface.co/datasets/{REPO}#terms-of-use"
    assert "## Terms of use" in card.text
    assert data["configs"] == [
        {"config_name": name, "data_files": [{"split": "train", "path": path}]}
        for name, path in (("default", "data/[0-9]*/**/*.parquet"), ("traces", "data/traces/**/*.parquet"))
    ]
    assert data.annotations_creators == ["crowdsourced", "machine-generated"]
    assert data["extra_gated_prompt"].startswith("These are corrections")
    assert set(data["extra_gated_fields"].values()) == {"text", "checkbox"}
    assert data.pretty_name
    assert data.task_categories == ["image-classification"]
    assert read_counts(str(card)) == replace(counts, verdicts=dict.fromkeys(VERDICTS, 0) | counts.verdicts)


@pytest.mark.parametrize(
    ("records", "size"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**5, "100K<n<1M"), (10**8, "10M<n<100M")],
)
def test_the_size_category_follows_from_the_counts(records: int, size: str) -> None:
    assert DatasetCard(dataset_card(REPO, Counts(records), TEXTS)).data.size_categories == [size]


def test_the_card_tells_columns_consent_and_erasure() -> None:
    text = dataset_card(REPO, Counts(1, consent_versions=("1", "2")), TEXTS)
    for name, column in COLUMNS.items():
        assert f"| `{name}` | {column.kind} | {column.about} |" in text
    assert "### Version 1\n\n> labels: Keep my correction.  \n> publish: Also publish it." in text
    assert "### Version 2\n\n> (not known to this server)" in text
    assert "receipt code" in text
    assert "erased.txt" in text
