from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from analysis_makers import make_analysis
from checkpoint_makers import make_checkpoint
from face_makers import picture_with
from page_makers import ROOT, free_port, serve_page
from PIL import Image

from hsemotion_space.hub.weights import Whereabouts, locate
from hsemotion_space.jobs import JobStatus
from hsemotion_space.ui.analyze import _progress
from hsemotion_space.ui.parts import checkpoint_card, face_table, in_words, notice_list, progress_bar
from hsemotion_space.ui.temporary import LOCK, PREFIX, remove_left_overs, sweep
from hsemotion_space.ui.words import fixed


def test_table_names_every_face_task_and_provenance() -> None:
    analysis = make_analysis(faces=3, kind="clip")
    html = face_table(analysis)
    assert [f"Face {number}" in html for number in (1, 2, 3, 4)] == [True, True, True, False]
    for prediction in analysis.faces[0].predictions:
        assert prediction.task.title in html
    assert "rule, not trained" in html
    assert html.count("<small>right in 6 of 10 such answers, on 100 held-out pictures</small>") > 0
    assert "prior, unvalidated" in html
    assert face_table(replace(analysis, faces=())) == ""


def test_words_follow_the_kind_of_task() -> None:
    words = {made.task.kind: in_words(made) for made in make_analysis().faces[0].predictions if not made.task.none}
    units = next(prediction for prediction in make_analysis().faces[0].predictions if prediction.task.name == "action_units")
    present = replace(units, thresholds=(0.0, 1.1, 0.0, *[1.1] * 9))
    assert (in_words(present), in_words(replace(units, thresholds=(1.1,) * 12))) == ("AU1, AU4", "none")
    assert "\u00a0%" in words["one_of"]
    assert words["continuous"].startswith("Valence ")
    assert words["independent"].count(",") == 3


def test_strings_of_users_and_manifests_are_escaped(tmp_path: Path) -> None:
    assert "<script>" not in notice_list(["<script>alert(1)</script>"])
    checkpoint = replace(make_checkpoint(tmp_path / "x"), summary="<img src=x onerror=1>", license="<b>")
    assert "<img" not in checkpoint_card(checkpoint, Whereabouts("here"))
    assert "<b>" not in checkpoint_card(checkpoint, Whereabouts("here"))


def test_card_says_what_is_missing_and_why(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "x")
    whole = checkpoint_card(checkpoint, locate(checkpoint, tmp_path))
    assert "Action Units" in whole.title() and whole.count("not predicted by this checkpoint") == 2
    assert "role='status'" not in whole
    (checkpoint.folder / checkpoint.source.bundled).unlink()
    assert "is missing; restore it" in checkpoint_card(checkpoint, locate(checkpoint, tmp_path))
    told = checkpoint_card(checkpoint, locate(checkpoint, tmp_path), "The server answers <503>.")
    assert "The server answers &lt;503&gt;." in told


@pytest.mark.parametrize(
    ("ahead", "wait_s", "words"),
    [
        (0, None, "Starting…"),
        (1, None, "Waiting for 1 earlier analysis…"),
        (3, None, "Waiting for 3 earlier analyses…"),
        (1, 40, "Waiting for 1 earlier analysis, about 40 s…"),
        (3, 150, "Waiting for 3 earlier analyses, about 150 s…"),
    ],
)
def test_whoever_waits_reads_for_how_many_and_how_long(ahead: int, wait_s: int | None, words: str) -> None:
    assert _progress(JobStatus("0" * 32, "queued", ahead=ahead, wait_s=wait_s)) == progress_bar(0, 0, words)


def test_progress_bar_is_announced() -> None:
    assert "aria-valuenow='3'" in progress_bar(3, 12, "3 of 12")
    assert "width:25%" in progress_bar(3, 12, "3 of 12")
    assert "width:100%" in progress_bar(15, 12, "15 of 12")
    assert "aria-valuenow" not in progress_bar(0, 0, "Starting")


def test_sweep_deletes_old_files_and_empty_folders_only(tmp_path: Path) -> None:
    for name, age in (("a/old.png", 1000), ("b/new.png", 10), ("b/old.png", 1000)):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x")
        os.utime(file, (5000 - age, 5000 - age))
    assert sweep(tmp_path, age_s=900, now_s=5000) == 2
    assert sweep(tmp_path, age_s=900, now_s=5000) == 0
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["b", "b/new.png"]


