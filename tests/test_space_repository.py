"""Making a Space on a stand-in for the Hub, and the command that asks for its settings and checks them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from error_codes import raises_code
from fake_hub import FakeHub, Fault, use

from hsemotion_space.cli import main, space
from hsemotion_space.hub.source import CheckpointError
from hsemotion_space.hub.space import find_faults, read_front_matter
from hsemotion_space.hub.space_repository import Space, create, read_files

ROOT = Path(__file__).resolve().parent.parent
TOKEN, INNER = "hf_CanaryThatCreates", "hf_CanaryOfTheSpace"
REPO, DATA = "ann/affect", "ann/corrections"
FILES = {"app.py": b"x", "checkpoints/a/model.safetensors": bytes(range(256)) * 40}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for name in ("HF_TOKEN", "HSEMOTION_FEEDBACK_REPO", "HSEMOTION_FEEDBACK_SECRET", "HSEMOTION_REVIEWERS"):
        monkeypatch.delenv(name, raising=False)
    with FakeHub(TOKEN) as hub, use(hub, monkeypatch, tmp_path / "hub", timeout_s=5):
        yield hub


def make(repo: str = REPO, token: str = TOKEN) -> str:
    return create(Space(repo, "zero-a10g", True, {"A": "1"}, {"B": "2"}), FILES, token)


def test_a_space_is_made_and_made_again(hub: FakeHub) -> None:
    for _ in range(2):
        assert make().endswith(f"/spaces/{REPO}")
    assert hub.files(REPO, kind="space").items() >= FILES.items()
    assert (hub.hardware, hub.settings) == ("zero-a10g", {"secrets": {"B": "2"}, "variables": {"A": "1"}})


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refusal_says_what_to_do(hub: FakeHub, status: int) -> None:
    hub.fail(Fault("status", method="POST", path="repos/create", status=status, count=9))
    with raises_code(CheckpointError, "refused") as caught:
        make()
    assert TOKEN not in str(caught.value)
    assert ("zero-a10g" in str(caught.value)) == (status == 402)


def test_a_busy_hub_is_asked_again(hub: FakeHub) -> None:
    hub.fail(Fault("status", path="variables", status=503))
    make()
    assert hub.files(REPO, kind="space").items() >= FILES.items()


def test_files_of_the_project_are_what_a_space_needs(tmp_path: Path) -> None:
    files = read_files(ROOT)
    assert {"app.py", "README.md", "requirements.txt", "docs/pictures/clip.webp"} <= files.keys()
    assert "checkpoints/mobilefacenet-starter/model.safetensors" in files
    assert not [path for path in files if path.startswith("tests") or "__pycache__" in path]
    with raises_code(CheckpointError, "no_project"):
        read_files(tmp_path)


def test_create_asks_for_settings(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: DATA if "Dataset" in question else "ann")
    monkeypatch.setattr(space.getpass, "getpass", lambda question: INNER if DATA in question else TOKEN)
    assert main(["space", "create", REPO, "--private"]) == 0
    told = capsys.readouterr().out
    assert hub.settings["variables"] == {"HSEMOTION_FEEDBACK_REPO": DATA, "HSEMOTION_REVIEWERS": "ann"}
    assert hub.settings["secrets"]["HF_TOKEN"] == INNER
    assert len(hub.settings["secrets"]["HSEMOTION_FEEDBACK_SECRET"]) >= 40
    assert hub.settings["secrets"]["HSEMOTION_FEEDBACK_SECRET"] in told, "it must be kept"
    assert TOKEN not in told and INNER not in told
    files = hub.files(REPO, kind="space")
    table = read_front_matter(files["README.md"].decode())
    assert table["datasets"] == [DATA] and REPO in str(table["thumbnail"])
    assert not find_faults(table, files["requirements.txt"].decode())
    before = dict(hub.settings["secrets"])
    monkeypatch.setattr("builtins.input", lambda question: "other/answer")
    assert main(["space", "create", REPO]) == 0
    assert hub.settings["secrets"] == before, "with another secret nobody could erase their rows"
    assert DATA in hub.files(REPO, kind="space")["README.md"].decode()


def test_create_without_a_terminal_asks_for_nothing(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert main(["space", "create", REPO]) == 2
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HSEMOTION_FEEDBACK_REPO", "no owner")
    assert main(["space", "create", REPO]) == 2
    assert not hub.has_repo(REPO, kind="space"), "what the Space would refuse is refused before it is made"
    monkeypatch.setenv("HSEMOTION_FEEDBACK_REPO", "")
    assert main(["space", "create", REPO]) == 0
    assert hub.settings == {"secrets": {}, "variables": {}}, "the token of the operator stays here"


@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        ({}, ""),
        ({"FEEDBACK_REPO": DATA, "FEEDBACK_SECRET": "s" * 40}, "HF_TOKEN"),
        ({"FEEDBACK_REPO": "x"}, "HSEMOTION_FEEDBACK_REPO"),
        ({"PROT": "80"}, "HSEMOTION_PROT"),
    ],
)
def test_check(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    environment: dict[str, str], fault: str,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(f"HSEMOTION_{name}", value)
    assert main(["space", "check"]) == bool(fault)
    assert fault in capsys.readouterr().out
