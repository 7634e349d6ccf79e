"""From a submission to a record, or to a sentence that says why not."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analysis_makers import make_analysis
from feedback_makers import refused
from intake_makers import ADDRESS, JOB, KEYS, KNOWN, PREPROCESSING, Clock, Desk

from hsemotion_space.feedback.consent import VERSION, read_consent
from hsemotion_space.feedback.crops import make_crop
from hsemotion_space.feedback.erase import erase_locally
from hsemotion_space.feedback.intake import SAVED, SAVED_BEFORE, Intake
from hsemotion_space.feedback.limits import Limits
from hsemotion_space.feedback.record import FeedbackError, to_json
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.tasks import TASKS


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_correction_becomes_a_record_of_what_was_predicted_and_said(desk: Desk) -> None:
    receipt = desk.send(
        2,
        corrected={"expression": "Fear", "action_units": {"AU4": 1}},
        comment=" I see\x00 it ",
        scopes=["labels", "publish"],
    )
    record, face = desk.record, desk.analysis.faces[1]
    assert (receipt.record_id, receipt.created, receipt.state, receipt.message) == (
        record.id,
        True,
        "received",
        SAVED,
    )
    assert record.contributor == KEYS.contributor(receipt.code)
    assert (record.verdict, record.comment) == ("wrong", "I see it")
    assert record.corrected == {"expression": {"Fear": 1.0}, "action_units": {"AU4": 1.0}}
    consent = record.consent_version, record.consent_scopes, record.consent_statement
    assert (
        consent
        == read_consent(["labels", "publish"], True)
        == (VERSION, ("labels", "publish"), "adult_and_permitted")
    )
    assert (record.kind, record.face, record.span_s, record.blind) == ("clip", 2, (), False)
    assert record.item == desk.intake.item(desk.analysis, 2) != desk.intake.item(desk.analysis, 1)
    box = face.track.boxes_xyxy[np.argmax(face.track.detection_scores)]
    assert record.box_xyxy == pytest.approx(
        [box[0] / 640, box[1] / 480, box[2] / 640, box[3] / 480], abs=1e-6
    )
    assert (record.checkpoint, record.checkpoint_sha256, record.preprocessing) == (
        "starter",
        "c" * 64,
        PREPROCESSING,
    )
    assert list(record.predicted) == [task.name for task in TASKS]
    for prediction in face.predictions:
        values = record.predicted[prediction.task.name]
        assert list(values) == list(prediction.task.label_names)
        assert np.array_equal(np.array(list(values.values()), np.float32), prediction.values)
        assert record.provenance[prediction.task.name] == prediction.provenance
    assert record.crop == b""


def test_the_stored_record_has_neither_code_nor_address_nor_digest_of_the_file(desk: Desk) -> None:
    receipt = desk.send()
    text = json.dumps(to_json(desk.record))
    for secret in (receipt.code, receipt.code.replace("-", ""), ADDRESS, desk.analysis.media.sha256, JOB):
        assert secret not in text


def test_a_task_without_a_value_is_left_out() -> None:
    analysis = make_analysis(1, kind="image")
    (face,) = analysis.faces
    lost = replace(face.predictions[1], values=np.full(2, np.nan, np.float32))
    analysis = replace(
        analysis, faces=(replace(face, predictions=(face.predictions[0], lost, *face.predictions[2:])),)
    )
    desk = Desk(analysis)
    desk.send()
    assert list(desk.record.predicted) == [task.name for task in TASKS if task is not TASKS[1]]


def test_the_crop_is_kept_only_if_it_was_ticked() -> None:
    for scopes, kept in (
        (["labels"], False),
        (["labels", "publish"], False),
        (["labels", "crop"], True),
        (["labels", "crop", "publish"], True),
    ):
        desk = Desk()
        receipt = desk.send(2, scopes=scopes)
        assert desk.store.records[receipt.record_id].crop == (make_crop(desk.analysis, 2) if kept else b"")


def test_sending_again_keeps_one_record_with_or_without_the_code(desk: Desk) -> None:
    first = desk.send()
    for code in ("", None, "  ", first.code, first.code.lower().replace("-", "")):
        again = desk.send(code=code)
        assert (again.code, again.record_id, again.created) == (first.code, first.record_id, False)
        assert again.message == SAVED_BEFORE
    assert len(desk.store.records) == 1
    for job, face in ((JOB[::-1], 1), (JOB, 2)):  # somebody else, as far as anybody knows
        known = replace(KNOWN, job=job)
        assert desk.intake.submit(desk.analysis, desk.submission(face), ADDRESS, known).code != first.code
    again = desk.intake.submit(
        desk.analysis, desk.submission(code=first.code), ADDRESS, replace(KNOWN, job=JOB[::-1])
    )
    assert again.record_id == first.record_id


@pytest.mark.parametrize(
    "change",
    [
        {"corrected": {"expression": "Anger"}}, {"verdict": "correct", "corrected": {}}, {"comment": "x"}, {"span_s": [0.5, 1.0]},
        {"scopes": ["labels", "publish"]}, {"code": KEYS.code("another")}, {"face": 2},
    ],
)  # fmt: skip
def test_saying_something_else_is_another_record(desk: Desk, change: dict[str, object]) -> None:
    receipt = desk.send()
    other = desk.send(**{"code": receipt.code, **change})
    assert other.created
    assert other.record_id != receipt.record_id


@pytest.mark.parametrize(
    ("change", "code"),
    [
        *(({"face": face}, "no_face") for face in (0, 3, "1", True, 1.0, None, [1], 10**400)),
        ({"verdict": "good"}, "verdict"),
        ({"verdict": "cannot_tell"}, "needless"),
        ({"verdict": "correct"}, "unlike"),
        ({"corrected": {}}, "no_correction"),
        ({"corrected": {"expression": "Joy"}}, "label"),
        ({"comment": "x" * 501}, "comment"),
        ({"scopes": []}, "no_scope"),
        ({"adult_and_permitted": False}, "statement"),
        ({"code": "ABCD"}, "mistyped"),
        ({"code": 7}, "code_type"),
        *(
            ({"span_s": span}, "span")
            for span in ([0.5], [1, 0.5], 3, "01", [0, float("nan")], [True, 2], [0, 10**400])
        ),
        ({"span_s": [-0.1, 1]}, "span_outside"),
        ({"span_s": [0, 3.1]}, "span_outside"),
        ({"span_s": [1.2, 1.6], "face": 2}, "span_empty"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_a_sentence(
    desk: Desk, change: dict[str, object], code: str
) -> None:
    with refused(code):
        desk.send(**change)
    assert not desk.store.records


def test_a_time_range_lies_in_the_track_and_all_of_the_track_is_no_range(desk: Desk) -> None:
    times = desk.analysis.faces[0].track.times_s
    whole = [round(float(times[0]), 2), round(float(times[-1]), 2)]
    for span in (whole, [], (), None, [0, float(times[-1]) + 0.009], [-0.009, float(times[-1])]):
        desk.send(span_s=span)
    assert desk.record.span_s == ()
    for span in ([0.5, 1.004], [0.5, 1.0], (0.502, 1)):
        desk.send(span_s=span)
    spans = {record.span_s for record in desk.store.records.values()}
    assert spans == {(), (0.5, 1.0)}
    rng = random.Random(1)
    for _ in range(300):
        start, end = sorted(rng.uniform(-0.01, times[-1] + 0.01) for _ in range(2))
        try:
            desk.send(span_s=[start, end])
        except FeedbackError as error:
            assert error.code == "span_empty"
    for record in desk.store.records.values():
        assert not record.span_s or times[0] <= record.span_s[0] <= record.span_s[1] <= times[-1]


def test_a_picture_has_no_time_range() -> None:
    desk = Desk(make_analysis(kind="image"))
    with refused("span_image"):
        desk.send(span_s=[0, 0])
    assert desk.send(span_s=[]).created


def test_what_is_kept_counts_against_the_limit_and_refusals_and_replays_do_not() -> None:
    desk = Desk(generous=False)
    desk.send(comment="1")
    for _ in range(20):
        assert not desk.send(comment="1").created
        for bad, code in (({"verdict": "bad"}, "verdict"), ({"face": 9}, "no_face")):
            with refused(code):
                desk.send(**bad)
    for comment in "2345":
        desk.send(comment=comment)
    with refused("limit"):
        desk.send(comment="6")
    assert desk.send(comment="6", client="203.0.113.9").created
    assert len(desk.store.records) == 6


def test_500_votes_from_one_client_become_50_records_in_a_day() -> None:
    clock = Clock(0)
    desk = Desk()
    intake = Intake(desk.store, KEYS, Limits(clock), desk.clock)
    for number in range(500):
        clock.now += 20
        try:
            intake.submit(
                desk.analysis,
                desk.submission(comment=str(number), code=KEYS.code(str(number))),
                ADDRESS,
                KNOWN,
            )
        except FeedbackError as error:
            assert error.code == "limit"
    assert len(desk.store.records) == 50


def test_the_real_store_keeps_what_was_sent_and_after_an_erasure_refuses_it(tmp_path: Path) -> None:
    desk = Desk()
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback.sqlite'}", desk.clock) as store:
        intake = Intake(store, KEYS, Limits(), desk.clock)
        submission = desk.submission(scopes=["labels", "crop"])
        receipt = intake.submit(desk.analysis, submission, ADDRESS, KNOWN)
        assert not intake.submit(desk.analysis, submission, ADDRESS, KNOWN).created
        (stored,) = store.records(contributor=KEYS.contributor(receipt.code))
        assert stored.id == receipt.record_id
        assert stored.crop == make_crop(desk.analysis, 1)
        erase_locally(store, KEYS.contributor(receipt.code))
        with refused("erased"):
            intake.submit(desk.analysis, submission, ADDRESS, KNOWN)
        assert not store.records()
