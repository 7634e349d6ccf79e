from __future__ import annotations

import base64
import json
import random
import re
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from analysis_makers import make_analysis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hsemotion_space.feedback import tickets
from hsemotion_space.feedback.consent import ASKED, LADDER, STATEMENT, TEXTS, VERSION, read_consent, version_hash, wording
from hsemotion_space.feedback.crops import make_crop
from hsemotion_space.feedback.intake import WRONG_TICKET, Intake, Submission
from hsemotion_space.feedback.keys import CHECK_SYMBOLS, CODE_SYMBOLS, Keys, read_code
from hsemotion_space.feedback.limits import DAY_S, HOUR_S, Limits, Rule
from hsemotion_space.feedback.records import FeedbackError, FeedbackRecord, record_from_json, to_json
from hsemotion_space.feedback.store import FeedbackStore
from hsemotion_space.settings import Settings
from hsemotion_space.tasks import TASKS, Task
from hsemotion_space.types import Analysis

NOW_S = 1_750_000_000.0
KEYS = Keys(b"k" * 32)
PREPROCESSING = "f" * 64
ADDRESS = "198.51.100.7"


class Clock:
    def __init__(self, now: float = NOW_S) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class FakeAck:
    created: bool
    state: str = "received"


class FakeStore:
    """Keeps records by id, as JSON text, and refuses what cannot be read back."""

    def __init__(self) -> None:
        self.records: dict[str, FeedbackRecord] = {}
        self.crops: dict[str, bytes] = {}

    def add(self, record: FeedbackRecord, crop: bytes = b"") -> FakeAck:
        created = record.id not in self.records
        if created:
            read = record_from_json(json.loads(json.dumps(to_json(record), allow_nan=False)))
            assert read == record
            self.records[record.id], self.crops[record.id] = read, crop
        return FakeAck(created)

    def knows(self, contributor: str) -> bool:
        return any(record.contributor == contributor for record in self.records.values())


class Desk:
    """An intake with a store, a clock and a result that it made tickets for."""

    def __init__(self, analysis: Analysis | None = None, generous: bool = True) -> None:
        self.clock, self.store = Clock(), FakeStore()
        limits = Limits(Clock(0), [Rule(10**9, DAY_S)], [Rule(10**9, HOUR_S)]) if generous else Limits(Clock(0))
        self.intake = Intake(self.store, KEYS, limits, self.clock)
        self.analysis = analysis or make_analysis()
        self.tickets = self.intake.offer(self.analysis, PREPROCESSING)

    def submission(self, face: int = 1, **changes: object) -> Submission:
        usual = Submission(self.tickets[face], "wrong", {"expression": "Fear"}, [], "", ["labels"], True, "")
        return replace(usual, **changes)

    def send(self, face: int = 1, client: str = ADDRESS, **changes: object):
        return self.intake.submit(self.analysis, self.submission(face, **changes), client)

    @property
    def record(self) -> FeedbackRecord:
        (record,) = self.store.records.values()
        return record


@pytest.fixture
def desk() -> Desk:
    return Desk()


