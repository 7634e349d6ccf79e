"""Traces as valence and arousal labels: files of the feedback dataset, or of ``feedback traces``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from hsemotion_space.metrics import Doubles
from hsemotion_space.tasks import VALENCE_AROUSAL
from hsemotion_space.traces import Trace, resample, without_lag
from hsemotion_space.training.files import DataError, located, reading, unexpected
from hsemotion_space.training.series import Series

COLUMNS: Final = (
    "clip", "contributor", "created", "dimension", "attempt", "bounded", "times_s", "values",
)  # fmt: skip
Passes = dict[str, Trace]
"""By attempt."""


def read_traces(paths: Sequence[Path], frame_rate: float, lag_s: float = 0.0) -> Iterator[Series]:
    """Yield the mean rating of each face by frame, as labels of a video that is named by ``clip``.

    Everybody counts once: by the repaired pass, else by the mean of their passes. Traces on an unbounded
    scale are no ratings on the scale of the task and are left out. A frame is not annotated (NaN) where
    nobody rated one of the two dimensions.

    Args:
        paths: Parquet files, or folders that contain some at any depth.
        frame_rate: of the label files; frame k is at ``(k - 1) / frame_rate`` seconds.
        lag_s: by which ratings follow what was shown; they are moved back by so much.
    """
    if not (frame_rate > 0 and np.isfinite(lag_s)):
        raise DataError("The frame rate must be above 0, and the lag finite.", code="frame_rate")
    clips: dict[str, dict[tuple[str, str], Passes]] = defaultdict(lambda: defaultdict(dict))
    for cells in _read_latest(paths):
        if cells["bounded"]:
            trace = Trace(np.array(cells["times_s"], np.float64), np.array(cells["values"], np.float64))
            passes = clips[cells["clip"]][cells["dimension"], cells["contributor"]]
            passes[cells["attempt"]] = without_lag(trace, lag_s)
    for clip, given in sorted(clips.items()):
        last_s = max(trace.times_s[-1] for passes in given.values() for trace in passes.values())
        frames = np.arange(1, max(int(last_s * frame_rate + 1e-6) + 1, 1) + 1)
        unrated = np.full(len(frames), np.nan)
        ratings = {
            label: [_rating(given[key], (frames - 1) / frame_rate) for key in given if key[0] == label]
            for label in VALENCE_AROUSAL.label_names
        }
        values = np.stack([_mean([unrated, *of_people]) for of_people in ratings.values()], 1)
        yield Series(clip, frames, values.astype(np.float32))


def _rating(passes: Passes, times_s: Doubles) -> Doubles:
    """Return what one person says of some times."""
    if "repair" in passes:
        return resample(passes["repair"], times_s)
    return _mean([resample(trace, times_s) for trace in passes.values()])


def _mean(ratings: Sequence[Doubles]) -> Doubles:
    """Return the mean of those who rated each moment; NaN where nobody did."""
    known = np.isfinite(ratings)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, ratings, 0).sum(0) / np.maximum(count, 1), np.nan)


def _read_latest(paths: Sequence[Path]) -> list[Mapping[str, Any]]:
    """Return the rows; of one contributor's equal attempts the latest."""
    latest: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for file in (
        file for path in paths for file in (sorted(path.rglob("*.parquet")) if path.is_dir() else [path])
    ):
        with reading(file, "file of traces"), pq.ParquetFile(file) as table:
            if missing := [name for name in COLUMNS if name not in table.schema_arrow.names]:
                raise DataError(
                    "{file} is not a file of traces: the column {name} is missing.",
                    code="columns", file=file, name=missing[0],
                )  # fmt: skip
            for number, cells in enumerate(table.read(list(COLUMNS)).to_pylist(), 1):
                with located(f"{file}, row {number}"):
                    _check(cells)
                key = tuple(cells[name] for name in ("clip", "contributor", "dimension", "attempt"))
                if key not in latest or latest[key]["created"] <= cells["created"]:
                    latest[key] = cells
    return list(latest.values())


def _check(cells: Mapping[str, Any]) -> None:
    clip = str(cells["clip"] or "")
    if not (clip.isascii() and clip.isalnum()):  # it becomes the name of a file
        raise unexpected("a clip of letters and digits", clip, "identity")
    if cells["dimension"] not in VALENCE_AROUSAL.label_names:
        raise unexpected(" or ".join(VALENCE_AROUSAL.label_names), str(cells["dimension"]), "label")
    try:
        Trace(
            np.array(cells["times_s"], np.float64),
            np.array(cells["values"], np.float64),
            bool(cells["bounded"]),
        )
    except (ValueError, TypeError) as error:
        raise unexpected("times in rising order and values from -1 to 1", str(error), "numbers") from error
