"""The whole challenge by the command line: features, heads, tuning, smoothing, evaluation, submission."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from challenge_makers import Challenge, make_challenge
from checkpoint_makers import change_manifest, make_checkpoint
from error_codes import raises_code
from PIL import Image

from hsemotion_space.cli import main
from hsemotion_space.hub.manifest import CheckpointError, read_manifest
from hsemotion_space.hub.weights import load_heads
from hsemotion_space.tasks import (
    ACTION_UNITS,
    AFF_WILD2_EXPRESSION,
    CHALLENGE,
    MIMICRY_INTENSITY,
    VALENCE_AROUSAL,
    Task,
)
from hsemotion_space.training.attach import Attachment, attach_heads, drop_heads
from hsemotion_space.training.challenge import frames_of, labels_of, measure, tune
from hsemotion_space.training.feature_table import read_features
from hsemotion_space.training.files import DataError
from hsemotion_space.training.formats.crops import list_clips, list_faces
from hsemotion_space.training.postprocess import (
    PostSettings,
    Smoothing,
    load_frame_rates,
    load_settings,
    post_process,
    save_settings,
)
from hsemotion_space.training.scoring import score
from hsemotion_space.training.series import Series, read_series, read_thresholds, write_series
from hsemotion_space.training.trained_head import load_head

FRAME_TASKS = [task for task in CHALLENGE if task.scope == "frame"]
MARGIN = 0.12  # between random convolutions and a linear model that knows how the pictures were made
PRIOR = """[[heads]]
task = "mimicry_intensity"
kind = "prior"
provenance = "prior"
source = ["valence_arousal", "expression"]