def run_all(functions: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


# keys and receipt codes


def test_the_secret_is_made_once_for_the_owner_only_and_all_who_race_for_it_get_the_same(tmp_path: Path) -> None:
    secrets = set()
    for number in range(20):
        folder, start, found = tmp_path / str(number) / "data", threading.Barrier(6), []

        def make(folder: Path = folder, start: threading.Barrier = start, found: list[bytes] = found) -> None:
            start.wait(30)
            found.append(Keys.from_settings(Settings(feedback_data=folder)).secret)

        run_all([make] * 6)
        assert len(found) == 6
        assert len(set(found)) == 1
        assert [file.name for file in folder.iterdir()] == ["secret"]
        assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
        secrets.add(found[0])
    assert len(secrets) == 20
    assert {len(secret) for secret in secrets} == {32}


def test_a_secret_of_the_settings_makes_no_file_and_must_not_be_short(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    keys = Keys.from_settings(Settings(feedback_data=folder, feedback_secret="correct horse battery"))
    assert not folder.exists()
    assert keys != Keys.from_settings(Settings(feedback_secret="correct horse battery!"))
    assert "correct horse" not in repr(keys)
    with pytest.raises(FeedbackError, match="at least 16"):
        Keys.from_settings(Settings(feedback_secret="short"))


@pytest.mark.parametrize("content", [b"", b"ab", b"zz" * 32, b"\xff" * 64, b"a" * 66])
def test_a_damaged_secret_is_not_replaced_because_receipts_hang_on_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(FeedbackError, match="damaged") as caught:
        Keys.from_settings(Settings(feedback_data=tmp_path))
    assert str(tmp_path) not in str(caught.value)
    assert (tmp_path / "secret").read_bytes() == content


def test_a_folder_that_cannot_be_made_is_told_without_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FeedbackError, match="key of this server") as caught:
        Keys.from_settings(Settings(feedback_data=tmp_path / "file" / "data"))
    assert str(tmp_path) not in str(caught.value)


def test_hashes_of_different_purposes_have_nothing_in_common() -> None:
    code = KEYS.code("x")
    contributor = KEYS.contributor(code)
    hashes = [contributor, KEYS.pseudonym(contributor), KEYS.pseudonym(KEYS.pseudonym(contributor)), KEYS.media(contributor)]
    hashes += [KEYS.client(ADDRESS, day) for day in range(3)] + [Keys(b"j" * 32).contributor(code)]
    assert len(set(hashes)) == len(hashes)
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in hashes)


def test_addresses_of_one_customer_are_one_client() -> None:
    same = [("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"), ("::ffff:198.51.100.7", ADDRESS)]
    other = [("2001:db8:1:2::1", "2001:db8:1:3::1"), (ADDRESS, "198.51.100.8"), ("", "unknown"), ("\ud800", "")]
    assert all(KEYS.client(first, 1) == KEYS.client(second, 1) for first, second in same)
    assert all(KEYS.client(first, 1) != KEYS.client(second, 1) for first, second in other)


def test_a_receipt_code_is_read_however_it_was_typed() -> None:
    for number in range(200):
        code = KEYS.code(str(number))
        assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){6}[0-9A-HJKMNP-TV-Z]{2}[0-9A-Z*~$=]", code)
        sloppy = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
        assert read_code(code) == read_code(f"  {sloppy}\n") == read_code(code.replace("-", "")) == code
        assert KEYS.contributor(sloppy) == KEYS.contributor(code)
    assert len({KEYS.code(str(number)) for number in range(5000)}) == 5000


def test_every_wrong_symbol_and_every_swap_of_neighbors_in_a_code_is_noticed() -> None:
    for number in range(10):
        code = KEYS.code(str(number)).replace("-", "")
        wrong = [
            code[:place] + symbol + code[place + 1 :]
            for place in range(len(code))
            for symbol in (CODE_SYMBOLS if place < len(code) - 1 else CHECK_SYMBOLS)
            if symbol != code[place]
        ]
        swapped = [code[:place] + code[place + 1] + code[place] + code[place + 2 :] for place in range(len(code) - 1)]
        for text in [*wrong, *(text for text in swapped if text != code), code[:-1], code + "0", code * 100, ""]:
            with pytest.raises(FeedbackError, match="typing mistake"):
                read_code(text)


# tickets

REFERENCE = tickets.Reference("m" * 32, "clip", 2, "starter", PREPROCESSING, "d" * 64)


def test_a_ticket_says_what_it_was_issued_for_is_url_safe_and_never_the_same_twice() -> None:
    texts = [tickets.issue(KEYS, REFERENCE, NOW_S + 0.9) for _ in range(50)]
    read = [tickets.verify(KEYS, text, NOW_S) for text in texts]
    assert {one.reference for one in read} == {REFERENCE}
    assert {one.expires_s - one.issued_s for one in read} == {1800}
    assert len({one.nonce for one in read}) == len(set(texts)) == 50
    assert all(re.fullmatch(r"[\w.-]+", text, re.ASCII) and len(text) < 600 for text in texts)


def test_no_change_of_a_ticket_goes_unnoticed() -> None:
    text = tickets.issue(KEYS, REFERENCE, NOW_S)
    rng = random.Random(2)
    changed = [text[:place] + rng.choice("abcXYZ019_-.") + text[place + 1 :] for place in range(len(text))]
    changed += [text[:place] for place in range(len(text))] + [text + "a", text + "=", " " + text, "", ".", text.upper()]
    for one in set(changed) - {text}:
        with pytest.raises(FeedbackError) as caught:
            tickets.verify(KEYS, one, NOW_S)
        assert str(caught.value) == tickets.DAMAGED