def test_folders_of_servers_that_were_killed_are_removed_and_no_others(tmp_path: Path) -> None:
    killed, running, starting, other = (tmp_path / name for name in (f"{PREFIX}a", f"{PREFIX}b", f"{PREFIX}c", "elsewhere"))
    for folder in (killed, running, starting, other):
        (folder / "uploads").mkdir(parents=True)
        (folder / "uploads" / "face.png").write_bytes(b"x")
    for folder in (killed, running):
        (folder / LOCK).touch()
    with (running / LOCK).open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert remove_left_overs(tmp_path, time.time()) == 1
        assert remove_left_overs(tmp_path, time.time() + 3600) == 1  # nobody starts for so long
    assert [folder.exists() for folder in (killed, running, starting, other)] == [False, True, False, True]


def test_after_a_kill_the_next_start_deletes_what_visitors_added(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoints" / "random")
    environment = {
        **os.environ, "HSEMOTION_CHECKPOINTS": str(tmp_path / "checkpoints"), "HSEMOTION_PORT": str(free_port()), "TMPDIR": str(tmp_path),
        "HF_TOKEN": "hf_canary",
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    assert b"running" in process.stdout.readline()
    [left] = tmp_path.glob(f"{PREFIX}*")
    process.kill()
    process.communicate(timeout=30)
    assert left.exists()
    with serve_page(tmp_path):
        assert not left.exists()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_page(tmp_path_factory.mktemp("page")) as url:
        yield url


def test_page_answers_and_unused_routes_are_closed(page: str) -> None:
    assert "HSEmotion Space" in httpx.get(page).text
    for route in ("monitoring/summary", "gradio_api/runs", "docs", "openapi.json", "gradio_api/deep_link", "gradio_api/file=/etc/passwd"):
        assert httpx.get(f"{page}/{route}").status_code in (403, 404), route


def test_page_loads_nothing_from_elsewhere(page: str) -> None:
    config = httpx.get(f"{page}/config").text
    assert "fonts.googleapis" not in config
    assert '"enable_monitoring":true' not in config.replace(" ", "")


def upload(page: str, name: str, content: bytes) -> str:
    answer = httpx.post(f"{page}/gradio_api/upload", files={"files": (name, content)}, timeout=30)
    assert answer.status_code == 200, answer.text
    return str(answer.json()[0])


def function_index(page: str, event: str, **properties: object) -> int:
    """Return the number of what the first component with some properties does at an event."""
    config = httpx.get(f"{page}/config").json()
    wanted = next(item["id"] for item in config["components"] if properties.items() <= {"type": item["type"], **item["props"]}.items())
    return next(number for number, item in enumerate(config["dependencies"]) if [wanted, event] in item["targets"])


def call(page: str, number: int, session: str, data: list[object]) -> str:
    body = {"data": data, "fn_index": number, "session_hash": session, "event_data": None, "trigger_id": None}
    return httpx.post(f"{page}/gradio_api/run/predict", json=body, timeout=60).text


def run(page: str, data: list[object]) -> str:
    """Press Analyze in the picture tab as the page does, ask until there is a result, and return that."""
    session = f"test{time.monotonic_ns()}"
    answer = call(page, function_index(page, "click", value=fixed("Analyze")), session, [None, *data, []])
    for _ in range(120):
        if "role='progressbar'" not in answer:
            return answer
        time.sleep(0.25)
        answer = call(page, function_index(page, "tick", type="timer"), session, [None, "random", None])
    raise AssertionError(answer)


def file_data(path: str) -> dict[str, object]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_picture_is_analyzed_on_the_page(page: str) -> None:
    answer = run(page, [file_data(upload(page, "two.png", png(picture_with([(10, 20), (170, 60)], (240, 320))))), "random", True])
    assert "Face 2" in answer
    assert "rule, not trained" in answer
    assert ".csv" in answer


@pytest.mark.parametrize("agreed", [False, None, "true", 1, [True]])
def test_without_the_tick_nothing_is_analyzed(page: str, agreed: object) -> None:
    answer = run(page, [file_data(upload(page, "two.png", png(picture_with([(10, 20)], (240, 320))))), "random", agreed])
    assert "Face 1" not in answer
    assert "Please tick" in answer or "error" in answer


def test_errors_on_the_page_are_sentences(page: str) -> None:
    broken = run(page, [file_data(upload(page, "x.png", b"not a picture at all")), "random", True])
    assert "notices" in broken
    assert str(ROOT) not in broken
    unknown = run(page, [file_data(upload(page, "y.png", png(np.zeros((64, 64, 3), np.uint8)))), "no-such-backbone", True])
    assert "Traceback" not in unknown
    assert "no-such-backbone" in unknown


def test_a_stop_while_starting_leaves_nothing_behind(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoints" / "random")
    environment = {
        **os.environ,
        "HSEMOTION_CHECKPOINTS": str(tmp_path / "checkpoints"),
        "HSEMOTION_PORT": str(free_port()),
        "TMPDIR": str(tmp_path),
    }
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob("hsemotion-space-*")) and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    assert process.wait(60) == 0
    assert not list(tmp_path.glob("hsemotion-space-*"))
