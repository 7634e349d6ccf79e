"""Session files: what is saved comes back, and whatever else a file holds is refused with a sentence."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from analysis_makers import make_analysis
from checkpoint_makers import manifest_text
from error_codes import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st
from intake_makers import Sender
from safetensors import safe_open
from safetensors.numpy import save_file
from test_edits import JSON, SHA256, made, make_track

from hsemotion_space.edits import Edits, Marker
from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, read_manifest
from hsemotion_space.hub.source import Digest
from hsemotion_space.inference import session as session_module
from hsemotion_space.inference.session import (
    Session,
    SessionError,
    is_session,
    read_session,
    restore,
    write_session,
)
from hsemotion_space.jobs import JobRunner
from hsemotion_space.jobs.table import MAX_IMPORTED
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.ui import session as page_module
from hsemotion_space.ui.context import ResultRef
from hsemotion_space.ui.session import attach_media, open_files, save_session

EDITS = Edits(
    {1: "Anna"}, {3: 1}, {1: 1.5}, (Marker("event", 0.5, 0.5, "smile"), Marker("exclusion", 4.5, 5))
)
CONFIG = PipelineConfig("", 10.0, 0.3)
KEY = "hsemotion-session"
MEDIA = b"the clip"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("small")
    (folder / "manifest.toml").write_text(manifest_text(folder.name, SHA256), "utf-8")
    return read_manifest(folder)


@pytest.fixture(scope="module")
def saved(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    analysis = made(checkpoint, make_track(1, 0), make_track(2, 40), make_track(3, 30))
    media = dataclasses.replace(analysis.media, sha256=hashlib.sha256(MEDIA).hexdigest(), notices=("Cut.",))
    analysis = dataclasses.replace(analysis, media=media, cuts_s=np.array([3.0]))
    return write_session(Session(CONFIG, EDITS, (analysis,)), tmp_path_factory.mktemp("file") / "a.hsemotion")


def taken_apart(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()[KEY]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def put_together(path: Path, described: object, arrays: dict[str, np.ndarray]) -> Path:
    save_file(arrays, path, {KEY: json.dumps(described)})
    return path


def test_a_session_comes_back_as_it_was_saved(saved: Path, checkpoint: Checkpoint) -> None:
    session = restore(read_session(saved), [checkpoint])
    assert (session.config, session.edits) == (CONFIG, EDITS)
    [analysis] = session.analyses
    again = made(checkpoint, make_track(1, 0), make_track(2, 40), make_track(3, 30))
    assert analysis.imported and analysis.cuts_s.tolist() == [3.0] and analysis.media.notices == ("Cut.",)
    assert not analysis.preview.size, "no picture of the media is kept"
    for face, expected in zip(analysis.faces, again.faces, strict=True):
        for field in dataclasses.fields(face.track):
            np.testing.assert_array_equal(
                getattr(face.track, field.name), getattr(expected.track, field.name)
            )
        assert [line.task for line in face.timelines] == [line.task for line in expected.timelines]
        assert face.timelines[0].half_width_s == pytest.approx(0.3 * 1.67)
    assert MEDIA not in saved.read_bytes()


def test_another_checkpoint_is_refused(saved: Path, checkpoint: Checkpoint) -> None:
    other = dataclasses.replace(
        checkpoint, source=dataclasses.replace(checkpoint.source, weights=Digest("cd" * 32))
    )
    with raises_code(CheckpointError, "other_checkpoint"):
        restore(read_session(saved), [other])


def opened(path: Path, checkpoint: Checkpoint) -> bool:
    """Open a file; return whether that works, and let nothing through but the errors of a session."""
    try:
        restore(read_session(path), [checkpoint])
    except (SessionError, CheckpointError) as error:
        assert error.code
        return False
    return True


@settings(deadline=None, max_examples=150)
@given(st.data(), JSON)
def test_whatever_the_text_says_instead_is_refused_or_valid(
    saved: Path,
    checkpoint: Checkpoint,
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    value: object,
) -> None:
    described, arrays = taken_apart(saved)
    place: Any = described
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    opened(put_together(tmp_path_factory.getbasetemp() / "text.hsemotion", described, arrays), checkpoint)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_arrays_of_another_kind_are_refused(
    saved: Path, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    described, arrays = taken_apart(saved)
    name = data.draw(st.sampled_from(sorted(arrays)))
    array = arrays.pop(name)
    changed = {
        "gone": None, "typed": array.astype("int16"), "deep": array[None].copy(), "short": array[:-1].copy(),
        "infinite": np.full_like(array, np.inf) if array.dtype.kind == "f" else None,
        "wide": np.concatenate([array, array], axis=-1),
    }  # fmt: skip
    how = data.draw(st.sampled_from(sorted(changed)))
    arrays |= {} if changed[how] is None else {name: changed[how]}
    works = opened(put_together(tmp_path_factory.getbasetemp() / "arrays", described, arrays), checkpoint)
    may_work = how in ("short", "wide") or name.endswith("landmarks")
    assert not works or may_work


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_damaged_bytes_are_refused_or_harmless(
    saved: Path, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(saved.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "bytes.hsemotion"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    opened(path, checkpoint)


def test_other_files_and_too_large_ones_are_no_sessions(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "a.npz", np.zeros(3))
    (tmp_path / "huge").write_bytes((2**40).to_bytes(8, "little") + b"{")
    for path in (tmp_path / "a.npz", tmp_path / "huge", tmp_path / "nowhere"):
        assert not is_session(path)
        with raises_code(SessionError, "no_session"):
            read_session(path)
    described, arrays = taken_apart(saved)
    later = put_together(tmp_path / "later", described | {"version": 2}, arrays)
    with raises_code(SessionError, "session_version"):
        read_session(later)
    session = read_session(saved)
    monkeypatch.setattr(session_module, "MOST_BYTES", saved.stat().st_size - 1)
    with raises_code(SessionError, "no_session"):
        read_session(saved)
    with raises_code(SessionError, "session_size"):
        write_session(session, tmp_path / "large")


@pytest.fixture
def runner(tmp_path: Path) -> Any:
    made_runner = JobRunner(Settings(cache=tmp_path), warm=False, root=tmp_path)
    yield made_runner
    made_runner.close()


def test_a_session_is_opened_with_or_without_its_media_and_saved_again(
    saved: Path, checkpoint: Checkpoint, runner: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "find_checkpoint", lambda *_: checkpoint)
    context: Any = SimpleNamespace(runner=runner, settings=runner.settings, results=tmp_path / "results")
    media, other = tmp_path / "clip.mp4", tmp_path / "other.mp4"
    media.write_bytes(MEDIA)
    other.write_bytes(b"another")
    assert open_files(context, [media], "") == ""
    alone, wrong, both = (
        open_files(context, files, "") for files in ([saved], [saved, other], [media, saved])
    )
    assert [runner.media_of(job) is not None for job in (alone, wrong, both)] == [False, False, True]
    assert runner.status(alone).edits == EDITS and runner.status(alone).state == "done"
    assert not attach_media(context, runner.status(alone), other)
    assert attach_media(context, runner.status(alone), media)
    assert runner.media_of(alone).read_bytes() == MEDIA  # type: ignore[union-attr]
    runner.edit(alone, Edits({2: "Bo"}))
    again = read_session(save_session(context, ResultRef(alone, 1.0)))
    assert (again.edits, again.config.smoothing) == (Edits({2: "Bo"}), 1.0)


def test_opened_sessions_replace_each_other_alone(runner: JobRunner) -> None:
    ours = runner.add_finished((make_analysis(),), CONFIG, EDITS)
    imported = dataclasses.replace(make_analysis(), imported=True)
    jobs = [runner.add_finished((imported,), CONFIG, EDITS) for _ in range(MAX_IMPORTED + 3)]
    assert runner.status(ours).state == runner.status(jobs[-1]).state == "done"
    assert len(runner._table.jobs) == MAX_IMPORTED + 1


def test_feedback_on_a_session_is_refused() -> None:
    with raises_code(FeedbackError, "imported"):
        Sender(dataclasses.replace(make_analysis(), imported=True)).send()