@pytest.mark.parametrize("value", [None, 1, 1.5, True, [], {}, b"a.b", "é.a", "\ud800", "a" * 10**6, ".".join(["a" * 64] * 3)])
def test_what_is_no_ticket_is_refused(value: object) -> None:
    with pytest.raises(FeedbackError, match="not made here"):
        tickets.verify(KEYS, value, NOW_S)


@pytest.mark.parametrize(
    "payload", [b"null", b"[]", b"[1,2,3]", b'{"a":1}', b"\xff", b"[" * 500, json.dumps([*astuple(REFERENCE), "n"]).encode()]
)
def test_a_signed_ticket_of_another_form_is_refused(payload: bytes) -> None:
    encoded = base64.urlsafe_b64encode(payload).decode().rstrip("=")
    with pytest.raises(FeedbackError, match="not made here"):
        tickets.verify(KEYS, f"{encoded}.{KEYS.sign('ticket', encoded)}", NOW_S)


def test_a_ticket_of_another_server_or_purpose_is_refused() -> None:
    text = tickets.issue(KEYS, REFERENCE, NOW_S)
    encoded = text.partition(".")[0]
    for one in (tickets.issue(Keys(b"j" * 32), REFERENCE, NOW_S), f"{encoded}.{KEYS.sign('media', encoded)}"):
        with pytest.raises(FeedbackError, match="not made here"):
            tickets.verify(KEYS, one, NOW_S)


@pytest.mark.parametrize(
    ("later_s", "complaint"),
    [(0, ""), (1800, ""), (1801, "too old"), (86400, "too old"), (-300, ""), (-301, "clock"), (-86400, "clock"), (3e8, "too old")],
)
def test_a_ticket_lives_half_an_hour_and_clocks_may_differ_by_five_minutes(later_s: float, complaint: str) -> None:
    text = tickets.issue(KEYS, REFERENCE, NOW_S)
    if complaint:
        with pytest.raises(FeedbackError, match=complaint):
            tickets.verify(KEYS, text, NOW_S + later_s)
    else:
        assert tickets.verify(KEYS, text, NOW_S + later_s).reference == REFERENCE


# consent


def test_every_version_of_the_texts_has_the_hash_of_its_text() -> None:
    assert TEXTS[VERSION] == wording(), "texts were changed: keep the old ones, and give VERSION a new date and hash"
    for version, text in TEXTS.items():
        assert re.fullmatch(r"20\d\d-\d\d-\d\d-" + version_hash(text), version), f"{version} must end with {version_hash(text)}"
    assert all(step.text in wording() and step.title in wording() for step in LADDER)
    assert STATEMENT in wording()


def test_the_texts_tell_what_matters() -> None:
    assert [step.name for step in LADDER] == ["process", *ASKED]
    labels, crop, publish = (step.text for step in LADDER[1:])
    assert all("erase" in text for text in (labels, crop, publish))
    assert "personal data and not anonymous" in crop
    assert "224" in crop
    assert "research" in publish
    assert "18" in STATEMENT


def test_any_mix_of_steps_with_the_labels_is_taken_in_the_order_of_the_ladder() -> None:
    for scopes in (["labels"], ["crop", "labels"], ["publish", "labels", "labels"], ("publish", "crop", "labels")):
        consent = read_consent(scopes, True)
        assert consent.scopes == tuple(name for name in ASKED if name in scopes)
        assert (consent.version, consent.adult_and_permitted) == (VERSION, True)


@pytest.mark.parametrize(
    ("scopes", "statement", "complaint"),
    [
        ([], True, "nothing can be kept"), (["crop", "publish"], True, "nothing can be kept"),
        (["labels", "process"], True, "must be a list"), (["labels", "sell"], True, "must be a list"), ("labels", True, "must be a list"),
        (["labels", 1], True, "must be a list"), (["labels", ["crop"]], True, "must be a list"), (None, True, "must be a list"),
        ({"labels": True}, True, "must be a list"), (["labels"], False, "18 or older"), (["labels"], 1, "18 or older"),
        (["labels"], "true", "18 or older"), (["labels"], None, "18 or older"),
    ],
)  # fmt: skip
def test_consent_that_is_not_clear_is_none(scopes: object, statement: object, complaint: str) -> None:
    with pytest.raises(FeedbackError, match=complaint):
        read_consent(scopes, statement)