"""
each_task = pytest.mark.parametrize("task", CHALLENGE, ids=lambda task: task.name)


@dataclass(frozen=True)
class World:
    """A challenge, a checkpoint with random weights, and the features of both it and an ideal observer."""

    folder: Path
    challenge: Challenge

    def paths(self, task: Task) -> tuple[Path, Path, Path]:
        """Return training labels, validation labels and the list of frames."""
        if task.scope == "clip":
            return self.challenge.clip_training, self.challenge.clip_validation, self.challenge.clip_list
        part = next(part for part in self.challenge.frames if part.task is task)
        return part.training, part.validation, part.frame_list

    def features(self, task: Task, system: str) -> Path:
        name = f"{system}-{'clips' if task.scope == 'clip' else 'frames'}"
        return self.folder / (f"{name}.parquet" if system == "ideal" else name)

    def score(self, task: Task, file: Path, thresholds: tuple[float, ...] = ()) -> float:
        labels = labels_of(self.paths(task)[1], task)
        return score(task, labels, read_series(file, task), thresholds or None, rounds=0).value

    def results(self, task: Task, system: str) -> Path:
        """Run every step for one task and one kind of features, once; return the folder of the results."""
        out = self.folder / f"{task.name}-{system}"
        if out.exists():
            return out
        out.mkdir()
        training, _, frames = self.paths(task)
        features = self.features(task, system)
        size = "--epochs 60" if task.scope == "clip" else "--epochs 15 --batch 64"
        common = f"--task {task.name} --tuning-share 0.3 --labels {training}"
        raw, final = (f"--task {task.name} --predictions {out}/{name}.parquet" for name in ("raw", "final"))
        run(f"learn head {common} --features {features} --reads embeddings {size} --out {out}/head")
        run(f"learn predict --head {out}/head --features {features} --out {out}/raw.parquet")
        run(f"learn tune {common} --predictions {out}/raw.parquet --out {out}/post.json")
        run(f"learn post {raw} --post {out}/post.json --frames {frames} --out {out}/final.parquet")
        run(f"learn submit {final} --post {out}/post.json --frames {frames} --out {out}/submission.txt")
        return out


def run(command: str) -> None:
    assert main(command.split()) == 0


def ideal_features(faces: Iterator, file: Path) -> None:
    """Write what an ideal observer looks at: the mean colors of 8 x 8 cells of each picture."""
    rows = list(faces)
    pictures = [Image.open(row.image).convert("RGB").resize((8, 8), Image.Resampling.BOX) for row in rows]
    cells = np.concatenate([np.asarray(picture).ravel() for picture in pictures]).astype(np.float32)
    values = pa.FixedSizeListArray.from_arrays(pa.array(cells / 255), len(cells) // len(rows))
    columns = {"video": [row.video for row in rows], "frame": [row.frame for row in rows]}
    pq.write_table(pa.table({**columns, "embedding": values}), file)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("challenge")
    made = World(folder, make_challenge(folder / "data", 0, videos=(12, 5), frames=90, clips=(40, 24)))
    make_checkpoint(folder / "checkpoints" / "small", size=32, settled=True)
    first, second = made.challenge.roots
    clips = made.challenge.clip_root
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HSEMOTION_CHECKPOINTS", str(folder / "checkpoints"))
        patch.setenv("HSEMOTION_ENGINE", "torch")
        run(f"learn features --checkpoint small --faces {first} {second} --out {folder}/network-frames")
        run(f"learn features --faces {clips} --any-names --out {folder}/network-clips")
        ideal_features(list_faces(made.challenge.roots), folder / "ideal-frames.parquet")
        ideal_features(list_clips([clips]), folder / "ideal-clips.parquet")
        yield made


def with_prior(folder: Path) -> Path:
    """Make a checkpoint whose mimicry head is the prior."""
    made = make_checkpoint(folder, size=32, settled=True).folder
    entry = '[[heads]]\ntask = "compound'
    change_manifest(made, (entry, PRIOR + entry))
    return made


@each_task
def test_learn_comes_near_the_ceiling_of_a_task(world: World, task: Task) -> None:
    # measured: VA .973 and .939, EXPR .955 and .886, AU .898 and .817, CE .981 and .935, EMI .939 and .817
    reached = {}
    for system in ("ideal", "network"):
        folder = world.results(task, system)
        thresholds = load_settings(folder / "post.json", task).thresholds
        reached[system] = world.score(task, folder / "final.parquet", thresholds)
    assert reached["ideal"] > (0.6 if task.scope == "clip" else 0.85), "the signal is there"
    assert reached["network"] > reached["ideal"] - (0.25 if task.scope == "clip" else MARGIN)


@pytest.mark.parametrize("task", FRAME_TASKS, ids=lambda task: task.name)
def test_tune_chooses_smoothing_for_a_smooth_signal(world: World, task: Task) -> None:
    folder = world.results(task, "network")
    post = load_settings(folder / "post.json", task)
    assert 3 <= post.smoothing.width <= 15  # classes stay for 15 to 40 frames
    smoothed = world.score(task, folder / "final.parquet", post.thresholds)
    assert smoothed > world.score(task, folder / "raw.parquet") + 0.05


@each_task
def test_submit_writes_every_row_of_the_list(
    world: World, task: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, (_, labels, frames) = world.results(task, "network"), world.paths(task)
    listed, written = (
        [line.split(",")[0] for line in file.read_text("utf-8").splitlines()[1:]]
        for file in (frames, folder / "submission.txt")
    )
    assert written == listed
    capsys.readouterr()
    run(f"evaluate --task {task.name} --predictions {folder}/submission.txt --labels {labels}")
    thresholds = load_settings(folder / "post.json", task).thresholds
    assert f"| {world.score(task, folder / 'final.parquet', thresholds):.3f} |" in capsys.readouterr().out


def test_tune_blends_two_systems(world: World, tmp_path: Path) -> None:
    task = AFF_WILD2_EXPRESSION
    training, _, frames = world.paths(task)
    both = [world.results(task, system) / "raw.parquet" for system in ("network", "ideal")]
    systems = f"--task {task.name} --predictions {both[0]} {both[1]}"
    run(f"learn tune {systems} --labels {training} --box 0 5 --out {tmp_path}/post.json")
    run(f"learn post {systems} --post {tmp_path}/post.json --frames {frames} --out {tmp_path}/final.parquet")
    post = load_settings(tmp_path / "post.json", task)
    assert len(post.weights) == 8
    alone = world.score(task, world.results(task, "network") / "final.parquet")
    assert world.score(task, tmp_path / "final.parquet") > alone - 0.05
    with raises_code(DataError, "systems"):
        post_process(post, [read_series(both[0], task)], frames_of(frames, task))


def test_attach_gives_a_checkpoint_a_head(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    task, folder, labels = ACTION_UNITS, world.results(ACTION_UNITS, "network"), world.paths(ACTION_UNITS)[1]
    checkpoint, features = world.folder / "checkpoints" / "small", world.folder / "network-frames"
    first, second = world.challenge.roots
    run(f"learn attach --head {folder}/head --post {folder}/post.json --note F1 --checkpoint {checkpoint}")
    spec = read_manifest(checkpoint).head("action_units")
    assert spec is not None
    assert (spec.kind, spec.provenance, spec.note) == ("mlp", "trained", "F1")
    assert spec.thresholds == load_settings(folder / "post.json", task).thresholds
    layers = load_heads(read_manifest(checkpoint))["action_units"]
    assert [weight.shape for weight, _ in layers] == [(128, 512), (12, 128)]

    def evaluated(options: str) -> list[str]:
        capsys.readouterr()
        run(f"evaluate --task {task.name} --labels {labels} {options}")
        return [
            line for line in capsys.readouterr().out.splitlines() if line.startswith(("| AU", "| Action"))
        ]

    out = evaluated(f"--checkpoint small --faces {first} {second}")
    run(f"learn predict --checkpoint small --task {task.name} --features {features} --out {world.folder}/own")
    assert read_thresholds(world.folder / "own") == spec.thresholds
    assert evaluated(f"--predictions {world.folder}/own") == out
    value = world.score(task, folder / "raw.parquet", spec.thresholds)
    assert any(f"| {value + step / 1000:.3f} |" in "".join(out) for step in (-1, 0, 1))  # half precision
    assert read_features(features).checkpoint == "small"
    expressions = world.paths(AFF_WILD2_EXPRESSION)[1]
    report = world.folder / "report.html"
    run(
        f"evaluate --task expression --checkpoint small --features {features} --labels {expressions} --report {report}"
    )
    assert "Expression: small" in report.read_text("utf-8")


def test_attach_refuses_a_head_of_other_weights_or_labels(world: World, tmp_path: Path) -> None:
    other, small = (
        make_checkpoint(tmp_path / "other", size=32, seed=1).folder,
        world.folder / "checkpoints" / "small",
    )
    for task, folder, code in (
        (ACTION_UNITS, other, "other_weights"),
        (AFF_WILD2_EXPRESSION, small, "labels"),
    ):
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        head = load_head(world.results(task, "network") / "head")
        with raises_code(DataError, code):
            attach_heads([Attachment(head, "x")], folder)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_attach_refuses_thresholds_of_another_number(world: World, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "small", size=32, settled=True).folder
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    head = load_head(world.results(ACTION_UNITS, "network") / "head")
    with raises_code(CheckpointError, "invalid_value"):
        attach_heads([Attachment(head, "x", (0.5,))], folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_attach_replaces_the_prior_of_mimicry(world: World, tmp_path: Path) -> None:
    folder = with_prior(tmp_path / "small")
    assert read_manifest(folder).head("mimicry_intensity").provenance == "prior"
    head = world.results(MIMICRY_INTENSITY, "network") / "head"
    run(f"learn attach --head {head} --note r --checkpoint {folder}")
    assert {head.task.name: head.provenance for head in read_manifest(folder).heads} == {
        "expression": "trained", "valence_arousal": "trained", "mimicry_intensity": "trained",
        "compound_expression": "rule",
    }  # fmt: skip


def test_drop_heads_removes_what_reads_other_weights(world: World, tmp_path: Path) -> None:
    folder = with_prior(tmp_path / "small")
    attach_heads([Attachment(load_head(world.results(VALENCE_AROUSAL, "network") / "head"), "x")], folder)
    assert drop_heads(folder, read_manifest(folder).sha256) == []
    assert drop_heads(folder, "ab" * 32) == ["valence_arousal", "mimicry_intensity"]
    assert [head.task.name for head in read_manifest(folder).heads] == ["expression", "compound_expression"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("learn head --task expression --features nowhere --labels l --out o", "nowhere"),
        ("learn features --faces {folder} --out {folder}/f", "There is no picture"),
        ("learn submit --task mimicry_intensity --predictions {folder}/e --frames {frames} --out x", "the id of a clip"),
        ("evaluate --task expression --checkpoint small --labels l", "needs --features or --faces"),
        ("evaluate --task expression --predictions p.parquet --labels nowhere", "p.parquet"),
        ("evaluate --task valence_arousal --predictions {folder}/p --labels {labels}", "none of the annotated videos"),
    ],
)  # fmt: skip
def test_commands_name_unusable_input(
    world: World, tmp_path: Path, command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = Series("nowhere", np.array([1]), np.zeros((1, 2), np.float32))
    write_series(tmp_path / "p", VALENCE_AROUSAL, [elsewhere])
    write_series(tmp_path / "e", MIMICRY_INTENSITY, [])
    frames, labels = world.paths(AFF_WILD2_EXPRESSION)[2], world.paths(VALENCE_AROUSAL)[1]
    empty = tmp_path / "empty"
    empty.mkdir()
    folder = empty if "--faces" in command else tmp_path
    assert main(command.format(folder=folder, frames=frames, labels=labels).split()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("share", ["-0.1", "0.6", "15"])
def test_tuning_share_is_a_share(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(f"learn head --task expression --features f --labels l --out o --tuning-share {share}".split())
    assert "must be from 0 to 0.5" in capsys.readouterr().err


def test_tune_refuses_no_labels_and_three_systems() -> None:
    labels, smoothings = [Series("v", np.array([1]), np.zeros((1, 2), np.float32))], [Smoothing()]
    with raises_code(DataError, "no_tuning_video"):
        tune(VALENCE_AROUSAL, [[]], [], smoothings)
    with raises_code(DataError, "systems"):
        tune(VALENCE_AROUSAL, [[], [], []], labels, smoothings)


def test_frames_of_a_table_with_columns_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("Joy,Filename\n0.5,00007\n0.1,00002\n", "utf-8")
    assert frames_of(tmp_path / "c.csv", MIMICRY_INTENSITY).keys() == {"00007", "00002"}


def test_load_settings_of_another_task_or_form(tmp_path: Path) -> None:
    file, thresholds = tmp_path / "post.json", tuple(k / 20 for k in range(12))
    post = PostSettings(ACTION_UNITS, Smoothing("gaussian", 2.5, "seconds"), thresholds, ())
    save_settings(post, file)
    assert load_settings(file, ACTION_UNITS) == post
    with raises_code(DataError, "other_task"):
        load_settings(file, AFF_WILD2_EXPRESSION)
    text = file.read_text("utf-8").replace('"weights": []', '"weights": [0.5]')
    for content, code in ((text, "label_count"), ('{"smoothing": 3}', "unusable")):
        file.write_text(content, "utf-8")
        with raises_code(DataError, code):
            load_settings(file, ACTION_UNITS)


def test_post_process_with_widths_in_seconds(tmp_path: Path) -> None:
    (tmp_path / "rates.json").write_text('{"slow": 2.0}', "utf-8")
    frames, values = np.arange(1, 8), np.eye(7, 2, -3, np.float32)
    raw = [Series(name, frames, values) for name in ("slow", "usual")]
    post, rates = (
        PostSettings(VALENCE_AROUSAL, Smoothing("box", 0.5, "seconds")),
        load_frame_rates(tmp_path / "rates.json"),
    )
    slow, usual = post_process(post, [raw], dict.fromkeys(("slow", "usual"), frames), rates)
    assert np.count_nonzero(slow.values[:, 0]) == 3  # half a second is one frame to each side
    assert np.count_nonzero(usual.values[:, 0]) == 7  # and fifteen where nothing is known
    assert load_frame_rates(None) == {}
    for text in ('{"slow": 0}', "[1]", '{"slow": "fast"}'):
        (tmp_path / "rates.json").write_text(text, "utf-8")
        with raises_code(DataError, "frame_rate", "unusable"):
            load_frame_rates(tmp_path / "rates.json")


def test_post_process_completes_before_it_smooths(tmp_path: Path) -> None:
    task = VALENCE_AROUSAL
    raw = Series("v", np.array([2, 4]), np.array([[0, 0], [1, 0.5]], np.float32))
    write_series(tmp_path / "p.parquet", task, [raw])
    wanted = {"v": np.arange(1, 6), "absent": np.arange(1, 3)}
    predictions = read_series(tmp_path / "p.parquet", task)
    done = post_process(PostSettings(task, Smoothing("box", 1)), [predictions], wanted)
    assert [series.video for series in done] == ["v"]
    np.testing.assert_allclose(done[0].values[:, 0], [0, 1 / 6, 0.5, 5 / 6, 1], atol=1e-6)  # of 0 0 .5 1 1
    assert measure(task, [Series("v", wanted["v"], done[0].values)], done) == pytest.approx(1)
