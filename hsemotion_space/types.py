"""The values that travel through the pipeline.

All are frozen, check their shapes, and need nothing but NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from hsemotion_space.edits import Edits
from hsemotion_space.tasks import Task

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Provenance = Literal["trained", "rule", "prior"]
PROVENANCE_LABELS: Final[dict[Provenance, str]] = {
    "trained": "trained",
    "rule": "rule, not trained",
    "prior": "prior, unvalidated",
}
"""What a reader sees beside every number."""
THUMBNAIL_HALF: Final = 0.65
"""Half of the side of a track's thumbnail, in longer sides of the box."""


def check_shape(
    owner: str, name: str, array: npt.NDArray[np.generic], expected: tuple[int | None, ...]
) -> None:
    """Raise a ValueError that quotes expected and actual shape; ``None`` stands for any length."""
    actual = array.shape
    if len(actual) != len(expected) or any(
        want is not None and want != have for want, have in zip(expected, actual, strict=True)
    ):
        wanted = "(" + ", ".join("any" if size is None else str(size) for size in expected) + ")"
        raise ValueError(f"{owner}.{name}: expected shape {wanted}, got {actual}.")


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture.

    Attributes:
        rgb: (H, W, 3) uint8.
        index: in decoding order.
        time_s: presentation time from 0.
        starts_shot: whether a hard cut lies before it.
    """

    rgb: ByteArray
    index: int
    time_s: float
    starts_shot: bool = False

    def __post_init__(self) -> None:
        check_shape("Frame", "rgb", self.rgb, (None, None, 3))
        if self.rgb.dtype != np.uint8:
            raise ValueError(f"Frame.rgb: expected uint8, got {self.rgb.dtype}.")


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What was opened.

    Attributes:
        sha256: digest of the file's bytes, the identity of the media.
        kind: ``image`` or ``clip``.
        width, height: in px, after rotation.
        duration_s: as analyzed; 0 for an image.
        notices: sentences for the reader, such as where a long clip was cut.
    """

    sha256: str
    kind: Literal["image", "clip"]
    width: int
    height: int
    duration_s: float = 0.0
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FaceDetections:
    """Faces in one frame: ``boxes_xyxy`` (N, 4) px, ``scores`` (N,) in 0..1, ``landmarks`` (N, 5, 2) px.

    Landmarks are both eyes, nose, both mouth corners; NaN where the detector gave none.
    """

    boxes_xyxy: FloatArray
    scores: FloatArray
    landmarks: FloatArray

    def __post_init__(self) -> None:
        count = len(self.boxes_xyxy)
        check_shape("FaceDetections", "boxes_xyxy", self.boxes_xyxy, (None, 4))
        check_shape("FaceDetections", "scores", self.scores, (count,))
        check_shape("FaceDetections", "landmarks", self.landmarks, (count, 5, 2))

    def __len__(self) -> int:
        return len(self.boxes_xyxy)

    @classmethod
    def empty(cls) -> FaceDetections:
        """Return detections of a frame without a face."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))

    def select(self, rows: npt.NDArray[np.integer] | BoolArray) -> FaceDetections:
        """Return the chosen faces."""
        return FaceDetections(self.boxes_xyxy[rows], self.scores[rows], self.landmarks[rows])


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """One person while visible; the end of the expensive half of an analysis.

    Attributes:
        track_id: from 1, in order of appearance.
        frame_index: (T,) index of each frame.
        times_s: (T,) presentation times, rising.
        boxes_xyxy: (T, 4) in px of the picture.
        detection_scores: (T,) in 0..1.
        embeddings: (T, D) of the backbone.
        scores: (T, K) raw outputs of the backbone.
        thumbnail: (S, S, 3) uint8, the surest face.
        landmarks: (T, 5, 2) in px of the picture: both eyes, nose, both mouth corners; NaN in frames where
            the detector gave none. (0, 5, 2) if they are not known at all, as for tracks from outside of the
            pipeline.
    """

    track_id: int
    frame_index: IntArray
    times_s: npt.NDArray[np.float64]
    boxes_xyxy: FloatArray
    detection_scores: FloatArray
    embeddings: FloatArray
    scores: FloatArray
    thumbnail: ByteArray
    landmarks: FloatArray = field(default_factory=lambda: np.zeros((0, 5, 2), np.float32))

    def __post_init__(self) -> None:
        count = len(self.times_s)
        for name, expected in (
            ("times_s", (count,)),
            ("frame_index", (count,)),
            ("boxes_xyxy", (count, 4)),
            ("detection_scores", (count,)),
            ("embeddings", (count, None)),
            ("scores", (count, None)),
            ("thumbnail", (None, None, 3)),
            ("landmarks", (count if len(self.landmarks) else 0, 5, 2)),
        ):
            check_shape("FaceTrack", name, getattr(self, name), expected)
        if count == 0 or np.any(np.diff(self.times_s) <= 0):
            raise ValueError(f"FaceTrack.times_s: expected at least one rising time, got {count}.")


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often the answers of a head were right on held-out pictures; empty if it was not measured.

    An answer of a ``one_of`` task is its most probable label; of an independent label, that it is present.

    Attributes:
        right: (K,) answers with each label that were right.
        answers: (K,) answers with each label.
        pictures: which pictures they were.
    """

    right: tuple[int, ...] = ()
    answers: tuple[int, ...] = ()
    pictures: str = ""

    def __post_init__(self) -> None:
        pairs = zip(self.right, self.answers, strict=False)
        if len(self.right) != len(self.answers) or not all(0 <= right <= answers for right, answers in pairs):
            raise ValueError(
                f"Reliability: expected 0 <= right <= answers per label, got {self.right} and {self.answers}."
            )

    def __bool__(self) -> bool:
        return bool(self.answers)