# limits


def count_taken(limits: Limits, client: str, tries: int) -> int:
    taken = 0
    for _ in range(tries):
        try:
            limits.take(client)
        except FeedbackError:
            continue
        taken += 1
    return taken


def test_a_client_may_send_five_a_minute_and_fifty_a_day() -> None:
    clock = Clock(7.0)
    limits = Limits(clock)
    assert count_taken(limits, "a", 100) == 5
    with pytest.raises(FeedbackError, match="again in 60 seconds"):
        limits.take("a")
    assert count_taken(limits, "b", 1) == 1
    clock.now += 59.5
    with pytest.raises(FeedbackError, match=r"again in 1 second[.]"):
        limits.take("a")
    total = 5
    for _ in range(30):
        clock.now += 61
        total += count_taken(limits, "a", 100)
    assert total == 50
    with pytest.raises(FeedbackError, match="again in 24 hours"):
        limits.take("a")
    clock.now = 7.0 + DAY_S
    assert count_taken(limits, "a", 100) == 5


def test_all_together_may_send_600_an_hour_whatever_the_number_of_clients() -> None:
    clock = Clock(0)
    limits = Limits(clock)
    assert sum(count_taken(limits, f"client {number}", 1) for number in range(5000)) == 600
    clock.now = 1800.0
    with pytest.raises(FeedbackError, match=r"arriving just now.*again in 30 minutes"):
        limits.take("new")
    clock.now = HOUR_S
    assert sum(count_taken(limits, f"client {number}", 1) for number in range(5000)) == 600


def test_memory_is_bounded_over_days_of_flooding() -> None:
    clock = Clock(0)
    limits = Limits(clock)
    for hour in range(60):
        clock.now = hour * HOUR_S
        assert sum(count_taken(limits, f"{hour} {number}", 1) for number in range(650)) == 600
        assert len(limits) <= 24 * 600
        assert len(limits._of) <= 24 * 600
    clock.now += 2 * DAY_S
    limits.take("last")
    assert (len(limits), len(limits._of)) == (1, 1)


def test_what_is_given_back_is_free_again_and_only_once() -> None:
    limits = Limits(Clock(0))
    taken = [limits.take("a") for _ in range(5)]
    limits.give_back("a", taken[0])
    assert count_taken(limits, "a", 10) == 1
    limits.give_back("b", taken[0])
    limits.give_back("a", 99.0)
    assert count_taken(limits, "a", 10) == 0
    for one in [*taken, *taken]:
        limits.give_back("a", one)
    assert len(limits) == 0


def test_many_threads_get_no_more_than_one() -> None:
    limits, taken = Limits(Clock(0), [Rule(500, 60)]), []
    run_all([lambda: taken.append(count_taken(limits, "a", 200))] * 8)
    assert sum(taken) == 500


# intake


def test_a_correction_becomes_a_record_of_what_was_predicted_and_said(desk: Desk) -> None:
    receipt = desk.send(
        2, corrected={"expression": "Fear", "action_units": {"AU4": 1}}, comment=" I see\x00 it ", scopes=["labels", "publish"]
    )
    record, face = desk.record, desk.analysis.faces[1]
    assert (receipt.record_id, receipt.created, receipt.state, receipt.words) == (record.id, True, "received", "Saved here.")
    assert record.contributor == KEYS.contributor(receipt.code)
    assert (record.verdict, record.comment) == ("wrong", "I see it")
    assert record.corrected == {"expression": {"Fear": 1.0}, "action_units": {"AU4": 1.0}}
    assert record.consent == read_consent(["labels", "publish"], True)
    subject, predicted = record.subject, record.predicted
    assert (subject.media, subject.kind, subject.face, subject.span_s) == (KEYS.media(desk.analysis.media.sha256), "clip", 2, ())
    box = face.track.boxes_xyxy[np.argmax(face.track.detection_scores)]
    assert subject.box_xyxy == pytest.approx([box[0] / 640, box[1] / 480, box[2] / 640, box[3] / 480], abs=1e-6)
    assert (predicted.checkpoint, predicted.checkpoint_sha256, predicted.preprocessing) == ("starter", "c" * 64, PREPROCESSING)
    assert [one.task for one in predicted.tasks] == [task.name for task in TASKS]
    for one, prediction in zip(predicted.tasks, face.predictions, strict=True):
        assert list(one.values) == list(prediction.task.label_names)
        assert np.array_equal(np.array(list(one.values.values()), np.float32), prediction.values)
        assert (one.provenance, one.frames, one.task_version) == (prediction.provenance, prediction.frames, prediction.task.version)
        assert bool(one.spread) == (prediction.task.scope == "frame")
    assert desk.store.crops[record.id] == b""


