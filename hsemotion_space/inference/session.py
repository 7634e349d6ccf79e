"""Session files: the tracks of an analysis with what was chosen and changed, to be opened again.

A file is a safetensors file: arrays of plain numbers, and JSON in its metadata. It names the media by digest
and holds no picture but the thumbnails of the faces. Everything in it is checked, as anybody can write one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hsemotion_space.edits import EditError, Edits, read_edits
from hsemotion_space.hub.manifest import Checkpoint, CheckpointError
from hsemotion_space.inference.postprocess import reread
from hsemotion_space.messages import MessageError
from hsemotion_space.settings import PipelineConfig, SettingsError
from hsemotion_space.types import Analysis, CheckpointRef, FaceResult, FaceTrack, MediaInfo

SUFFIX: Final = ".hsemotion"
VERSION: Final = 1
MOST_BYTES: Final = 48 * 2**20
HEADER_BYTES: Final = 2**20
MOST_ANALYSES: Final = 6
MOST_VALUES: Final = 60_000  # faces times frames
THUMBNAIL_SIDE: Final = 512
LONGEST_TEXT: Final = 1000
_METADATA: Final = "hsemotion-session"
_DTYPES: Final[dict[str, str]] = {
    "times_s": "float64", "frame_index": "int64", "boxes_xyxy": "float32", "detection_scores": "float32",
    "embeddings": "float32", "scores": "float32", "thumbnail": "uint8", "landmarks": "float32",
    "frame_times_s": "float64", "cuts_s": "float64",
}  # fmt: skip
Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


class SessionError(MessageError, ValueError):
    """A session file cannot be opened."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a session file holds.

    Attributes:
        config: that the analyses were made with; its smoothing is the one that was shown.
        edits: changes made by hand.
        analyses: one per checkpoint, without these changes; those of a file have tracks alone.
    """

    config: PipelineConfig
    edits: Edits
    analyses: tuple[Analysis, ...]


def write_session(session: Session, path: Path) -> Path:
    """Write a session file and return its path.

    Raises:
        SessionError: if it would be too large to be opened again.
    """
    arrays: dict[str, Array] = {}
    described = []
    for place, analysis in enumerate(session.analyses):
        arrays |= {f"{place}.{name}": getattr(analysis, name) for name in ("frame_times_s", "cuts_s")}
        for face in analysis.faces:
            track = face.track
            names = [item.name for item in fields(FaceTrack) if item.name != "track_id"]
            arrays |= {f"{place}.{track.track_id}.{name}": getattr(track, name) for name in names}
        described.append({
            "media": asdict(analysis.media), "checkpoint": asdict(analysis.checkpoint),
            "notices": [str(notice) for notice in analysis.notices],
            "tracks": [face.track.track_id for face in analysis.faces],
        })  # fmt: skip
    text = json.dumps({
        "version": VERSION, "config": asdict(session.config),
        "edits": session.edits.to_json(), "analyses": described,
    })  # fmt: skip
    whole = {
        name: np.ascontiguousarray(array, _DTYPES[name.rsplit(".", 1)[-1]]) for name, array in arrays.items()
    }
    if sum(array.nbytes for array in whole.values()) > MOST_BYTES - HEADER_BYTES:
        text = "This result is too large for a session file of at most {limit} MB. Analyze fewer frames."
        raise SessionError(text, code="session_size", limit=MOST_BYTES // 2**20)
    save_file(whole, path, {_METADATA: text})
    return path


def is_session(path: Path) -> bool:
    """Return whether a file begins as a session file does; no picture or clip does."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError:
        return False
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= HEADER_BYTES