NOT_MEASURED: Final = Reliability()


@dataclass(frozen=True, slots=True)
class Timeline:
    """Values of one task for one track: ``times_s`` (T,), ``values`` (T, K); a clip-level task has T = 1.

    Attributes:
        thresholds: (K,) decision thresholds of independent labels, () if there are none.
        reliability: how often such answers were right.
        support: (T, K) the smaller probability that another task gives to the two parts of each label; (0, K)
            if labels have no parts.
        least_support: what the most probable label needs of it to stand out.
        half_width_s: of the smoothing window in seconds; 0 if the values are as measured.
        neutral: (K,) the values of the person's own neutral; (0,) if none is marked or the task has none.
    """

    task: Task
    provenance: Provenance
    times_s: npt.NDArray[np.float64]
    values: FloatArray
    thresholds: tuple[float, ...] = ()
    reliability: Reliability = NOT_MEASURED
    support: FloatArray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    least_support: float = 0.0
    half_width_s: float = 0.0
    neutral: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))

    def __post_init__(self) -> None:
        check_shape("Timeline", "values", self.values, (len(self.times_s), len(self.task.labels)))
        if len(self.neutral):
            check_shape("Timeline", "neutral", self.neutral, (len(self.task.labels),))
        if len(self.support):
            check_shape("Timeline", "support", self.support, self.values.shape)

    @property
    def stands_out(self) -> BoolArray:
        """(T,) whether the most probable label is a finding: False only where its parts lack support."""
        if not len(self.support):
            return np.ones(len(self.times_s), np.bool_)
        top = self.support[np.arange(len(self.values)), self.values.argmax(axis=1)]
        return np.asarray(top >= self.least_support)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Summary of a timeline.

    Attributes:
        values: (K,) mean over the frames.
        spread: (K,) standard deviation over the frames; NaN where there is only one.
        frames: number of frames behind it.
        thresholds: (K,) decision thresholds of independent labels, () if there are none.
        reliability: how often such answers were right.
        support: (K,) mean over the frames, as in :class:`Timeline`; () if labels have no parts.
        least_support: what the most probable label needs of it to stand out.
    """

    task: Task
    provenance: Provenance
    values: FloatArray
    spread: FloatArray
    frames: int
    thresholds: tuple[float, ...] = ()
    reliability: Reliability = NOT_MEASURED
    support: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    least_support: float = 0.0

    def __post_init__(self) -> None:
        count = len(self.task.labels)
        check_shape("Prediction", "values", self.values, (count,))
        check_shape("Prediction", "spread", self.spread, (count,))

    @property
    def top(self) -> int:
        """Column of the largest value."""
        return int(np.argmax(self.values))

    @property
    def stands_out(self) -> bool:
        """Whether the most probable label is a finding: False only where its parts lack support."""
        return not len(self.support) or bool(self.support[self.top] >= self.least_support)


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """Which weights made an analysis.

    Attributes:
        sha256, heads_sha256: digests of the files of weights and heads; empty without one.
        license: license of the weights and terms of their use.
    """

    id: str
    title: str
    sha256: str
    heads_sha256: str = ""
    license: str = ""


@dataclass(frozen=True, slots=True)
class FaceResult:
    """One track with a timeline and a prediction per task, in one order.

    Attributes:
        least_length: of the embedding of a face, by this checkpoint; 0 if it was not measured.
    """

    track: FaceTrack
    timelines: tuple[Timeline, ...]
    predictions: tuple[Prediction, ...]
    least_length: float = 0.0


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything one checkpoint says about one media file.

    Attributes:
        frame_times_s: (F,) presentation times of all analyzed frames, with or without a face.
        faces: by track id.
        notices: sentences for the reader.
        preview: (H, W, 3) uint8 the picture itself or one frame of the clip, perhaps smaller than the media;
            (0, 0, 3) for none.
        preview_time_s: presentation time of the preview.
        cuts_s: (C,) presentation times of the first analyzed frame after each hard cut.
        edits: what a person changed by hand; faces and timelines follow it.
        imported: whether it was read from a file and not made by this server, which takes no feedback on it.
    """

    media: MediaInfo
    checkpoint: CheckpointRef
    frame_times_s: npt.NDArray[np.float64]
    faces: tuple[FaceResult, ...]
    notices: tuple[str, ...] = ()
    preview: ByteArray = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8))
    preview_time_s: float = 0.0
    cuts_s: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    edits: Edits = field(default_factory=Edits)
    imported: bool = False


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How far N checkpoints are apart in one task of one face, frame by frame.

    Attributes:
        track_id: of the face.
        task: with the labels that were compared.
        checkpoints: (N,) at least two; those that have the task.
        lines: (N,) what each of them says, with T values each.
        score: (T,) in 0..1, 0 where all say the same.
        decisions: (T,) in 0..1, the share of decisions in which not all are of one mind; NaN for a task
            without decisions.
    """

    track_id: int
    task: Task
    checkpoints: tuple[CheckpointRef, ...]
    lines: tuple[Timeline, ...]
    score: FloatArray
    decisions: FloatArray

    def __post_init__(self) -> None:
        if len(self.lines) < 2 or len(self.checkpoints) != len(self.lines):
            raise ValueError(
                "Disagreement: expected two or more checkpoints with a line each, got"
                f" {len(self.checkpoints)} and {len(self.lines)}."
            )
        count = len(self.times_s)
        for name in ("score", "decisions"):
            check_shape("Disagreement", name, getattr(self, name), (count,))
        for line in self.lines:
            check_shape("Disagreement", "lines", line.times_s, (count,))

    @property
    def times_s(self) -> npt.NDArray[np.float64]:
        """(T,) presentation times; a clip-level task has one, the first of the face."""
        return self.lines[0].times_s

    @property
    def provenances(self) -> tuple[Provenance, ...]:
        """(N,) where the numbers of each checkpoint come from."""
        return tuple(line.provenance for line in self.lines)

    @property
    def mixed(self) -> bool:
        """Whether numbers of different provenance were compared, such as trained with rule-based ones."""
        return len(set(self.provenances)) > 1

    @property
    def partial(self) -> tuple[str, ...]:
        """Names of the labels that some of the checkpoints have and some lack."""
        names = dict.fromkeys(name for line in self.lines for name in line.task.label_names)
        return tuple(name for name in names if any(name not in line.task.label_names for line in self.lines))