def test_the_stored_record_has_neither_code_nor_address_nor_digest_of_the_file(desk: Desk) -> None:
    receipt = desk.send()
    text = json.dumps(to_json(desk.record))
    for secret in (receipt.code, receipt.code.replace("-", ""), ADDRESS, desk.analysis.media.sha256, desk.tickets[1]):
        assert secret not in text


def test_a_task_without_a_value_is_left_out_and_a_picture_has_no_spread() -> None:
    analysis = make_analysis(1, kind="image")
    (face,) = analysis.faces
    lost = replace(face.predictions[1], values=np.full(2, np.nan, np.float32))
    analysis = replace(analysis, faces=(replace(face, predictions=(face.predictions[0], lost, *face.predictions[2:])),))
    desk = Desk(analysis)
    desk.send()
    assert [one.task for one in desk.record.predicted.tasks] == [task.name for task in TASKS if task is not TASKS[1]]
    assert not any(one.spread for one in desk.record.predicted.tasks)


def test_the_crop_is_kept_only_if_it_was_ticked() -> None:
    for scopes, kept in (
        (["labels"], False),
        (["labels", "publish"], False),
        (["labels", "crop"], True),
        (["labels", "crop", "publish"], True),
    ):
        desk = Desk()
        receipt = desk.send(2, scopes=scopes)
        assert desk.store.crops[receipt.record_id] == (make_crop(desk.analysis, 2) if kept else b"")


def test_sending_again_keeps_one_record_with_or_without_the_code(desk: Desk) -> None:
    first = desk.send()
    for code in ("", None, "  ", first.code, first.code.lower().replace("-", "")):
        again = desk.send(code=code)
        assert (again.code, again.record_id, again.created) == (first.code, first.record_id, False)
        assert again.words == "You had sent this before; it is kept once."
    assert len(desk.store.records) == 1
    later = desk.intake.offer(desk.analysis, PREPROCESSING)[1]
    assert desk.send(ticket=later, code=first.code).record_id == first.record_id
    assert desk.send(ticket=later).code != first.code  # somebody else, as far as anybody knows


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