def read_session(path: Path) -> Session:
    """Return what a session file holds.

    Raises:
        SessionError: if it is none, too large, or not as :func:`write_session` writes it.
    """
    if not is_session(path) or path.stat().st_size > MOST_BYTES:
        text = "This is not a session file of at most {limit} MB."
        raise SessionError(text, code="no_session", limit=MOST_BYTES // 2**20)
    try:
        with safe_open(path, framework="numpy") as file:
            described = json.loads(file.metadata()[_METADATA])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
        if described["version"] != VERSION:
            text = "The session file has version {version}; this page opens version {ours}."
            raise SessionError(
                text, code="session_version", version=str(described["version"])[:9], ours=VERSION
            )
        config, edits = PipelineConfig(**described["config"]), read_edits(described["edits"])
        every = [_analysis(arrays, place, entry) for place, entry in enumerate(_few(described["analyses"]))]
        _require(len({one.media for one in every}) == 1 and isinstance(config.checkpoint, str))
        _require(len({one.checkpoint.id for one in every}) == len(every))
        _require(len({_times_of(one) for one in every}) == 1)
        return Session(config, edits, tuple(every))
    except (*_DAMAGED, EditError, SettingsError) as error:
        if isinstance(error, SessionError):
            raise
        raise SessionError(DAMAGED, code="damaged") from error


DAMAGED: Final = "The session file is damaged or was changed by another program."
_DAMAGED: Final = (
    SafetensorError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError,
)  # fmt: skip


def restore(session: Session, checkpoints: Sequence[Checkpoint]) -> Session:
    """Return a session from a file with timelines and predictions, marked as imported.

    Args:
        session: with tracks alone.
        checkpoints: that made its analyses, in their order.

    Raises:
        CheckpointError: if a checkpoint has other weights now.
        SessionError: if the arrays do not fit the heads of a checkpoint, or the changes the tracks.
    """
    pairs = list(zip(session.analyses, checkpoints, strict=True))
    smoothing = session.config.smoothing
    try:
        for one, checkpoint in pairs:
            reread(one, checkpoint, smoothing, session.edits)  # they fit
        made = [
            replace(reread(one, checkpoint, smoothing), checkpoint=_reference(checkpoint), imported=True)
            for one, checkpoint in pairs
        ]
    except CheckpointError:
        raise
    except (ValueError, IndexError) as error:
        raise SessionError(DAMAGED, code="damaged") from error
    return replace(session, analyses=tuple(made))


def _reference(checkpoint: Checkpoint) -> CheckpointRef:
    digests = checkpoint.sha256, checkpoint.heads_sha256
    return CheckpointRef(checkpoint.id, checkpoint.title, *digests, checkpoint.license)


def _times_of(analysis: Analysis) -> tuple[object, ...]:
    """Return what all analyses of a session have in common: the frames, and the faces in each of them."""
    tracks = [(face.track.track_id, face.track.times_s.tobytes()) for face in analysis.faces]
    return analysis.frame_times_s.tobytes(), *tracks


def _analysis(arrays: Arrays, place: int, entry: Mapping[str, Any]) -> Analysis:
    media, reference = entry["media"], entry["checkpoint"]
    numbers, notices = entry["tracks"], entry["notices"]
    _require(isinstance(media, dict) and isinstance(reference, dict))
    _require(isinstance(numbers, list) and isinstance(notices, list) and len(notices) <= 20)
    times_s = _array(arrays, f"{place}.frame_times_s")
    _require(
        numbers == sorted(set(numbers))
        and all(type(number) is int and 0 < number < 2**31 for number in numbers)
    )
    _require(times_s.ndim == 1 and len(times_s) * max(len(numbers), 1) <= MOST_VALUES)
    _require(bool((np.diff(times_s) > 0).all()) and 0 <= times_s[0] <= times_s[-1] <= 1e6)
    tracks = [_track(arrays, f"{place}.{number}", number, times_s) for number in numbers]
    cuts_s = _array(arrays, f"{place}.cuts_s")
    _require(cuts_s.ndim == 1 and bool(np.isin(cuts_s, times_s).all()))
    return Analysis(
        _media(media), CheckpointRef(**{name: _text(value) for name, value in reference.items()}), times_s,
        tuple(FaceResult(track, (), ()) for track in tracks), tuple(map(_text, notices)), cuts_s=cuts_s,
    )  # fmt: skip


def _track(arrays: Arrays, place: str, number: int, frame_times_s: Array) -> FaceTrack:
    names = [item.name for item in fields(FaceTrack) if item.name != "track_id"]
    track = FaceTrack(number, **{name: _array(arrays, f"{place}.{name}") for name in names})
    _require(bool(np.isin(track.times_s, frame_times_s).all()))
    _require(max(track.thumbnail.shape) <= THUMBNAIL_SIDE and min(track.thumbnail.shape) >= 1)
    return track


def _media(value: dict[str, Any]) -> MediaInfo:
    media = MediaInfo(**value | {"notices": tuple(map(_text, _few(value["notices"])))})
    _require(re.fullmatch("[0-9a-f]{64}", media.sha256) is not None and media.kind in ("image", "clip"))
    _require(all(type(side) is int and 0 < side <= 32768 for side in (media.width, media.height)))
    _require(type(media.duration_s) in (int, float) and 0 <= media.duration_s <= 1e6)
    return media


def _array(arrays: Arrays, name: str) -> Array:
    """Return an array of the type that it must have; only landmarks may hold NaN."""
    array, field = arrays[name], name.rsplit(".", 1)[-1]
    _require(array.dtype == _DTYPES[field] and (field == "landmarks" or bool(np.isfinite(array).all())))
    return array


def _few(value: object) -> list[Any]:
    """Return a list of at most so many things."""
    if not isinstance(value, list) or len(value) > MOST_ANALYSES:
        raise ValueError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise ValueError
    return value


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError
