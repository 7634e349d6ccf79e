"""``hsemotion-space analyze``: pictures and clips, from one to a study."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from hsemotion_space.analysis.face_check import doubt
from hsemotion_space.analysis.reliability import reliability_text
from hsemotion_space.batch.analyst import Analyst, Outcome
from hsemotion_space.batch.cluster import analyze_on_ray, require_ray
from hsemotion_space.batch.folder import FolderError, ResultFolder
from hsemotion_space.batch.inputs import Input, find_inputs
from hsemotion_space.batch.records import Record, Study
from hsemotion_space.batch.stream import ExportStream
from hsemotion_space.cli.console import downloading, printable, report_error, say
from hsemotion_space.cli.render import check_render, render_clip
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import PROVENANCE_LABELS, Analysis, Prediction

NAMED = 5  # failed inputs in the closing line
Target = ResultFolder | ExportStream | None


def run(options: argparse.Namespace) -> int:
    """Analyze the inputs and return the exit status."""
    start_s, end_s = options.clip
    config = PipelineConfig(
        options.checkpoint, options.fps, options.smoothing, options.detect_every, start_s=start_s, end_s=end_s
    )
    if options.engine == "ray":
        require_ray()
    found, others = find_inputs(options.paths)
    if others:
        print(f"Left out {_count(others, 'file')} that are no pictures or clips.", file=sys.stderr)
    if options.render:
        check_render([Path(item.path) for item in found], options.render)
    number, parts = options.part
    inputs, pending = found[number - 1 :: parts], found[number - 1 :: parts]
    study, done, failed, status = Study.of(_settings(), config, options.embeddings), 0, [], 0
    with _target(options) as target:
        if isinstance(target, ResultFolder):
            pending = target.pending(inputs, study)
        try:
            for outcome in _outcomes(options, study, pending, target):
                _keep(outcome, target)
                if options.render and outcome.analysis is not None:
                    with _bars(1) as (_, report):
                        render_clip(Path(found[0].path), outcome.analysis, options.render, report)
                done += 1
                if outcome.record.status == "failed":
                    failed.append(outcome.record.source)
                    status = 1
        except KeyboardInterrupt:
            status = 130
    if len(inputs) > 1 or status == 130 or target is not None:
        _close(target, done - len(failed), len(inputs) - len(pending), failed, len(pending) - done)
    return status


def _settings() -> Settings:
    settings = Settings.from_env()
    return replace(settings, limits=settings.limits.for_own_files())


def _target(options: argparse.Namespace) -> AbstractContextManager[Target]:
    """Return where results go; what cannot be written to is refused here, before work starts."""
    out = Path(options.out)
    if options.out and (out.is_dir() or not out.suffix or options.out.endswith(os.sep)):
        number, parts = options.part
        return ResultFolder(out, f"{number}-of-{parts}" if parts > 1 else "all", options.resume)
    if options.resume or options.embeddings or options.part[1] > 1 or options.engine == "ray":
        text = "--resume, --part, --embeddings and --engine ray need --out FOLDER."
        raise FolderError(text, code="needs_folder")
    return ExportStream(out, bom=options.csv_bom) if options.out else nullcontext()


def _outcomes(
    options: argparse.Namespace, study: Study, pending: Sequence[Input], target: Target
) -> Iterator[Outcome]:
    """Yield the outcome of each input; those that are known to fail come first."""
    for item in pending:
        if item.fault:
            yield Outcome(Record.failed(item, study, item.fault.code, item.fault))
    sound = [item for item in pending if not item.fault]
    if not sound:
        return
    with _bars(len(sound)) as (files, report):
        if options.engine == "ray":
            for outcome in analyze_on_ray(study, sound, options.workers):
                yield outcome
                files.update()
            return
        with downloading("weights") as download:
            analyst = Analyst(study, download)
        for item in sound:
            if isinstance(target, ResultFolder):
                target.add(Record.started(item, study))
            yield analyst.analyze(item, report)
            files.update()


@contextmanager
def _bars(count: int) -> Iterator[tuple[tqdm, Callable[[int, int], None]]]:
    """Yield a bar over files and what reports frames (done, expected) on a bar below it."""
    off = not sys.stderr.isatty()
    with (
        tqdm(total=count, unit="file", disable=off) as files,
        tqdm(unit="frame", disable=off, leave=False) as frames,
    ):

        def report(done: int, expected: int) -> None:
            if done < frames.n:
                frames.reset()
            frames.total = expected
            frames.update(done - frames.n)

        yield files, report


def _keep(outcome: Outcome, target: Target) -> None:
    """Store an outcome, and show what no folder keeps."""
    record, analysis = outcome.record, outcome.analysis
    if isinstance(target, ResultFolder):
        target.add(record, outcome.tables, outcome.people)
    if record.status == "failed":
        report_error(f"{printable(record.source)}: {record.error}", 1)
    elif analysis is not None and not isinstance(target, ResultFolder):
        if target is not None:
            target.add(analysis, record.source)
        _show(record.source, analysis)


def _close(target: Target, done: int, kept: int, failed: Sequence[str], left: int) -> None:
    """Write the line that says what was done, what failed and what to do next."""
    parts = [f"{done} analyzed"]
    parts += [f"{kept} already done"] if kept else []
    names = ", ".join(failed[:NAMED]) + (f" and {len(failed) - NAMED} more" if len(failed) > NAMED else "")
    parts += [f"{len(failed)} failed ({names})"] if failed else []
    hint = "; the same command with --resume continues" if isinstance(target, ResultFolder) else ""
    parts += [f"stopped before {left} more{hint}"] if left else []
    say(f"{target.path if target else 'Inputs'}: {', '.join(parts)}.")


def _show(name: str, analysis: Analysis) -> None:
    media = analysis.media
    kind = (
        f"clip, {media.duration_s:.2f} s, {len(analysis.frame_times_s)} frames analyzed"
        if media.kind == "clip"
        else "picture"
    )
    faces = "1 face" if len(analysis.faces) == 1 else f"{len(analysis.faces)} faces"
    say(f"{name}: {kind}, {media.width} x {media.height} px, {faces}  [{analysis.checkpoint.id}]")
    for notice in analysis.notices:
        say(f"  note: {notice}")
    if analysis.faces and not any(
        prediction.reliability for face in analysis.faces for prediction in face.predictions
    ):
        say("  note: the reliability of this checkpoint was not measured")
    for face in analysis.faces:
        track = face.track
        seen = (
            f", {track.times_s[0]:.2f} to {track.times_s[-1]:.2f} s in {len(track.times_s)} frames"
            if media.kind == "clip"
            else ""
        )
        say(f"  face {track.track_id}{seen}")
        if found := doubt(face):
            say(f"    warning: {found.text}")
        for prediction in face.predictions:
            say(
                f"    {prediction.task.title} ({PROVENANCE_LABELS[prediction.provenance]}):"
                f" {_values_text(prediction)}"
            )
            if reliable := reliability_text(prediction):
                say(f"      {reliable}")


def _values_text(prediction: Prediction) -> str:
    if not prediction.stands_out:
        return prediction.task.none
    names = [label.name for label in prediction.task.labels]
    order = (
        range(len(names))
        if prediction.task.kind == "continuous"
        else sorted(range(len(names)), key=lambda k: -prediction.values[k])[:3]
    )
    return ", ".join(f"{names[k]} {prediction.values[k]:.2f}" for k in order)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