def test_a_correction_belongs_to_the_result_that_its_ticket_was_made_for(desk: Desk) -> None:
    other_media = make_analysis(seed=1)
    reread = replace(desk.analysis, faces=make_analysis(seed=1).faces)
    weights = replace(desk.analysis, checkpoint=replace(desk.analysis.checkpoint, heads_sha256="a" * 64))
    renamed = replace(desk.analysis, checkpoint=replace(desk.analysis.checkpoint, id="other"))
    as_picture = replace(desk.analysis, media=replace(desk.analysis.media, kind="image"))
    without = replace(desk.analysis, faces=desk.analysis.faces[:1])
    for analysis, face in [(other_media, 1), (reread, 1), (weights, 1), (renamed, 1), (as_picture, 1), (without, 2)]:
        with pytest.raises(FeedbackError) as caught:
            desk.intake.submit(analysis, desk.submission(face), ADDRESS)
        assert str(caught.value) == WRONG_TICKET
    assert not desk.store.records


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"verdict": "good"}, "verdict must be"),
        ({"verdict": "cannot_tell"}, "belong to the verdict"),
        ({"verdict": "correct"}, "must be what was predicted"),
        ({"corrected": {}}, "at least one task"),
        ({"corrected": {"expression": "Joy"}}, "must be one of"),
        ({"comment": "x" * 501}, "at most 500"),
        ({"scopes": []}, "nothing can be kept"),
        ({"adult_and_permitted": False}, "18 or older"),
        ({"code": "ABCD"}, "typing mistake"),
        ({"code": 7}, "must be a text"),
        *(({"span_s": span}, "start and a later end") for span in ([0.5], [1, 0.5], 3, "01", [0, float("nan")], [True, 2], [0, 10**400])),
        ({"span_s": [-0.1, 1]}, "is visible from 0.00 to 2.9"),
        ({"span_s": [0, 3.1]}, "is visible from"),
        ({"span_s": [1.2, 1.6], "face": 2}, "Face 2 is not visible between 1.20 and 1.60 s"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_a_sentence(desk: Desk, change: dict[str, object], complaint: str) -> None:
    with pytest.raises(FeedbackError, match=complaint):
        desk.send(**change)
    assert not desk.store.records


def test_a_time_range_lies_in_the_track_and_all_of_the_track_is_no_range(desk: Desk) -> None:
    times = desk.analysis.faces[0].track.times_s
    whole = [round(float(times[0]), 2), round(float(times[-1]), 2)]
    for span in (whole, [], (), None, [0, float(times[-1]) + 0.009], [-0.009, float(times[-1])]):
        desk.send(span_s=span)
    assert desk.record.subject.span_s == ()
    for span in ([0.5, 1.004], [0.5, 1.0], (0.502, 1)):
        desk.send(span_s=span)
    spans = {record.subject.span_s for record in desk.store.records.values()}
    assert spans == {(), (0.5, 1.0)}
    rng = random.Random(1)
    for _ in range(300):
        start, end = sorted(rng.uniform(-0.01, times[-1] + 0.01) for _ in range(2))
        try:
            desk.send(span_s=[start, end])
        except FeedbackError as error:
            assert "not visible between" in str(error)
    for record in desk.store.records.values():
        assert not record.subject.span_s or times[0] <= record.subject.span_s[0] <= record.subject.span_s[1] <= times[-1]


def test_a_picture_has_no_time_range() -> None:
    desk = Desk(make_analysis(kind="image"))
    with pytest.raises(FeedbackError, match="Only a clip"):
        desk.send(span_s=[0, 0])
    assert desk.send(span_s=[]).created


def test_an_old_result_cannot_be_corrected(desk: Desk) -> None:
    desk.clock.now += 1801
    with pytest.raises(FeedbackError, match="too old"):
        desk.send()


def test_what_is_kept_counts_against_the_limit_and_refusals_and_replays_do_not() -> None:
    desk = Desk(generous=False)
    desk.send(comment="1")
    for _ in range(20):
        assert not desk.send(comment="1").created
        for bad in ({"verdict": "bad"}, {"ticket": "bad"}):
            with pytest.raises(FeedbackError, match=r"must be|damaged"):
                desk.send(**bad)
    for comment in "2345":
        desk.send(comment=comment)
    with pytest.raises(FeedbackError, match="try again in 60 seconds"):
        desk.send(comment="6")
    assert desk.send(comment="6", client="203.0.113.9").created
    assert len(desk.store.records) == 6


def test_500_votes_from_one_client_become_50_records_in_a_day() -> None:
    clock = Clock(0)
    desk = Desk()
    intake = Intake(desk.store, KEYS, Limits(clock), desk.clock)
    for number in range(500):
        clock.now += 20
        if number % 50 == 0:
            desk.tickets = intake.offer(desk.analysis, PREPROCESSING)
        try:
            intake.submit(desk.analysis, desk.submission(comment=str(number), code=KEYS.code(str(number))), ADDRESS)
        except FeedbackError as error:
            assert "try again" in str(error)
    assert len(desk.store.records) == 50


def test_the_real_store_keeps_what_was_sent_and_after_an_erasure_refuses_it(tmp_path: Path) -> None:
    desk = Desk()
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback.sqlite'}", desk.clock) as store:
        intake = Intake(store, KEYS, Limits(), desk.clock)
        submission = desk.submission(scopes=["labels", "crop"])
        receipt = intake.submit(desk.analysis, submission, ADDRESS)
        assert not intake.submit(desk.analysis, submission, ADDRESS).created
        (stored,) = store.records(contributor=KEYS.contributor(receipt.code))
        assert stored.record.id == receipt.record_id
        assert stored.crop == make_crop(desk.analysis, 1)
        store.erase(KEYS.contributor(receipt.code))
        with pytest.raises(FeedbackError, match="erased"):
            intake.submit(desk.analysis, submission, ADDRESS)
        assert not store.records()


# generated values

LABELS = [label for task in TASKS for label in task.label_names]
WORDS = st.sampled_from(
    ["", "wrong", "correct", "cannot_tell", "not_a_face", "labels", "crop", "publish", "process", "=1+1", "\ud800", "a" * 600]
)
NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, 1, -1, 0.5, 1e400, 10**400, -(10**400), float("nan")]), st.floats(0, 3), st.booleans()
)
NAMES = st.one_of(st.sampled_from([task.name for task in TASKS]), st.sampled_from(LABELS), st.text(max_size=5))
JSON = st.recursive(
    st.one_of(st.none(), NUMBERS, WORDS, st.text(max_size=20), NAMES),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)


