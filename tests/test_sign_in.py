"""Reviewers who sign in with their account: who counts as one, and that each action asks again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import gradio as gr
import pytest
from error_codes import raises_code
from feedback_makers import make_record
from gradio import oauth
from gradio.helpers import special_args
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.feedback.service import open_feedback
from hsemotion_space.settings import Settings
from hsemotion_space.ui import app, review, sign_in
from hsemotion_space.ui.context import AppContext
from hsemotion_space.ui.guard import SIGN_IN, Guard, GuardLimits
from hsemotion_space.ui.i18n import catalog, gettext_lazy
from hsemotion_space.ui.sign_in import can_sign_in, prepare_sign_in, reviewer_name

SETTINGS = Settings(reviewers="ann, ben", oauth_secret="s3cret")


def profile(name: str) -> gr.OAuthProfile:
    return gr.OAuthProfile({"name": "Ann", "preferred_username": name, "profile": "", "picture": ""})


@pytest.fixture
def a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SYSTEM": "spaces", "SPACE_ID": "ann/space", "OAUTH_CLIENT_ID": "id"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sign_in, "LIBRARIES", ())
    monkeypatch.setattr(oauth, "OAUTH_CLIENT_SECRET", None)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[AppContext]:
    settings = replace(SETTINGS, feedback_data=tmp_path / "data")
    feedback = open_feedback(settings)
    feedback.store.add(make_record(1))
    yield AppContext(settings, Mock(), (), tmp_path / "results", tmp_path / "uploads", feedback)  # type: ignore[arg-type]
    feedback.close()


@pytest.mark.usefixtures("a_space")
def test_only_those_of_the_list_are_reviewers() -> None:
    assert reviewer_name(SETTINGS, profile("ann")) == "ann"
    for name in ("carl", "Ann", "ann,", "", "ann, ben", "ann "):
        assert reviewer_name(SETTINGS, profile(name)) == ""
    assert reviewer_name(SETTINGS, None) == ""
    assert reviewer_name(replace(SETTINGS, reviewers=""), profile("")) == ""


@pytest.mark.usefixtures("a_space")
@pytest.mark.parametrize("missing", ["SYSTEM", "SPACE_ID", "OAUTH_CLIENT_ID", "secret", "library"])
def test_a_sign_in_that_proves_nothing_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace(SETTINGS, oauth_secret="") if missing == "secret" else SETTINGS
    monkeypatch.delenv(missing, raising=False)
    if missing == "library":
        monkeypatch.setattr(sign_in, "LIBRARIES", ("no_such_library",))
    assert not can_sign_in(settings)
    assert reviewer_name(settings, profile("ann")) == ""
    prepare_sign_in(settings)
    assert "HSEMOTION_REVIEWERS" in capsys.readouterr().err


@pytest.mark.usefixtures("a_space")
def test_gradio_signs_cookies_with_the_secret_of_the_platform() -> None:
    prepare_sign_in(SETTINGS)
    assert oauth.OAUTH_CLIENT_SECRET == "s3cret"


@pytest.mark.usefixtures("a_space")
def test_every_action_asks_who_it_is(context: AppContext) -> None:
    store = context.open_feedback.store
    [one] = store.records()
    for act in ("start", "approved", "rejected", "gold", "skip", "revert"):
        for other in (None, profile("carl")):
            answer = review._step(context, review._Visitor("", other, "192.0.2.1"), one.number, act)
            assert "role='alert'" in str(answer[-1])
    assert "role='alert'" in review._measures(context, review._Visitor("x", profile("carl"), "192.0.2.1"))
    assert store.records() == [one], "nothing was changed"
    ann = review._Visitor("", profile("ann"), "192.0.2.1")
    assert "is approved" in str(review._step(context, ann, one.number, "approved")[-1])
    with raises_code(FeedbackError, "no_reviewer"):
        review.check_reviewer(context, review._Visitor("", None, "192.0.2.1"))
    assert review.check_reviewer(context, ann) == "ann"


@pytest.mark.usefixtures("a_space")
def test_gradio_passes_the_account_of_the_session_and_nothing_that_a_request_says(
    context: AppContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[review._Visitor] = []
    monkeypatch.setattr(gr, "LoginButton", gr.Button)  # whose routes need more libraries
    monkeypatch.setattr(review, "_step", lambda _context, visitor, *_rest: steps.append(visitor))

    async def build() -> gr.Blocks:  # where no event loop runs, Gradio makes some that it never closes
        with gr.Blocks() as demo:
            review.build_review(context)
        return demo

    demo = asyncio.run(build())
    handle = next(block.fn for block in demo.fns.values() if block.fn and block.fn.__name__ == "handle")
    info = {"userinfo": dict(profile("ann")), "expires_at": 2**40}
    for session, name in (({"oauth_info": info}, "ann"), ({}, None)):
        request = SimpleNamespace(
            session=session, headers=Headers({}), client=SimpleNamespace(host="192.0.2.1")
        )
        inputs, *_ = special_args(handle, ["no token", 1], request)  # type: ignore[arg-type]
        handle(*inputs)
        assert (steps[-1].profile.username if steps[-1].profile else None) == name


def test_the_routes_of_sign_in_are_open_only_where_people_can_sign_in() -> None:
    inner = Starlette(routes=[Route("/{path:path}", lambda _: PlainTextResponse("inside"))])
    for allowed in (False, True):
        client = TestClient(Guard(inner, GuardLimits(10**6, sign_in=allowed)))
        for route in SIGN_IN:
            assert client.get(route).status_code == (200 if allowed else 404)
            assert client.post(route).status_code == 404
        assert client.get("/login").status_code == 404


@pytest.mark.parametrize(
    ("settings", "token"),
    [
        (Settings(), ""),
        (Settings(feedback_repo="a/b", feedback_secret="s" * 40), ""),  # a duplicate has no secrets
        (Settings(feedback_repo="a/b"), "t"),
    ],
)
def test_a_space_takes_no_corrections_that_it_would_lose(
    settings: Settings, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACE_ID", "ann/space")
    feedback, problem = app._open(replace(settings, feedback_data=tmp_path), token)
    assert feedback is None and problem.code == "space_storage"  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())
    key = json.loads(gettext_lazy(app.PROBLEM, problem=problem).removeprefix("__i18n__"))["key"]
    assert all("HSEMOTION_FEEDBACK_REPO" in texts[key] for texts in catalog().translations_dict.values())
    assert app._open(replace(settings, feedback="off"), token) == (None, "")
