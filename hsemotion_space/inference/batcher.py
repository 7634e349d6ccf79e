"""Faces of many frames on their way through the networks, in batches, and the preview picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hsemotion_space.hub.manifest import InputSpec
from hsemotion_space.inference.network import Network
from hsemotion_space.inference.track_builder import Draft, Outputs
from hsemotion_space.messages import Message
from hsemotion_space.types import THUMBNAIL_HALF, ByteArray, FaceDetections, FaceTrack, FloatArray, Frame
from hsemotion_space.vision.alignment import align_face
from hsemotion_space.vision.engine import normalize

BATCH = 32  # faces per run of the backbone, across faces and frames
PREVIEW_SIDE = 1280  # px
THUMBNAIL_SIDE = 160  # px
# gray level of 0 to 255 that is exceeded by a twentieth of the pixels of a picture that is not dark
DARK = 40
REMOTE_RUNS = 500  # of a network on a face; fewer are done sooner here than elsewhere
HELD_BYTES = 128 * 2**20  # of faces that are kept to be sent together

Remote = Callable[[Mapping[str, ByteArray]], tuple[Mapping[str, tuple[FloatArray, ...]] | None, Message]]
"""Runs networks elsewhere: from faces (N, S, S, 3) to the outputs of each network, both by the id of its
checkpoint, and a notice. No outputs mean that they must be run here."""


@dataclass(slots=True)
class Preview:
    """The frame that shows the most faces, the earliest of equals, and whether all frames so far are dark."""

    frame: Frame | None = None
    faces: int = -1
    is_dark: bool = True

    def offer(self, frame: Frame, faces: int) -> None:
        """Take a frame if it shows more faces than those before."""
        self.is_dark = self.is_dark and bool(np.percentile(frame.rgb[::8, ::8], 95) < DARK)
        if faces > self.faces:
            self.frame, self.faces = Frame(_shrink(frame.rgb, PREVIEW_SIDE), frame.index, frame.time_s), faces


class Batcher:
    """Collects faces across frames and tracks, runs them through the backbones in batches, keeps the preview.

    A face is aligned once for each ``InputSpec``; backbones that expect the same picture share it. A thread
    runs one batch while the next one is collected; close the batcher after use. With a ``remote``, many faces
    are kept and run there, until it gives no outputs.
    """

    def __init__(self, networks: Sequence[Network], remote: Remote | None = None) -> None:
        self.networks, self._remote = networks, remote
        self.notices: dict[Message, None] = {}
        self.drafts: dict[int, Draft] = {}
        self.preview = Preview()
        self._faces: dict[InputSpec, list[ByteArray]] = {network.checkpoint.input: [] for network in networks}
        self._face_bytes = sum(3 * spec.size**2 for spec in self._faces)
        self._owners: list[Draft] = []
        self._thread = ThreadPoolExecutor(1, "backbone")
        self._running: Future[None] | None = None

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def add(self, frame: Frame, faces: FaceDetections, ids: Iterable[int]) -> None:
        """Queue the faces of one frame."""
        self.preview.offer(frame, len(faces))
        for row, track_id in enumerate(ids):
            box = faces.boxes_xyxy[row]
            for spec, queued in self._faces.items():
                queued.append(align_face(frame.rgb, box, spec))
            draft = self.drafts.setdefault(int(track_id), Draft(tuple(Outputs() for _ in self.networks)))
            if draft.add(frame, faces, row):
                draft.thumbnail = thumbnail(frame.rgb, box)
            self._owners.append(draft)
        if self._remote is None:
            while len(self._owners) >= BATCH:
                self._submit()
        elif len(self._owners) >= HELD_BYTES // self._face_bytes:
            self._flush()

    def tracks(self, shortest: int) -> list[tuple[FaceTrack, ...]]:
        """Return the tracks of at least ``shortest`` frames per network, numbered from 1 by appearance."""
        self._flush()
        self._wait()
        kept = [draft for _, draft in sorted(self.drafts.items()) if len(draft) >= shortest]
        return [draft.tracks(number) for number, draft in enumerate(kept, 1)]

    def _flush(self) -> None:
        """Run what is queued, elsewhere if that pays."""
        if self._remote is not None and len(self._owners) * len(self.networks) >= REMOTE_RUNS:
            self._wait()
            faces = {spec: np.stack(queued) for spec, queued in self._faces.items()}
            outputs, notice = self._remote(
                {network.checkpoint.id: faces[network.checkpoint.input] for network in self.networks}
            )
            self.notices[notice] = None
            if outputs is None:
                self._remote = None
            else:
                for place, network in enumerate(self.networks):
                    _collect(outputs[network.checkpoint.id], self._owners, place)
                self._faces, self._owners = {spec: [] for spec in self._faces}, []
        while self._owners:
            self._submit()

    def _submit(self) -> None:
        """Hand the next batch to the thread once the one before is done, and raise what that one raised."""
        faces, owners = {spec: queued[:BATCH] for spec, queued in self._faces.items()}, self._owners[:BATCH]
        self._faces = {spec: queued[BATCH:] for spec, queued in self._faces.items()}
        self._owners = self._owners[BATCH:]
        self._wait()
        self._running = self._thread.submit(self._run, faces, owners)

    def _wait(self) -> None:
        if self._running is not None:
            self._running.result()

    def _run(self, faces: Mapping[InputSpec, Sequence[ByteArray]], owners: Sequence[Draft]) -> None:
        for spec, queued in faces.items():
            batch = normalize(np.stack(queued), spec.mean, spec.std)
            for place, network in enumerate(self.networks):
                if network.checkpoint.input == spec:
                    _collect(network.run(batch), owners, place)


def _collect(outputs: tuple[FloatArray, ...], owners: Sequence[Draft], place: int) -> None:
    embeddings, scores = outputs
    for owner, embedding, score in zip(owners, embeddings, scores, strict=True):
        owner.outputs[place].embeddings.append(embedding)
        owner.outputs[place].scores.append(score)


def _shrink(rgb: ByteArray, side: int) -> ByteArray:
    image = Image.fromarray(rgb)
    image.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image)


def thumbnail(rgb: ByteArray, box: FloatArray) -> ByteArray:
    """Return the face with a little of what is around it, at most THUMBNAIL_SIDE px."""
    height, width = rgb.shape[:2]
    center, half = (box[:2] + box[2:]) / 2, float(np.max(box[2:] - box[:2])) * THUMBNAIL_HALF
    x0, y0 = (int(max(value, 0)) for value in center - half)
    x1, y1 = (int(min(value, limit)) for value, limit in zip(center + half, (width, height), strict=True))
    return _shrink(np.ascontiguousarray(rgb[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]), THUMBNAIL_SIDE)