def right_answer(task: Task) -> st.SearchStrategy[object]:
    numbers = st.floats(task.low, task.high)
    if task.kind == "one_of":
        return st.sampled_from(task.label_names)
    if task.kind == "continuous":
        return st.fixed_dictionaries(dict.fromkeys(task.label_names, numbers))
    return st.dictionaries(st.sampled_from(task.label_names), numbers, min_size=1)


SHARED = Desk()
CORRECTED = st.fixed_dictionaries({}, optional={task.name: right_answer(task) for task in TASKS})
RIGHT: Mapping[str, st.SearchStrategy[object]] = {
    "ticket": st.sampled_from(sorted(SHARED.tickets.values())),
    "verdict": st.sampled_from(["wrong", "wrong", "correct", "cannot_tell", "not_a_face"]),
    "corrected": CORRECTED,
    "span_s": st.one_of(st.just([]), st.lists(st.floats(0, 3), min_size=2, max_size=2).map(sorted)),
    "comment": st.text(max_size=40),
    "scopes": st.lists(st.sampled_from(ASKED), max_size=4).map(lambda scopes: [*scopes, "labels"]),
    "adult_and_permitted": st.just(True),
    "code": st.one_of(st.none(), st.just(""), st.integers(0, 9).map(lambda number: KEYS.code(str(number)))),
}
SEEN = {"kept": 0, "refused": 0}


@st.composite
def submissions(draw: Callable[..., object]) -> Submission:
    """Up to three fields are anything that JSON can say (and NaN, which it cannot), the others make sense together."""
    wild = draw(st.one_of(st.just(frozenset()), st.sets(st.sampled_from(sorted(RIGHT)), max_size=3)))
    values = {name: draw(JSON if name in wild else right) for name, right in RIGHT.items()}
    if "corrected" not in wild and values["verdict"] != "wrong":
        values["corrected"] = {}
    return Submission(**values)


@settings(max_examples=2000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(submission=submissions())
@example(submission=SHARED.submission(corrected={"expression": ["Fear"]}))
@example(submission=SHARED.submission(corrected={"valence_arousal": {"Valence": 10**400, "Arousal": 0}}))
@example(submission=SHARED.submission(corrected={"action_units": {"AU1": float("nan")}}))
@example(submission=SHARED.submission(span_s=[10**400, 10**401]))
def take_any(submission: Submission) -> None:
    before = len(SHARED.store.records)
    try:
        receipt = SHARED.intake.submit(SHARED.analysis, submission, ADDRESS)
    except FeedbackError as error:
        SEEN["refused"] += 1
        assert re.search(r"[.]$", str(error))
        assert len(SHARED.store.records) == before
    else:
        SEEN["kept"] += 1
        record = SHARED.store.records[receipt.record_id]  # which the store read back
        assert record.contributor == KEYS.contributor(receipt.code)
        assert bool(SHARED.store.crops[record.id]) == ("crop" in record.consent.scopes)


def test_of_2000_generated_submissions_each_is_refused_with_a_sentence_or_becomes_a_valid_record(tmp_path: Path) -> None:
    assert {item.name for item in fields(Submission)} == set(RIGHT)
    take_any()
    assert SEEN["kept"] > 200
    assert SEEN["refused"] > 200
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback.sqlite'}") as store:
        for name, record in SHARED.store.records.items():
            assert store.add(record, SHARED.store.crops[name]).created
        assert {one.record.id: one.record for one in store.records()} == SHARED.store.records
        assert store.notices == ()
