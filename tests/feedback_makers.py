"""Makers of feedback records, stored records and crops.

make_record()                                   # Anna says that picture 0 shows Sadness
make_record(3, contributor=BEN, verdict="correct")
make_stored(make_record(3), number=7, state="sealed")
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hsemotion_space.feedback.record import FeedbackError, FeedbackRecord, Values, Verdict
from hsemotion_space.feedback.trace import TraceRecord
from hsemotion_space.tasks import TASKS, Task

NOW_S = 1_750_000_000.0
"""A day in June 2025."""
BOX = (0.25, 0.125, 0.75, 0.875)
SCOPES = ("labels", "crop", "publish")
SAD: Mapping[str, Values] = {"expression": {"Sadness": 1.0}}


def hash_of(text: str, length: int = 32) -> str:
    """Return hexadecimal digits that stand for an id or a keyed hash."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


ANNA, BEN, CARL = (hash_of(name) for name in ("Anna", "Ben", "Carl"))
"""Contributors."""


def make_values(task: Task, top: int = 4) -> Values:
    """Predict one task: the label with index ``top`` is the strongest."""
    count = len(task.labels)
    shares = np.full(count, 0.2 / (count - 1))
    shares[top % count] = 0.8
    return {label: round(float(share), 6) for label, share in zip(task.label_names, shares, strict=True)}


def make_predicted(kind: str = "image", top: int = 4) -> Mapping[str, Values]:
    """Predict every task of a picture, or of a clip (which has mimicry intensity too)."""
    return {task.name: make_values(task, top) for task in TASKS if task.scope == "frame" or kind == "clip"}


def make_record(
    number: int = 0,
    *,
    record_id: str = "",
    contributor: str = ANNA,
    media: str = "",
    kind: str = "image",
    face: int = 1,
    span_s: tuple[float, ...] = (),
    verdict: Verdict = "wrong",
    corrected: Mapping[str, Values] | None = None,
    scopes: tuple[str, ...] = SCOPES,
    comment: str = "",
    top: int = 4,
) -> FeedbackRecord:
    """Make a statement about picture ``number``; its id follows from the contributor and everything that was
    said."""
    item = hash_of(repr((media or f"picture {number}", face, span_s)))
    said = corrected if corrected is not None else SAD if verdict == "wrong" else {}
    sorted_said = sorted((task, sorted(values.items())) for task, values in said.items())
    name = repr((item, kind, contributor, verdict, sorted_said, scopes, comment, top))
    predicted = make_predicted(kind, top)
    provenance = {
        task.name: "trained" if task.kind != "continuous" else "prior"
        for task in TASKS
        if task.name in predicted
    }
    weights = hash_of("weights", 64), hash_of("heads", 64), hash_of("preprocessing", 64)
    return FeedbackRecord(
        record_id or hash_of(name), contributor, item, kind, face, BOX, span_s, "starter", *weights, predicted, provenance, verdict,
        dict(said), "1", scopes, "adult_and_permitted", comment,
    )  # fmt: skip


def make_stored(record: FeedbackRecord | None = None, *, number: int = 1, **marks: object) -> FeedbackRecord:
    """Put a record (by default about picture ``number``) into the form that the store returns."""
    return replace(record or make_record(number), **{"number": number, "created_s": NOW_S, **marks})


def make_crop(number: int = 0, side: int = 32) -> bytes:
    """Return a PNG of noise, which no compression makes small and no two numbers share."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@contextmanager
def refused(code: str) -> Iterator[pytest.ExceptionInfo[FeedbackError]]:
    """Expect a FeedbackError with a code."""
    with pytest.raises(FeedbackError) as caught:
        yield caught
    assert caught.value.code == code


def make_trace(number: int = 0, **changes: object) -> TraceRecord:
    """Make Anna's first pass of valence over a clip of 6 s; ``number`` gives other ratings and another id."""
    times = np.arange(61) / 10
    values = np.round(np.sin(times / 2 + number), 4)
    item, clip = hash_of(repr(sorted(changes.items()))), hash_of("clip")
    stated = TraceRecord(
        hash_of(f"trace {number} {item}"), ANNA, item, clip, 1, (0.0, 6.0), "Valence", "first", True, "keys",
        tuple(times.tolist()), tuple(values.tolist()), "1", SCOPES[::2], "adult_and_permitted", True,
    )  # fmt: skip
    return replace(stated, **changes)
