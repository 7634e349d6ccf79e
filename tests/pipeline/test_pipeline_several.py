"""Several checkpoints on one file: as each alone, with the work that they share done once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_makers import make_checkpoint
from error_codes import raises_code
from pipeline_makers import ALL, EVERY_FRAME, LEFT, RIGHT, Cancelled, GreenDetector, clip, draw, picture, same

from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.inference import batcher, network
from hsemotion_space.inference.batcher import BATCH
from hsemotion_space.inference.network import Network
from hsemotion_space.inference.pipeline import Pipeline
from hsemotion_space.media.clips import open_clip
from hsemotion_space.messages import Message
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import ByteArray, FloatArray
from hsemotion_space.vision.alignment import align_face
from hsemotion_space.vision.engine import EngineError, normalize


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_several_checkpoints_give_bit_for_bit_what_each_gives_alone(
    settings: Settings, engine: str, tmp_path: Path
) -> None:
    pipeline = Pipeline(replace(settings, engine=engine), GreenDetector())  # type: ignore[arg-type]
    file = clip(
        tmp_path, [[]] + [[LEFT]] + [[(18 + step, 32), RIGHT] for step in range(BATCH)] + [[RIGHT]] * 12
    )
    config = PipelineConfig(sample_fps=0)
    together = pipeline.analyze_all(file, ALL, config)
    assert [analysis.checkpoint.id for analysis in together] == list(ALL)
    for analysis in together:
        assert same(analysis, pipeline.analyze(file, replace(config, checkpoint=analysis.checkpoint.id)))
    scores = [analysis.faces[0].track.scores for analysis in together]
    assert not any(
        np.array_equal(one, other) for one, other in ((scores[0], scores[1]), (scores[1], scores[2]))
    )
    still = picture(tmp_path, draw([LEFT, RIGHT]))
    for analysis in pipeline.analyze_all(still, ALL):
        assert same(analysis, pipeline.analyze(still, PipelineConfig(analysis.checkpoint.id)))


def test_several_checkpoints_share_decoding_faces_and_pixels(
    pipeline: Pipeline, detector: GreenDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, aligned = [], []
    monkeypatch.setattr(
        "hsemotion_space.inference.pipeline.open_clip", lambda *args: opened.append(args) or open_clip(*args)
    )
    monkeypatch.setattr(
        batcher, "align_face", lambda rgb, box, spec: aligned.append(spec.size) or align_face(rgb, box, spec)
    )
    calls: list[tuple[int, int]] = []
    together = pipeline.analyze_all(
        clip(tmp_path, [[LEFT, RIGHT]] * 10),
        ALL,
        EVERY_FRAME,
        lambda done, total: calls.append((done, total)),
    )
    assert (len(opened), detector.searches, detector.follows) == (1, 2, 8)
    assert sorted(aligned) == [32] * 20 + [48] * 20  # small and twin share theirs
    assert calls == [(done, 10) for done in range(1, 11)]
    first = together[0]
    for other in together[1:]:
        assert other.preview is first.preview
        assert other.frame_times_s is first.frame_times_s
        for one, same_face in zip(first.faces, other.faces, strict=True):
            assert all(
                getattr(one.track, name) is getattr(same_face.track, name)
                for name in ("boxes_xyxy", "landmarks", "thumbnail")
            )


@pytest.mark.parametrize("refuses", [False, True])
def test_networks_that_run_elsewhere_give_the_same_numbers(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    pipeline, file = Pipeline(settings, GreenDetector()), clip(tmp_path, [[LEFT, RIGHT]] * 50)
    monkeypatch.setattr(batcher, "REMOTE_RUNS", 90)
    monkeypatch.setattr(batcher, "HELD_BYTES", 40 * 3 * (32**2 + 48**2))
    calls: list[int] = []
    notice = Message("elsewhere")

    def remote(faces: Mapping[str, ByteArray]) -> tuple[dict[str, tuple[FloatArray, ...]] | None, Message]:
        assert set(faces) == set(ALL)
        calls.extend({len(pictures) for pictures in faces.values()})
        found = {name: pipeline.network(name) for name in faces}
        outputs = {
            name: network.run(
                normalize(faces[name], network.checkpoint.input.mean, network.checkpoint.input.std)
            )
            for name, network in found.items()
        }
        return None if refuses else outputs, notice

    here = pipeline.analyze_all(file, ALL, EVERY_FRAME)
    there = pipeline.analyze_all(file, ALL, EVERY_FRAME, None, remote)
    assert calls == ([40] if refuses else [40, 40]), "the last 20 are too few; nobody is asked again"
    for one, other in zip(here, there, strict=True):
        assert other.notices == (*one.notices, notice)
        assert len(one.faces) == len(other.faces) == 2
        for face, same_face in zip(one.faces, other.faces, strict=True):
            np.testing.assert_allclose(face.track.scores, same_face.track.scores, atol=1e-5)
            np.testing.assert_allclose(face.track.embeddings, same_face.track.embeddings, atol=1e-5)


def test_a_checkpoint_that_is_named_twice_runs_once(
    pipeline: Pipeline, network: Network, tmp_path: Path
) -> None:
    runs = []
    pipeline._networks["small"] = replace(
        network, run=lambda batch: runs.append(len(batch)) or network.run(batch)
    )
    first, second = pipeline.analyze_all(picture(tmp_path, draw([LEFT])), ["small", ""])
    assert first is second
    assert runs == [1]
    with pytest.raises(ValueError, match="checkpoint"):
        pipeline.analyze_all(tmp_path / "picture.png", [])


def test_one_checkpoint_that_cannot_be_loaded_fails_them_all_by_name(
    settings: Settings, detector: GreenDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkpoint(tmp_path / "good", size=32)
    make_checkpoint(tmp_path / "gone", size=32)
    (tmp_path / "gone" / "model.safetensors").unlink()
    pipeline, file = (
        Pipeline(replace(settings, checkpoints=tmp_path), detector),
        picture(tmp_path, draw([LEFT])),
    )
    with pytest.raises(CheckpointError, match="Test gone"):
        pipeline.analyze_all(file, ["good", "gone"])
    with pytest.raises(CheckpointError, match="huge"):
        pipeline.analyze_all(file, ["good", "huge"])
    assert detector.searches == 0  # told before any work

    def refuse(*_args: object) -> bytes:
        raise CheckpointError("file.pt is damaged or incomplete. Download it again.")

    monkeypatch.setattr(network, "resolve", refuse)
    with raises_code(CheckpointError, "unloadable") as caught:
        pipeline.analyze_all(file, ["good", "gone"])
    assert caught.value.message.values["title"] == "Test gone"


def test_an_engine_that_refuses_a_network_names_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise EngineError("no", code="openvino_failed")

    monkeypatch.setattr(network, "load", refuse)
    with raises_code(EngineError, "openvino_failed") as caught:
        Pipeline(settings, GreenDetector()).network("twin")
    assert caught.value.message.values["title"] == "Test twin"


def test_several_checkpoints_can_be_stopped_together(pipeline: Pipeline, tmp_path: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        pipeline.analyze_all(clip(tmp_path, [[LEFT]] * 6), ALL, EVERY_FRAME, stop)
