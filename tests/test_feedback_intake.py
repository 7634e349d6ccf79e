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
from intake_makers import ADDRESS, JOB, KEYS, KNOWN, PREPROCESSING, Clock, Sender

from hsemotion_space.feedback.consent import VERSION, read_consent
from hsemotion_space.feedback.crops import make_crop
from hsemotion_space.feedback.erase import erase_locally
from hsemotion_space.feedback.intake import SAVED, SAVED_BEFORE, Intake, Receipt
from hsemotion_space.feedback.limits import Limits
from hsemotion_space.feedback.record import FeedbackError, to_json
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.tasks import TASKS


@pytest.fixture
def sender() -> Sender:
    return Sender()


def test_submit_stores_the_prediction_and_the_correction(sender: Sender) -> None:
    corrected, scopes = {"expression": "Fear", "action_units": {"AU4": 1}}, ["labels", "publish"]
    receipt = sender.send(2, corrected=corrected, comment=" I see\x00 it ", scopes=scopes)
    record, face = sender.record, sender.analysis.faces[1]
    assert (receipt, receipt.message) == (Receipt(receipt.code, record.id, True, "received"), SAVED)
    assert record.contributor == KEYS.contributor(receipt.code)
    assert (record.verdict, record.comment) == ("wrong", "I see it")
    assert record.corrected == {"expression": {"Fear": 1.0}, "action_units": {"AU4": 1.0}}
    consent = record.consent_version, record.consent_scopes, record.consent_statement
    assert consent == read_consent(scopes, True) == (VERSION, tuple(scopes), "adult_and_permitted")
    assert (record.kind, record.face, record.span_s, record.blind) == ("clip", 2, (), False)
    assert record.item == sender.intake.item(sender.analysis, 2) != sender.intake.item(sender.analysis, 1)
    box = face.track.boxes_xyxy[np.argmax(face.track.detection_scores)]
    assert record.box_xyxy == pytest.approx(box / [640, 480, 640, 480], abs=1e-6)
    assert (record.checkpoint, record.checkpoint_sha256) == ("starter", "c" * 64)
    assert record.preprocessing == PREPROCESSING
    assert list(record.predicted) == [task.name for task in TASKS]
    for prediction in face.predictions:
        values = record.predicted[prediction.task.name]
        assert list(values) == list(prediction.task.label_names)
        assert np.array_equal(np.array(list(values.values()), np.float32), prediction.values)
        assert record.provenance[prediction.task.name] == prediction.provenance
    assert record.crop == b""


def test_submit_stores_neither_code_nor_address_nor_digest_of_the_file(sender: Sender) -> None:
    receipt = sender.send()
    text = json.dumps(to_json(sender.record))
    for secret in (receipt.code, receipt.code.replace("-", ""), ADDRESS, sender.analysis.media.sha256, JOB):
        assert secret not in text


def test_submit_leaves_a_task_without_a_value_out() -> None:
    analysis = make_analysis(1, kind="image")
    (face,) = analysis.faces
    unknown = replace(face.predictions[1], values=np.full(2, np.nan, np.float32))
    face = replace(face, predictions=(face.predictions[0], unknown, *face.predictions[2:]))
    sender = Sender(replace(analysis, faces=(face,)))
    sender.send()
    assert list(sender.record.predicted) == [task.name for task in TASKS if task is not TASKS[1]]


def test_submit_stores_the_crop_only_with_consent() -> None:
    for scopes in ((), ("publish",), ("crop",), ("crop", "publish")):
        sender = Sender()
        sender.send(2, scopes=["labels", *scopes])
        assert sender.record.crop == (make_crop(sender.analysis, 2) if "crop" in scopes else b"")


def test_submit_again_stores_one_record_with_or_without_the_code(sender: Sender) -> None:
    first = sender.send()
    for code in ("", None, "  ", first.code, first.code.lower().replace("-", "")):
        again = sender.send(code=code)
        assert (again.code, again.record_id, again.created) == (first.code, first.record_id, False)
        assert again.message == SAVED_BEFORE
    assert len(sender.store.records) == 1
    for job, face in ((JOB[::-1], 1), (JOB, 2)):  # somebody else, as far as anybody knows
        known = replace(KNOWN, job=job)
        assert (
            sender.intake.submit(sender.analysis, sender.submission(face), ADDRESS, known).code != first.code
        )
    known = replace(KNOWN, job=JOB[::-1])
    again = sender.intake.submit(sender.analysis, sender.submission(code=first.code), ADDRESS, known)
    assert again.record_id == first.record_id


