"""Traces from the browser to the dataset and back: what is refused, kept, published, restored and erased."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analysis_makers import make_analysis
from fake_hub import FakeHub, use
from feedback_makers import ANNA, BEN, NOW_S, make_crop, make_record, make_trace, refused
from feedback_publishing import Server, batches_on, everything_in, everything_on, published_ids
from hypothesis import given
from hypothesis import strategies as st
from intake_makers import ADDRESS, KEYS, KNOWN

from hsemotion_space.feedback import repository
from hsemotion_space.feedback.card import CARD, read_counts
from hsemotion_space.feedback.dataset import decode, encode
from hsemotion_space.feedback.export import export_own
from hsemotion_space.feedback.intake import Intake
from hsemotion_space.feedback.limits import Limits
from hsemotion_space.feedback.record import FeedbackError, from_json, to_json
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.feedback.trace import TraceRecord, TraceSubmission, read_trace

CLIP = make_analysis(frames=150, gap=False, kind="clip")
TRACK = CLIP.faces[0].track
TIMES = np.round(np.arange(TRACK.times_s[0], TRACK.times_s[-1], 0.1), 3).tolist()
GOOD = TraceSubmission(
    1, "Valence", "first", True, "keys", TIMES, [0.25] * len(TIMES), ["labels", "publish"], True, ""
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback.sqlite'}", lambda: NOW_S, reserve_bytes=0) as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(repository, "TIMEOUT_S", 2.0)
    with FakeHub() as hub, use(hub, monkeypatch, tmp_path / "hub", timeout_s=2):
        yield Server(hub, tmp_path / "here")


@given(st.sampled_from(sorted(TraceSubmission.__dataclass_fields__.keys() - {"face"})), ANYTHING)
def test_whatever_a_browser_sends_is_a_valid_trace_or_refused_with_a_sentence(
    name: str, value: object
) -> None:
    try:
        trace = read_trace(replace(GOOD, **{name: value}), TRACK)
    except FeedbackError as error:
        assert error.code.startswith(("trace", "span"))
    else:
        assert np.isfinite(trace.values).all() and len(trace.values) >= 2
        assert trace.times_s[0] >= TRACK.times_s[0] - 0.1 and trace.times_s[-1] <= TRACK.times_s[-1] + 0.1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"values": [1.01] * len(TIMES)}, "trace"),
        ({"values": [2000.0] * len(TIMES), "bounded": False}, "trace_range"),
        ({"values": [float("nan")] * len(TIMES)}, "trace_numbers"),
        ({"times_s": TIMES[::-1]}, "trace"),
        ({"times_s": [time + 1 for time in TIMES]}, "span_outside"),
        ({"times_s": np.linspace(0, 4, 500).tolist(), "values": [0.0] * 500}, "trace_numbers"),
        ({"values": [0.0]}, "trace"),
        ({"times_s": TIMES[:20], "values": [0.0] * 20}, "trace_sparse"),
        ({"device": "mind"}, "trace_kind"),
    ],
)  # fmt: skip
def test_a_trace_that_cannot_be_used_is_refused(changes: dict[str, object], code: str) -> None:
    with refused(code):
        read_trace(replace(GOOD, **changes), TRACK)


def test_a_trace_is_kept_as_it_was_given_once_per_attempt(store: FeedbackStore) -> None:
    intake = Intake(store, KEYS, Limits(), lambda: NOW_S)
    first = intake.trace(CLIP, GOOD, ADDRESS, KNOWN)
    again = intake.trace(CLIP, replace(GOOD, code=first.code), ADDRESS, KNOWN)
    assert (first.created, again.created, again.code) == (True, False, first.code)
    intake.trace(CLIP, replace(GOOD, code=first.code, attempt="second"), ADDRESS, KNOWN)
    newer = replace(GOOD, code=first.code, values=[0.5] * len(TIMES), scopes=["labels", "crop"])
    intake.trace(CLIP, newer, ADDRESS, KNOWN)
    kept = store.traces(contributor=KEYS.contributor(first.code))
    assert [(one.attempt, one.superseded) for one in kept] == [
        ("first", True),
        ("second", False),
        ("first", False),
    ]
    assert list(kept[0].times_s) == TIMES and set(kept[0].values) == {0.25}
    assert {one.clip for one in kept} == {intake.item(CLIP, 1)}
    assert kept[2].consent_scopes == ("labels",) and not store.records()
    assert store.counts()["received"] == 3
    for scopes, code in (([], "no_scope"), (["labels"], "statement")):
        with refused(code):
            intake.trace(CLIP, replace(GOOD, scopes=scopes, adult_and_permitted=False), ADDRESS, KNOWN)


def test_equal_traces_give_equal_files_and_come_back(tmp_path: Path) -> None:
    traces = [
        make_trace(number, attempt=attempt) for number, attempt in enumerate(("first", "second", "repair"))
    ]
    body = encode(traces)
    assert body == encode(traces[::-1])
    read = sorted(decode(body), key=lambda one: one.id)
    for one, other in zip(sorted(traces, key=lambda one: one.id), read, strict=True):
        assert replace(other, consent_statement=one.consent_statement, created_s=0.0) == one
        assert from_json(TraceRecord, json.loads(json.dumps(to_json(one)))) == one
    assert export_own(traces, tmp_path / "own.json") == 3
    assert json.loads((tmp_path / "own.json").read_text())["records"][0]["record"]["values"]


def test_traces_are_published_in_files_of_their_own_restored_and_erased(server: Server) -> None:
    given = server.say(2)
    traces = [make_trace(1), make_trace(2, contributor=BEN), make_trace(3, consent_scopes=("labels",))]
    for trace in traces:
        server.store.add(trace)
    server.publisher.flush()
    shared = [one.id for one in traces[:2]]
    assert published_ids(server.hub) == dict.fromkeys([*given, *shared], 1)
    assert sorted(path.startswith("data/traces/") for path in batches_on(server.hub)) == [False, True]
    counts = read_counts(server.hub.files("org/feedback", kind="dataset")[CARD].decode())
    assert (counts.records, sum(counts.verdicts.values())) == (4, 2)
    assert server.publisher.check() == []

    server.crash(lose_disk=True)
    server.publisher.step()
    assert {one.id: one.values for one in server.store.traces()} == {one.id: one.values for one in traces[:2]}
    assert server.publisher.check() == []
    report = server.erase(ANNA)
    assert (report.records, report.published) == (3, "gone")
    assert [one.contributor for one in server.store.traces()] == [BEN]
    gone = traces[0].id.encode()
    assert not [blob for blob in [*everything_on(server.hub), *everything_in(server.folder)] if gone in blob]


def test_a_database_of_version_3_is_updated_and_takes_traces(tmp_path: Path) -> None:
    with zipfile.ZipFile(Path(__file__).parent / "legacy" / "feedback-v3.zip") as archive:
        archive.extractall(tmp_path)
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback.sqlite'}", lambda: NOW_S, reserve_bytes=0) as store:
        kept = store.records()
        given = [make_record(0), make_record(1, contributor=BEN, verdict="correct"), make_record(2, contributor=BEN, scopes=("labels",))]  # fmt: skip
        assert [to_json(one) for one in kept] == [to_json(one) for one in given]
        assert (kept[0].crop, [one.state for one in kept]) == (make_crop(0), ["pushed", "pushed", "received"])
        store.add(make_trace())
        assert [one.id for one in store.traces()] == [make_trace().id]
        assert store.records() == kept and store.notices == ()
    assert list(tmp_path.glob("*.backup-v3-*"))
