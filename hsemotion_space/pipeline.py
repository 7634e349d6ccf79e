"""The one file that knows the order: media, detection, tracking, alignment, backbone, heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from hsemotion_space.alignment import align_face
from hsemotion_space.backbones import load_backbone
from hsemotion_space.detection import FaceDetector, MtcnnDetector
from hsemotion_space.engine import EngineOptions, Runner, load, normalize
from hsemotion_space.hub.fetch import silent
from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, find_checkpoint
from hsemotion_space.hub.resolve import load_heads, resolve
from hsemotion_space.media import MediaError, open_clip, read_image, sniff
from hsemotion_space.readout import read_tracks
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.tracking import FaceTracker, without_doubles
from hsemotion_space.types import (
    THUMBNAIL_HALF,
    Analysis,
    ByteArray,
    CheckpointRef,
    FaceDetections,
    FaceTrack,
    FloatArray,
    Frame,
    MediaInfo,
)

BATCH = 32  # faces per run of the backbone, across faces and frames
PREVIEW_SIDE = 1280  # px
THUMBNAIL_SIDE = 160  # px
BRIEF_FRAMES = 3  # in clips of at least ten analyzed frames, a face seen in fewer frames is taken for a false alarm
NO_FACE = "No face was found. Try a picture with a larger, unobstructed, upright face."

Report = Callable[[int, int], None]


class Cancelled(Exception):  # noqa: N818  not an error
    """The user stopped the analysis."""


@dataclass(slots=True)
class _Draft:
    """A track that is still growing."""

    frame_index: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    boxes: list[FloatArray] = field(default_factory=list)
    detection_scores: list[float] = field(default_factory=list)
    embeddings: list[FloatArray] = field(default_factory=list)
    scores: list[FloatArray] = field(default_factory=list)
    thumbnail: ByteArray = field(default_factory=lambda: np.zeros((1, 1, 3), np.uint8))


@dataclass(frozen=True, slots=True)
class Network:
    """A loaded checkpoint: ``run`` maps normalized faces (B, 3, S, S) to embeddings (B, D) and scores (B, K)."""

    checkpoint: Checkpoint
    run: Runner


def load_network(checkpoint: Checkpoint, options: EngineOptions, cache: Path | None = None, report: Report = silent) -> Network:
    """Load verified weights into the engine.

    Args:
        checkpoint: its manifest.
        options: of the engine.
        cache: the cache folder of the settings; the usual one if left out.
        report: called with bytes done and bytes in total while the weights are downloaded.

    Raises:
        CheckpointError: if the file cannot be had, is not what the manifest says, or does not fit its architecture.
        EngineError: if the engine cannot run it.
    """
    content = resolve(checkpoint, cache or Settings().cache, report)
    try:
        state = load_tensors(content)
        module = load_backbone(checkpoint.arch, checkpoint.arch_args, checkpoint.dim, checkpoint.outputs, state)
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(f"{checkpoint.title} cannot be loaded: {error}") from error
    load_heads(checkpoint)  # complains now rather than after a long clip
    size = checkpoint.input.size
    return Network(checkpoint, load(module, np.zeros((2, 3, size, size), np.float32), options))


class _Batcher:
    """Collects faces across frames and tracks and runs them through the backbone in batches."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.drafts: dict[int, _Draft] = {}
        self._faces: list[ByteArray] = []
        self._owners: list[_Draft] = []

    def add(self, frame: Frame, faces: FaceDetections, ids: Iterable[int]) -> None:
        """Queue the faces of one frame."""
        for row, track_id in enumerate(ids):
            draft = self.drafts.setdefault(int(track_id), _Draft())
            box, score = faces.boxes_xyxy[row], float(faces.scores[row])
            face = align_face(frame.rgb, box, self.network.checkpoint.input)
            if not draft.detection_scores or score > max(draft.detection_scores):
                draft.thumbnail = _thumbnail(frame.rgb, box)
            draft.frame_index.append(frame.index)
            draft.times_s.append(frame.time_s)
            draft.boxes.append(box)
            draft.detection_scores.append(score)
            self._faces.append(face)
            self._owners.append(draft)
        if len(self._faces) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Run what is queued."""
        for start in range(0, len(self._faces), BATCH):
            spec = self.network.checkpoint.input
            batch = normalize(np.stack(self._faces[start : start + BATCH]), spec.mean, spec.std)
            embeddings, scores = self.network.run(batch)
            for owner, embedding, score in zip(self._owners[start : start + BATCH], embeddings, scores, strict=True):
                owner.embeddings.append(embedding)
                owner.scores.append(score)
        self._faces, self._owners = [], []

    def tracks(self, shortest: int) -> list[FaceTrack]:
        """Return the tracks of at least ``shortest`` frames, numbered from 1 in order of appearance."""
        self.flush()
        kept = [draft for _, draft in sorted(self.drafts.items()) if len(draft.times_s) >= shortest]
        return [
            FaceTrack(
                number,
                np.array(draft.frame_index, np.int64),
                np.array(draft.times_s, np.float64),
                np.stack(draft.boxes).astype(np.float32),
                np.array(draft.detection_scores, np.float32),
                np.stack(draft.embeddings),
                np.stack(draft.scores),
                draft.thumbnail,
            )
            for number, draft in enumerate(kept, 1)
        ]


@dataclass(slots=True)
class _Preview:
    """The frame that shows the most faces, the earliest of equals."""

    frame: Frame | None = None
    faces: int = -1

    def offer(self, frame: Frame, faces: int) -> None:
        if faces > self.faces:
            self.frame, self.faces = Frame(_shrink(frame.rgb, PREVIEW_SIDE), frame.index, frame.time_s), faces


class Pipeline:
    """Analyzes files with one checkpoint at a time; networks stay loaded between calls.

    Args:
        settings: of the deployment.
        detector: another detector than MTCNN, for tests and experiments.
    """

    def __init__(self, settings: Settings, detector: FaceDetector | None = None) -> None:
        self.settings = settings
        self.options = EngineOptions(settings.engine, settings.cache / "openvino", settings.threads)
        self.standard = ""  # id of the checkpoint that is taken when none is named
        self._networks: dict[str, Network] = {}
        self._given_detector = detector
        self._detectors: dict[tuple[int, int], FaceDetector] = {}

    @classmethod
    def from_pretrained(cls, checkpoint_id: str = "") -> Pipeline:
        """Return a pipeline that uses one checkpoint unless told otherwise, with the settings of the environment.

        Raises:
            CheckpointError: if it is unknown or its weights cannot be had.
        """
        pipeline = cls(Settings.from_env())
        pipeline.standard = pipeline.network(checkpoint_id).checkpoint.id
        return pipeline

    def network(self, checkpoint_id: str, report: Report = silent) -> Network:
        """Return a loaded checkpoint; an empty id takes the standard one.

        Args:
            checkpoint_id: from the list of checkpoints.
            report: called with bytes done and bytes in total while the weights are downloaded.

        Raises:
            CheckpointError: if it is unknown or cannot be loaded.
        """
        checkpoint = find_checkpoint(self.settings.checkpoint_roots, checkpoint_id or self.standard)
        network = self._networks.get(checkpoint.id)
        if network is None or network.checkpoint != checkpoint:  # the manifest may have changed with the same weights
            network = self._networks[checkpoint.id] = load_network(checkpoint, self.options, self.settings.cache, report)
        return network

    def detector(self, config: PipelineConfig) -> FaceDetector:
        """Return the detector for a configuration."""
        if self._given_detector is not None:
            return self._given_detector
        key = (config.detection_side, config.min_face)
        if key not in self._detectors:
            self._detectors[key] = MtcnnDetector(self.options, *key)
        return self._detectors[key]

    def analyze(self, path: Path | str, config: PipelineConfig | None = None, report: Report | None = None) -> Analysis:
        """Analyze a picture or a clip; which of the two is decided by its content.

        Args:
            path: of the file.
            config: what the user chose; the usual values if left out.
            report: called with (frames done, frames expected); raises :class:`Cancelled` to stop.

        Raises:
            MediaError: if the file cannot be used.
            CheckpointError: if the checkpoint cannot be used.
            EngineError: if the engine cannot run a network.
        """
        path, config = Path(path), config or PipelineConfig()
        kind = sniff(path)
        network, detector = self.network(config.checkpoint), self.detector(config)
        batcher, preview = _Batcher(network), _Preview()
        if kind == "image":
            info, frame = read_image(path, self.settings.limits)
            faces = without_doubles(detector.detect(frame.rgb, thorough=True))
            batcher.add(frame, faces, range(1, len(faces) + 1))
            preview.offer(frame, len(faces))
            times = [frame.time_s]
        else:
            with open_clip(path, self.settings.limits, config.sample_fps) as clip:
                times = []
                for done, (frame, faces, ids) in enumerate(follow_faces(clip, detector, config.detect_every), 1):
                    batcher.add(frame, faces, ids)
                    preview.offer(frame, len(faces))
                    times.append(frame.time_s)
                    if report is not None:
                        report(done, max(done, clip.estimated_frames))
                info = clip.info
        return _assemble(info, batcher, preview, times, config.smoothing)


def follow_faces(frames: Iterable[Frame], detector: FaceDetector, every: int) -> Iterator[tuple[Frame, FaceDetections, list[int]]]:
    """Yield every frame with its faces and their track ids.

    The whole picture is searched on every ``every``-th frame and whenever a face was lost; in between, known faces are followed.
    """
    tracker = FaceTracker()
    since = every
    for frame in frames:
        known = tracker.boxes_xyxy
        faces = FaceDetections.empty()
        if since < every:
            faces, _ = detector.follow(frame.rgb, known)
            faces = without_doubles(faces)
        if since >= every or len(faces) < len(known):
            faces = without_doubles(detector.detect(frame.rgb))
            since = 0
        since += 1
        yield frame, faces, [int(track_id) for track_id in tracker.update(faces, frame.time_s)]


def _assemble(info: MediaInfo, batcher: _Batcher, preview: _Preview, times: list[float], smoothing: float) -> Analysis:
    if preview.frame is None:
        raise MediaError("The clip has no frame that can be decoded.")
    checkpoint = batcher.network.checkpoint
    tracks = batcher.tracks(BRIEF_FRAMES if len(times) >= 10 else 1)
    notices = list(info.notices)
    brief = len(batcher.drafts) - len(tracks)
    if brief:
        many = "detections" if brief > 1 else "detection"
        notices.append(f"{brief} {many} of fewer than {BRIEF_FRAMES} frames left out, as probable false alarms.")
    if not tracks:
        notices.append(NO_FACE)
    return Analysis(
        media=info,
        checkpoint=CheckpointRef(checkpoint.id, checkpoint.title, checkpoint.sha256, checkpoint.heads_sha256),
        frame_times_s=np.array(times, np.float64),
        faces=read_tracks(tracks, checkpoint, smoothing),
        notices=tuple(notices),
        preview=preview.frame.rgb,
        preview_time_s=preview.frame.time_s,
    )


def _shrink(rgb: ByteArray, side: int) -> ByteArray:
    image = Image.fromarray(rgb)
    image.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image)


def _thumbnail(rgb: ByteArray, box: FloatArray) -> ByteArray:
    """Return the face with a little of what is around it, at most THUMBNAIL_SIDE px."""
    height, width = rgb.shape[:2]
    center, half = (box[:2] + box[2:]) / 2, float(np.max(box[2:] - box[:2])) * THUMBNAIL_HALF
    x0, y0 = (int(max(value, 0)) for value in center - half)
    x1, y1 = (int(min(value, limit)) for value, limit in zip(center + half, (width, height), strict=True))
    return _shrink(np.ascontiguousarray(rgb[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]), THUMBNAIL_SIDE)