@pytest.mark.parametrize(
    "change",
    [
        {"corrected": {"expression": "Anger"}}, {"verdict": "correct", "corrected": {}}, {"comment": "x"}, {"span_s": [0.5, 1.0]},
        {"scopes": ["labels", "publish"]}, {"code": KEYS.code("another")}, {"face": 2},
    ],
)  # fmt: skip
def test_submit_of_another_correction_stores_another_record(
    sender: Sender, change: dict[str, object]
) -> None:
    receipt = sender.send()
    other = sender.send(**{"code": receipt.code, **change})
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
def test_submit_of_invalid_values_is_refused(sender: Sender, change: dict[str, object], code: str) -> None:
    with refused(code):
        sender.send(**change)
    assert not sender.store.records


def test_submit_of_a_time_range_stores_one_inside_the_track(sender: Sender) -> None:
    times = sender.analysis.faces[0].track.times_s
    whole = [round(float(times[0]), 2), round(float(times[-1]), 2)]
    for span in (whole, [], (), None, [0, float(times[-1]) + 0.009], [-0.009, float(times[-1])]):
        sender.send(span_s=span)
    assert sender.record.span_s == ()
    for span in ([0.5, 1.004], [0.5, 1.0], (0.502, 1)):
        sender.send(span_s=span)
    spans = {record.span_s for record in sender.store.records.values()}
    assert spans == {(), (0.5, 1.0)}
    rng = random.Random(1)
    for _ in range(300):
        start, end = sorted(rng.uniform(-0.01, times[-1] + 0.01) for _ in range(2))
        try:
            sender.send(span_s=[start, end])
        except FeedbackError as error:
            assert error.code == "span_empty"
    for record in sender.store.records.values():
        assert not record.span_s or times[0] <= record.span_s[0] <= record.span_s[1] <= times[-1]


def test_submit_of_a_time_range_of_a_picture_is_refused() -> None:
    sender = Sender(make_analysis(kind="image"))
    with refused("span_image"):
        sender.send(span_s=[0, 0])
    assert sender.send(span_s=[]).created


def test_submit_counts_stored_records_alone_against_the_limit() -> None:
    sender = Sender(generous=False)
    sender.send(comment="1")
    for _ in range(20):
        assert not sender.send(comment="1").created
        for bad, code in (({"verdict": "bad"}, "verdict"), ({"face": 9}, "no_face")):
            with refused(code):
                sender.send(**bad)
    for comment in "2345":
        sender.send(comment=comment)
    with refused("limit"):
        sender.send(comment="6")
    assert sender.send(comment="6", client="203.0.113.9").created
    assert len(sender.store.records) == 6


def test_submit_of_500_votes_from_one_client_stores_50_in_a_day() -> None:
    clock = Clock(0)
    sender = Sender()
    intake = Intake(sender.store, KEYS, Limits(clock), sender.clock)
    for number in range(500):
        clock.now += 20
        submission = sender.submission(comment=str(number), code=KEYS.code(str(number)))
        try:
            intake.submit(sender.analysis, submission, ADDRESS, KNOWN)
        except FeedbackError as error:
            assert error.code == "limit"
    assert len(sender.store.records) == 50


def test_submit_to_a_database_is_refused_after_an_erasure(tmp_path: Path) -> None:
    sender = Sender()
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback.sqlite'}", sender.clock) as store:
        intake = Intake(store, KEYS, Limits(), sender.clock)
        submission = sender.submission(scopes=["labels", "crop"])
        receipt = intake.submit(sender.analysis, submission, ADDRESS, KNOWN)
        assert not intake.submit(sender.analysis, submission, ADDRESS, KNOWN).created
        (stored,) = store.records(contributor=KEYS.contributor(receipt.code))
        assert stored.id == receipt.record_id
        assert stored.crop == make_crop(sender.analysis, 1)
        erase_locally(store, KEYS.contributor(receipt.code))
        with refused("erased"):
            intake.submit(sender.analysis, submission, ADDRESS, KNOWN)
        assert not store.records()
