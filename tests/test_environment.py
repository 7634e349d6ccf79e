"""Secrets of the environment: handed over once, and nowhere to be read afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from checkpoint_makers import make_checkpoint
from page_makers import ROOT, free_port

from hsemotion_space.environment import PAGE_SECRETS, is_secret

CANARY = "canary-of-the-environment"
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
PROGRAM = """
import json, os, sys
from hsemotion_space.environment import secrets
given = secrets()
initial = open('/proc/self/environ').read() if os.path.exists('/proc/self/environ') else ''
print(json.dumps([given, dict(os.environ), initial, sys.argv[1:]]))
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in PAGE_SECRETS), ("HUGGING_FACE_HUB_TOKEN", True),
        ("OPENAI_API_KEY", True), ("AWS_SECRET_ACCESS_KEY", True),
        ("AWS_ACCESS_KEY_ID", True), ("AWS_SESSION_TOKEN", True), ("PGPASSWORD", True), ("DATABASE_URL", True), ("SENTRY_DSN", True),
        ("github_token", True), ("GOOGLE_APPLICATION_CREDENTIALS", True), ("OAUTH_CLIENT_SECRET", True), ("GITHUB_PAT", True),
        ("PATH", False), ("HOME", False), ("LD_LIBRARY_PATH", False), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", False), ("HF_TOKEN_PATH", False),
        ("HSEMOTION_FEEDBACK_DATA", False), ("HSEMOTION_PORT", False), ("SPACE_ID", False), ("TOKENIZERS_PARALLELISM", False),
        ("PYTHONPATH", False), ("KEYBOARD_LAYOUT", False),
    ],
)  # fmt: skip
def test_is_secret(name: str, expected: bool) -> None:
    assert is_secret(name) is expected


def run(secrets: dict[str, str], *arguments: str) -> tuple[dict[str, str], dict[str, str], str, list[str]]:
    environment = {name: value for name, value in os.environ.items() if not is_secret(name)} | secrets
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    given, environ, initial, rest = json.loads(done.stdout)
    return given, environ, initial, rest


@needs_proc
def test_secrets_are_handed_over_and_leave_the_environment() -> None:
    values = {name: f"{CANARY} {name} \u96ea\n" for name in PAGE_SECRETS}
    given, environ, initial, rest = run(
        {**values, "OTHER_API_KEY": CANARY, "PLAIN": "1"}, "serve", "--x=a b", ""
    )
    assert given == values, "those of others are dropped"
    assert CANARY not in initial and CANARY not in json.dumps(environ) and environ["PLAIN"] == "1"
    assert rest == ["serve", "--x=a b", ""]
    assert not any("SECRETS" in name for name in environ)


@pytest.mark.parametrize("present", [{}, {"HF_TOKEN": ""}])
def test_secrets_without_any(present: dict[str, str]) -> None:
    given, environ, _, _ = run(present)
    assert given == present and "HF_TOKEN" not in environ


def test_secrets_of_any_length_are_handed_over() -> None:
    given, environ, initial, _ = run({"HF_TOKEN": CANARY * 4000})  # more than a pipe holds
    assert given == {"HF_TOKEN": CANARY * 4000} and CANARY not in initial + json.dumps(environ)


@needs_proc
def test_no_process_of_a_page_can_be_read_for_secrets(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoints" / "random")
    port = free_port()
    environment = os.environ | {
        name: CANARY for name in (*PAGE_SECRETS, "OTHER_API_KEY") if name != "HSEMOTION_FEEDBACK_DATABASE"
    }
    environment |= {
        "HSEMOTION_CHECKPOINTS": str(tmp_path / "checkpoints"), "HSEMOTION_PORT": str(port), "HSEMOTION_ENGINE": "torch",
        "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HSEMOTION_FEEDBACK_DATA": str(tmp_path / "feedback"),
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    try:
        assert b"running" in process.stdout.readline()
        deadline = time.monotonic() + 60
        while (
            not (children := psutil.Process(process.pid).children(recursive=True))
            and time.monotonic() < deadline
        ):
            time.sleep(0.1)
        for pid in (process.pid, *(child.pid for child in children)):
            assert CANARY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert children and "Review" in httpx.get(f"http://127.0.0.1:{port}/config").text, (
            "the token of reviewers has arrived"
        )
    finally:
        process.terminate()
        process.communicate(timeout=30)
