"""The one file that knows the order: media, detection, tracking, alignment, backbone, heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from hsemotion_space.hub.download import silent
from hsemotion_space.hub.manifest import Checkpoint, CheckpointError, InputSpec
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.hub.weights import load_heads, resolve
from hsemotion_space.inference.postprocess import read_tracks
from hsemotion_space.inference.track_builder import Draft, Outputs
from hsemotion_space.media.clips import NO_FRAME, MediaError, open_clip, read_image, read_image_bytes, sniff
from hsemotion_space.messages import Message, MessageError
from hsemotion_space.settings import PipelineConfig, Settings
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
from hsemotion_space.vision.alignment import align_face
from hsemotion_space.vision.backbones import load_backbone
from hsemotion_space.vision.cuts import mark_cuts
from hsemotion_space.vision.detection import FaceDetector, MtcnnDetector
from hsemotion_space.vision.engine import EngineError, EngineOptions, Runner, load, normalize
from hsemotion_space.vision.tracking import FaceTracker, without_doubles

BATCH = 32  # faces per run of the backbone, across faces and frames
PREVIEW_SIDE = 1280  # px
THUMBNAIL_SIDE = 160  # px
# in clips of at least ten analyzed frames, a face seen in fewer frames is taken for a false alarm
BRIEF_FRAMES = 3
LIVE = PipelineConfig(detection_side=480, min_face=40)  # how the picture of a camera is searched
LIVE_PIXELS = 2_000_000  # of such a picture
NO_FACE = Message(
    "No face was found. Try a picture with a larger, unobstructed, upright face.", code="no_face"
)
# gray level of 0 to 255 that is exceeded by a twentieth of the pixels of a picture that is not dark
DARK = 40
NO_FACE_DARK = Message(
    "No face was found: the picture is too dark. Try one with more light.", code="no_face_dark"
)

REMOTE_RUNS = 500  # of a network on a face; fewer are done sooner here than elsewhere
HELD_BYTES = 128 * 2**20  # of faces that are kept to be sent together

Report = Callable[[int, int], None]
Remote = Callable[[Mapping[str, ByteArray]], tuple[Mapping[str, tuple[FloatArray, ...]] | None, Message]]
"""Runs networks elsewhere: from faces (N, S, S, 3) to the outputs of each network, both by the id of its
checkpoint, and a notice. No outputs mean that they must be run here."""


@dataclass(frozen=True, slots=True)
class Network:
    """A loaded checkpoint: ``run`` maps faces (B, 3, S, S) to embeddings (B, D) and scores (B, K)."""

    checkpoint: Checkpoint
    run: Runner


def load_network(
    checkpoint: Checkpoint, options: EngineOptions, cache: Path | None = None, report: Report = silent
) -> Network:
    """Load verified weights into the engine.

    Args:
        checkpoint: its manifest.
        options: of the engine.
        cache: the cache folder of the settings; the usual one if left out.
        report: called with bytes done and bytes in total while the weights are downloaded.

    Raises:
        CheckpointError: if the file cannot be had, is not what the manifest says, or does not fit its
            architecture.
        EngineError: if the engine cannot run it.
    """
    try:
        content = resolve(checkpoint, cache or Settings().cache, report)
    except CheckpointError as error:
        if checkpoint.title in str(error):
            raise
        raise _not_loaded(CheckpointError, checkpoint, error) from error  # the reader may have chosen several
    try:
        state = load_tensors(content)
        module = load_backbone(
            checkpoint.arch, checkpoint.arch_args, checkpoint.dim, checkpoint.outputs, state
        )
    except (ValueError, SafetensorError) as error:
        raise _not_loaded(CheckpointError, checkpoint, error) from error
    load_heads(checkpoint)  # complains now rather than after a long clip
    size = checkpoint.input.size
    try:
        return Network(checkpoint, load(module, np.zeros((2, 3, size, size), np.float32), options))
    except EngineError as error:
        raise _not_loaded(EngineError, checkpoint, error) from error


def _not_loaded(
    kind: type[CheckpointError | EngineError], checkpoint: Checkpoint, error: Exception
) -> CheckpointError | EngineError:
    """Return an error that names the checkpoint, with the code of its cause."""
    code, reason = (error.code, error.message) if isinstance(error, MessageError) else ("", str(error))
    return kind(
        "{title} cannot be loaded: {reason}", code=code or "unloadable", title=checkpoint.title, reason=reason
    )


@dataclass(slots=True)
class _Preview:
    """The frame that shows the most faces, the earliest of equals, and whether all frames so far are dark."""

    frame: Frame | None = None
    faces: int = -1
    is_dark: bool = True

    def offer(self, frame: Frame, faces: int) -> None:
        self.is_dark = self.is_dark and bool(np.percentile(frame.rgb[::8, ::8], 95) < DARK)
        if faces > self.faces:
            self.frame, self.faces = Frame(_shrink(frame.rgb, PREVIEW_SIDE), frame.index, frame.time_s), faces


class _Batcher:
    """Collects faces across frames and tracks, runs them through the backbones in batches, keeps the preview.

    A face is aligned once for each ``InputSpec``; backbones that expect the same picture share it. With a
    ``remote``, many faces are kept and run there, until it gives no outputs.
    """

    def __init__(self, networks: Sequence[Network], remote: Remote | None = None) -> None:
        self.networks, self._remote = networks, remote
        self.notices: dict[Message, None] = {}
        self.drafts: dict[int, Draft] = {}
        self.preview = _Preview()
        self._faces: dict[InputSpec, list[ByteArray]] = {network.checkpoint.input: [] for network in networks}
        self._owners: list[Draft] = []
        self._face_bytes = sum(3 * spec.size**2 for spec in self._faces)

    def add(self, frame: Frame, faces: FaceDetections, ids: Iterable[int]) -> None:
        """Queue the faces of one frame."""
        self.preview.offer(frame, len(faces))
        for row, track_id in enumerate(ids):
            box = faces.boxes_xyxy[row]
            for spec, queued in self._faces.items():
                queued.append(align_face(frame.rgb, box, spec))
            draft = self.drafts.setdefault(int(track_id), Draft(tuple(Outputs() for _ in self.networks)))
            if draft.add(frame, faces, row):
                draft.thumbnail = _thumbnail(frame.rgb, box)
            self._owners.append(draft)
        most = HELD_BYTES // self._face_bytes if self._remote else BATCH
        if len(self._owners) >= most:
            self.flush()

    def flush(self) -> None:
        """Run what is queued."""
        if self._owners and not self._run_remotely():
            self._run_here()
        self._faces, self._owners = {spec: [] for spec in self._faces}, []

    def _run_remotely(self) -> bool:
        """Return whether the networks ran elsewhere."""
        if self._remote is None or len(self._owners) * len(self.networks) < REMOTE_RUNS:
            return False
        faces = {spec: np.stack(queued) for spec, queued in self._faces.items()}
        outputs, notice = self._remote(
            {network.checkpoint.id: faces[network.checkpoint.input] for network in self.networks}
        )
        self.notices[notice] = None
        if outputs is None:
            self._remote = None
            return False
        for place, network in enumerate(self.networks):
            self._collect(outputs[network.checkpoint.id], [owner.outputs[place] for owner in self._owners])
        return True

    def _run_here(self) -> None:
        for start in range(0, len(self._owners), BATCH):
            rows = slice(start, start + BATCH)
            for spec, queued in self._faces.items():
                batch = normalize(np.stack(queued[rows]), spec.mean, spec.std)
                for place, network in enumerate(self.networks):
                    if network.checkpoint.input == spec:
                        owners = [owner.outputs[place] for owner in self._owners[rows]]
                        self._collect(network.run(batch), owners)

    @staticmethod
    def _collect(outputs: tuple[FloatArray, ...], owners: Sequence[Outputs]) -> None:
        embeddings, scores = outputs
        for owner, embedding, score in zip(owners, embeddings, scores, strict=True):
            owner.embeddings.append(embedding)
            owner.scores.append(score)

    def tracks(self, shortest: int) -> list[tuple[FaceTrack, ...]]:
        """Return the tracks of at least ``shortest`` frames per network, numbered from 1 by appearance."""
        self.flush()
        kept = [draft for _, draft in sorted(self.drafts.items()) if len(draft) >= shortest]
        return [draft.tracks(number) for number, draft in enumerate(kept, 1)]


class Pipeline:
    """Analyzes files with one checkpoint or several; networks stay loaded between calls.

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
        """Return a pipeline that uses one checkpoint by default, with the settings of the environment.

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
        # the manifest may have changed with the same weights
        if network is None or network.checkpoint != checkpoint:
            network = self._networks[checkpoint.id] = load_network(
                checkpoint, self.options, self.settings.cache, report
            )
        return network

    def detector(self, config: PipelineConfig) -> FaceDetector:
        """Return the detector for a configuration."""
        if self._given_detector is not None:
            return self._given_detector
        key = (config.detection_side, config.min_face)
        if key not in self._detectors:
            self._detectors[key] = MtcnnDetector(self.options, *key)
        return self._detectors[key]

    def analyze(
        self, path: Path | str, config: PipelineConfig | None = None, report: Report | None = None
    ) -> Analysis:
        """Analyze a picture or a clip; which of the two is decided by its content.

        Args:
            path: of the file.
            config: what the user chose; the usual values if left out.
            report: called with (frames done, frames expected); what it raises stops the analysis.

        Raises:
            MediaError: if the file cannot be used.
            CheckpointError: if the checkpoint cannot be used.
            EngineError: if the engine cannot run a network.
        """
        config = config or PipelineConfig()
        return self.analyze_all(path, (config.checkpoint,), config, report)[0]

    def analyze_all(
        self,
        path: Path | str,
        checkpoints: Sequence[str],
        config: PipelineConfig | None = None,
        report: Report | None = None,
        remote: Remote | None = None,
    ) -> tuple[Analysis, ...]:
        """Analyze a picture or a clip with several checkpoints; it is decoded, and faces are tracked, once.

        The analyses have the same media, preview, tracks, boxes and landmarks, and each is bit for bit what
        :meth:`analyze` gives.

        Args:
            path: of the file.
            checkpoints: ids, at least one; an id that is given twice runs once.
            config: what the user chose, but for the checkpoint; the usual values if left out.
            report: called with (frames done, frames expected); what it raises stops the analysis.
            remote: runs the networks of a large file elsewhere, if it can; the numbers then differ in the
                last digits.

        Returns:
            One analysis per id, in the given order.

        Raises:
            MediaError: if the file cannot be used.
            CheckpointError: if one of the checkpoints cannot be used, naming it; then there is no analysis by
                the others either.
            EngineError: if the engine cannot run a network.
            ValueError: if no checkpoint is given.
        """
        if not checkpoints:
            raise ValueError("Expected at least one checkpoint, got none.")
        path, config = Path(path), config or PipelineConfig()
        kind = sniff(path)
        asked = [self.network(checkpoint_id) for checkpoint_id in checkpoints]
        batcher = _Batcher(tuple({network.checkpoint.id: network for network in asked}.values()), remote)
        info, times, cuts = self._gather(path, kind, batcher, config, report)
        analyses = _assemble(info, batcher, times, cuts, config.smoothing)
        return tuple(analyses[network.checkpoint.id] for network in asked)

    def look(self, picture: bytes, checkpoint_id: str) -> Analysis:
        """Analyze one camera picture: as :meth:`analyze`, but with the quick search ``LIVE`` and no file.

        Args:
            picture: an image file of at most LIVE_PIXELS; only its content counts.
            checkpoint_id: from the list of checkpoints; an empty one takes the standard one.

        Raises:
            MediaError, CheckpointError, EngineError: as :meth:`analyze`.
        """
        network = self.network(checkpoint_id)
        info, frame = read_image_bytes(picture, replace(self.settings.limits, image_pixels=LIVE_PIXELS))
        faces, batcher = without_doubles(self.detector(LIVE).detect(frame.rgb)), _Batcher((network,))
        batcher.add(frame, faces, range(1, len(faces) + 1))
        return _assemble(info, batcher, [frame.time_s], [], LIVE.smoothing)[network.checkpoint.id]

    def _gather(
        self,
        path: Path,
        kind: Literal["image", "clip"],
        batcher: _Batcher,
        config: PipelineConfig,
        report: Report | None,
    ) -> tuple[MediaInfo, list[float], list[float]]:
        """Fill the batcher with the faces of a file.

        Returns:
            What was opened, and the times in s of the analyzed frames, and of those that follow a hard cut.
        """
        detector = self.detector(config)
        if kind == "image":
            info, frame = read_image(path, self.settings.limits)
            faces = without_doubles(detector.detect(frame.rgb, thorough=True))
            batcher.add(frame, faces, range(1, len(faces) + 1))
            return info, [frame.time_s], []
        with open_clip(path, self.settings.limits, config.sample_fps) as clip:
            times, cuts = [], []
            for done, (frame, faces, ids) in enumerate(follow_faces(clip, detector, config.detect_every), 1):
                batcher.add(frame, faces, ids)
                times.append(frame.time_s)
                if frame.starts_shot:
                    cuts.append(frame.time_s)
                if report is not None:
                    report(done, max(done, clip.estimated_frames))
            return clip.info, times, cuts


def follow_faces(
    frames: Iterable[Frame], detector: FaceDetector, every: int
) -> Iterator[tuple[Frame, FaceDetections, list[int]]]:
    """Yield every frame with its faces and their track ids.

    The whole picture is searched on every ``every``-th frame, after a hard cut, which ends all tracks, and
    whenever a face was lost; in between, known faces are followed.
    """
    tracker = FaceTracker()
    since = every
    for frame in mark_cuts(frames):
        if frame.starts_shot:
            tracker.end_tracks()
            since = every
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


def _assemble(
    info: MediaInfo, batcher: _Batcher, times: list[float], cuts: list[float], smoothing: float
) -> dict[str, Analysis]:
    """Return the analysis of each network by the id of its checkpoint."""
    preview = batcher.preview.frame
    if preview is None:
        raise MediaError(NO_FRAME)
    tracks = batcher.tracks(BRIEF_FRAMES if len(times) >= 10 else 1)
    notices: list[str] = [*info.notices, *batcher.notices]
    if cuts:
        one = "The clip has 1 cut; faces get new numbers after it."
        several = "The clip has {count} cuts; faces get new numbers after each of them."
        notices.append(Message(several if len(cuts) > 1 else one, code="cuts", count=len(cuts)))
    brief = len(batcher.drafts) - len(tracks)
    if brief:
        one = "1 detection in fewer than {frames} frames was left out as a probable false alarm."
        several = "{count} detections in fewer than {frames} frames were left out as probable false alarms."
        notices.append(Message(several if brief > 1 else one, code="brief", count=brief, frames=BRIEF_FRAMES))
    if not tracks:
        notices.append(NO_FACE_DARK if batcher.preview.is_dark else NO_FACE)
    frame_times_s, analyses = np.array(times, np.float64), {}
    for place, checkpoint in enumerate(network.checkpoint for network in batcher.networks):
        analyses[checkpoint.id] = Analysis(
            media=info,
            checkpoint=CheckpointRef(
                checkpoint.id, checkpoint.title, checkpoint.sha256, checkpoint.heads_sha256
            ),
            frame_times_s=frame_times_s,
            faces=read_tracks((versions[place] for versions in tracks), checkpoint, smoothing),
            notices=tuple(notices),
            preview=preview.rgb,
            preview_time_s=preview.time_s,
            cuts_s=np.array(cuts, np.float64),
        )
    return analyses


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
