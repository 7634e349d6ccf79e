"""The endpoints for programs, used by ``gradio_client`` as a program would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from face_makers import picture_with
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from media_makers import write_clip
from page_makers import ROOT, serve_page
from PIL import Image

from hsemotion_space.feedback.store import FeedbackStore

KEEP = {"keep": ["labels"], "adult_and_permitted": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[str]:
    with serve_page(folder) as url:
        yield url


@pytest.fixture(scope="module")
def client(page: str, folder: Path) -> Client:
    return Client(page, verbose=False, download_files=folder / "downloads", analytics_enabled=False)


@pytest.fixture(scope="module")
def picture(folder: Path) -> Path:
    Image.fromarray(picture_with([(10, 20), (170, 60)], (240, 320))).save(folder / "two.png")
    return folder / "two.png"


@pytest.fixture(scope="module")
def result(client: Client, picture: Path) -> dict[str, object]:
    return client.predict(
        image=handle_file(picture), consent=True, checkpoint="random", api_name="/analyze_image"
    )


def test_what_is_on_offer_is_typed_and_described_and_nothing_else_is(client: Client) -> None:
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {"/analyze_image", "/analyze_clip", "/submit_feedback", "/list_checkpoints"}
    for endpoint in named.values():
        assert len(endpoint["description"]) > 40
        assert all(parameter["type"] for parameter in endpoint["parameters"])
    clip = {
        parameter["parameter_name"]: parameter["type"] for parameter in named["/analyze_clip"]["parameters"]
    }
    assert [clip[name]["type"] for name in ("consent", "checkpoint", "sample_fps")] == [
        "boolean",
        "string",
        "number",
    ]


def test_checkpoints_are_listed(client: Client) -> None:
    [one] = client.predict(api_name="/list_checkpoints")
    assert (one["id"], one["weights"]) == ("random", "here")
    assert set(one["tasks"].values()) <= {"trained", "rule", "prior"}


def test_a_picture_is_analyzed(result: dict[str, object]) -> None:
    [analysis] = result["analysis"]["analyses"]
    assert [face["track_id"] for face in analysis["faces"]] == [1, 2]
    assert result["tickets"] == {"1": "1", "2": "2"}


def test_a_clip_is_analyzed_and_a_picture_is_none(client: Client, folder: Path, picture: Path) -> None:
    clip = folder / "face.mp4"
    write_clip(
        clip,
        [picture_with([(60 + step, 40)], (240, 320)) for step in range(12)],
        [step / 12 for step in range(12)],
    )
    found = client.predict(
        clip=handle_file(clip), consent=True, checkpoint="random", sample_fps=6.0, api_name="/analyze_clip"
    )
    [analysis] = found["analysis"]["analyses"]
    assert analysis["media"]["kind"] == "clip"
    with pytest.raises(AppError, match="This is no clip; use analyze_image"):
        client.predict(clip=handle_file(picture), consent=True, checkpoint="random", api_name="/analyze_clip")


def test_a_correction_is_kept_once_and_refused_with_a_sentence(
    client: Client, result: dict[str, object], folder: Path
) -> None:
    statement = {
        "verdict": "wrong",
        "corrected": {"expression": "Fear", "valence_arousal": {"Valence": -0.5, "Arousal": 0.5}},
    }
    given = {"job": result["job"], "face": 2, "statement": statement, "consent": KEEP}
    first = client.predict(**given, api_name="/submit_feedback")
    again = client.predict(
        **given | {"statement": statement | {"receipt_code": first["receipt_code"]}},
        api_name="/submit_feedback",
    )
    assert (first["created"], again["created"], again["record"]) == (True, False, first["record"])
    with FeedbackStore(f"sqlite:///{folder / 'feedback' / 'feedback.sqlite'}", read_only=True) as store:
        [stored] = [one for one in store.records() if one.id == first["record"]]
    assert stored.corrected["expression"] == {"Fear": 1.0}
    assert stored.face == 2
    assert stored.predicted.keys() >= {"expression", "valence_arousal"}
    for change, complaint in [
        (
            {"statement": {"verdict": "wrong", "corrected": {"expression": "Joy"}}},
            "Expression must be one of",
        ),
        ({"statement": {}}, "The verdict must be one of"),
        ({"statement": "wrong"}, "The verdict must be one of"),
        ({"consent": {"keep": [], "adult_and_permitted": True}}, "To send a correction"),
        ({"consent": {"keep": ["labels"]}}, "18 or older"),
        ({"consent": None}, "The consent scopes must be"),
        ({"face": 3}, "no face 3"),
        ({"face": 0}, "no face 0"),
        ({"job": "f" * 32}, "no longer available"),
        ({"statement": statement | {"receipt_code": "ABCD"}}, "typing error"),
    ]:
        with pytest.raises(AppError, match=complaint):
            client.predict(**{**given, **change}, api_name="/submit_feedback")


def test_a_program_of_an_earlier_version_may_send_the_ticket_it_got(
    page: str, client: Client, result: dict[str, object]
) -> None:
    given = {
        "job": result["job"],
        "ticket": result["tickets"]["2"],
        "consent": KEEP,
        "statement": {"verdict": "not_a_face"},
    }
    answer = client.predict(**given, api_name="/submit_feedback")
    assert answer["created"] and "`ticket` is not used any more" in answer["message"]
    body = {
        "data": [
            result["job"],
            result["tickets"]["2"],
            {"verdict": "not_a_face", "receipt_code": answer["receipt_code"]},
            KEEP,
        ]
    }
    event = httpx.post(f"{page}/gradio_api/call/submit_feedback", json=body, timeout=30).json()["event_id"]
    # by position: kept once
    assert answer["record"] in httpx.get(f"{page}/gradio_api/call/submit_feedback/{event}", timeout=30).text


@pytest.mark.parametrize("consent", [False, None, "true", 1])
def test_nothing_is_analyzed_without_consent(client: Client, picture: Path, consent: object) -> None:
    with pytest.raises(AppError, match="unless consent is true"):
        client.predict(
            image=handle_file(picture), consent=consent, checkpoint="random", api_name="/analyze_image"
        )


@pytest.mark.parametrize(
    "media",
    [
        {"path": str(ROOT / "README.md")}, {"path": "/etc/passwd"}, {"path": str(ROOT / "README.md"), "meta": {"_type": "gradio.FileData"}},
        {"path": "/dev/null"}, {"path": None}, {}, None, "/etc/passwd", {"path": ["/etc/passwd"]}, {"path": "/\0"},
    ],
    ids=range(10),
)  # fmt: skip
def test_only_what_was_uploaded_is_read(page: str, media: object) -> None:
    body = {"data": [media, True, "random"]}
    event = httpx.post(f"{page}/gradio_api/call/analyze_image", json=body, timeout=30)
    if event.status_code != 200:
        assert event.status_code < 500
        return
    answer = httpx.get(f"{page}/gradio_api/call/analyze_image/{event.json()['event_id']}", timeout=60).text
    assert "event: error" in answer
    assert "root:" not in answer
    assert "analyses" not in answer


def test_values_out_of_range_and_unknown_checkpoints_are_named(client: Client, picture: Path) -> None:
    for change, complaint in [
        ({"sample_fps": 1000.0}, "sample_fps must be"),
        ({"smoothing": -1.0}, "smoothing must be"),
        ({"checkpoint": "x"}, "x"),
    ]:
        with pytest.raises(AppError, match=complaint):
            client.predict(
                **{"clip": handle_file(picture), "consent": True, "checkpoint": "random", **change},
                api_name="/analyze_clip",
            )


def test_a_header_that_anybody_can_write_makes_no_new_client(page: str, result: dict[str, object]) -> None:
    answers = []
    for number in range(7):
        statement = {"verdict": "cannot_tell", "comment": f"header {number}"}
        body = {"data": [result["job"], 1, statement, KEEP]}
        headers = {"X-Forwarded-For": f"198.51.100.{number}"}
        event = httpx.post(
            f"{page}/gradio_api/call/submit_feedback", json=body, headers=headers, timeout=30
        ).json()["event_id"]
        answers.append(
            httpx.get(f"{page}/gradio_api/call/submit_feedback/{event}", headers=headers, timeout=30).text
        )
    assert "Saved on this server." in answers[0]
    assert "has reached the limit for corrections" in answers[-1]
