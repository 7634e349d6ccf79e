"""The one file that knows the order: media, detection, tracking, alignment, backbone, heads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Literal

import numpy as np

from hsemotion_space.hub.download import silent
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.inference.ahead import iterate_ahead
from hsemotion_space.inference.batcher import Batcher, Remote
from hsemotion_space.inference.network import Network, Report, load_network
from hsemotion_space.inference.postprocess import read_tracks
from hsemotion_space.media.clips import NO_FRAME, MediaError, open_clip, read_image, read_image_bytes, sniff
from hsemotion_space.messages import Message
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.types import Analysis, CheckpointRef, FaceDetections, Frame, MediaInfo
from hsemotion_space.vision.cuts import mark_cuts
from hsemotion_space.vision.detection import FaceDetector, MtcnnDetector
from hsemotion_space.vision.engine import EngineOptions
from hsemotion_space.vision.tracking import FaceTracker, without_doubles

FRAMES_AHEAD = 4  # decoded frames that may wait
# in clips of at least ten analyzed frames, a face seen in fewer frames is taken for a false alarm
BRIEF_FRAMES = 3
LIVE = PipelineConfig(detection_side=480, min_face=40)  # how the picture of a camera is searched
LIVE_PIXELS = 2_000_000  # of such a picture
NO_FACE = Message(
    "No face was found. Try a picture with a larger, unobstructed, upright face.", code="no_face"
)
NO_FACE_DARK = Message(
    "No face was found: the picture is too dark. Try one with more light.", code="no_face_dark"
)


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
        kind = sniff(path, self.settings.limits)
        asked = [self.network(checkpoint_id) for checkpoint_id in checkpoints]
        networks = tuple({network.checkpoint.id: network for network in asked}.values())
        with closing(Batcher(networks, remote)) as batcher:
            info, times, cuts = self._gather(path, kind, batcher, config, report)
            analyses = _assemble(info, batcher, times, cuts, config.smoothing)
        return tuple(analyses[network.checkpoint.id] for network in asked)

    def analyze_frame(self, picture: bytes, checkpoint_id: str) -> Analysis:
        """Analyze one camera picture: as :meth:`analyze`, but with the quick search ``LIVE`` and no file.

        Args:
            picture: an image file of at most LIVE_PIXELS; only its content counts.
            checkpoint_id: from the list of checkpoints; an empty one takes the standard one.

        Raises:
            MediaError, CheckpointError, EngineError: as :meth:`analyze`.
        """
        network = self.network(checkpoint_id)
        info, frame = read_image_bytes(picture, replace(self.settings.limits, image_pixels=LIVE_PIXELS))
        faces = without_doubles(self.detector(LIVE).detect(frame.rgb))
        with closing(Batcher((network,))) as batcher:
            batcher.add(frame, faces, range(1, len(faces) + 1))
            return _assemble(info, batcher, [frame.time_s], [], LIVE.smoothing)[network.checkpoint.id]

    def _gather(
        self,
        path: Path,
        kind: Literal["image", "clip"],
        batcher: Batcher,
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
        with (
            open_clip(path, self.settings.limits, config.sample_fps) as clip,
            closing(iterate_ahead(_within(clip, config.start_s, config.end_s), FRAMES_AHEAD)) as frames,
        ):
            times, cuts = [], []
            for done, (frame, faces, ids) in enumerate(
                follow_faces(frames, detector, config.detect_every), 1
            ):
                batcher.add(frame, faces, ids)
                times.append(frame.time_s)
                if frame.starts_shot:
                    cuts.append(frame.time_s)
                if report is not None:
                    report(done, max(done, clip.estimated_frames))
            if not times and config.start_s:
                text = "The clip ends before {start:g} s."
                raise MediaError(text, code="ends_before_range", start=config.start_s)
            return clip.info, times, cuts


def _within(frames: Iterable[Frame], start_s: float, end_s: float) -> Iterator[Frame]:
    """Yield the frames from ``start_s`` up to ``end_s``; what lies before must be decoded all the same."""
    return takewhile(
        lambda frame: frame.time_s < end_s, dropwhile(lambda frame: frame.time_s < start_s, frames)
    )


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
    info: MediaInfo, batcher: Batcher, times: list[float], cuts: list[float], smoothing: float
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
                checkpoint.id,
                checkpoint.title,
                checkpoint.sha256,
                checkpoint.heads_sha256,
                checkpoint.license,
            ),
            frame_times_s=frame_times_s,
            faces=read_tracks((versions[place] for versions in tracks), checkpoint, smoothing),
            notices=tuple(notices),
            preview=preview.rgb,
            preview_time_s=preview.time_s,
            cuts_s=np.array(cuts, np.float64),
        )
    return analyses
