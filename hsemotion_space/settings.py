"""What the operator of a deployment chooses (environment) and what a user chooses (PipelineConfig)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final, Literal

from hsemotion_space.messages import MessageError

ENV_PREFIX = "HSEMOTION_"
# set by Hugging Face Spaces, followed where ours are not set
SPACE_NAMES = {
    "host": "GRADIO_SERVER_NAME",
    "port": "GRADIO_SERVER_PORT",
    "oauth_secret": "OAUTH_CLIENT_SECRET",
}


class SettingsError(MessageError, ValueError):
    """An environment variable or an option has a value that cannot be used."""


def _out_of_range(name: str, low: float, high: float, value: object) -> SettingsError:
    text = "{name} must be a number from {low} to {high}, got {value}."
    return SettingsError(text, code="out_of_range", name=name, low=low, high=high, value=repr(value))


def _unknown_choice(name: str, allowed: str, value: object) -> SettingsError:
    text = "{name} must be {allowed}, got {value}."
    return SettingsError(
        text, code="unknown_choice", name=ENV_PREFIX + name.upper(), allowed=allowed, value=repr(value)
    )


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Caps on untrusted media; beyond them images are refused, clips refused or cut, always with a notice.

    Attributes:
        jpeg_pixels: of a JPEG, which is scaled while it is decoded and so takes little memory.
        own_files: also read formats and codecs that the page refuses, such as TIFF and ProRes.
    """

    image_bytes: int = 25 * 2**20
    image_pixels: int = 25_000_000
    jpeg_pixels: int = 25_000_000
    image_side: int = 10_000
    image_output_side: int = 1920
    clip_bytes: int = 100 * 2**20
    clip_pixels: int = 4096 * 2304
    clip_duration_s: float = 60.0
    clip_frames: int = 600  # sampled frames
    clip_packets: int = 20_000
    decode_deadline_s: float = 120.0
    own_files: bool = False

    def for_own_files(self) -> MediaLimits:
        """Return limits for a person's own files on a person's own machine: what would exhaust the memory."""
        return replace(
            self,
            image_bytes=2**30,
            image_pixels=150_000_000,
            jpeg_pixels=400_000_000,
            image_side=65_535,
            clip_bytes=2**40,
            clip_pixels=8192 * 4608,
            clip_duration_s=24 * 3600.0,
            clip_frames=10**7,
            clip_packets=10**8,
            decode_deadline_s=24 * 3600.0,
            own_files=True,
        )


CHALLENGE_SMOOTHING: Final = 1.0
"""Factor that gives each task the window of the 6th ABAW challenge: ±1.67 s for expression."""


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """What a user chooses for one analysis.

    Attributes:
        checkpoint: id of a folder under ``checkpoints/``; empty for the first bundled one.
        sample_fps: frames analyzed per second of a clip; 0 takes every frame.
        smoothing: factor on the window of each task in the challenge (``CHALLENGE_SMOOTHING`` keeps it), 0
            (none) to 3. The default keeps events of half a second: its window is ±0.25 s for expression.
        detect_every: the full detector runs on every so-manieth analyzed frame, tracking fills in between.
        detection_side: longer side in px of the picture the detector sees.
        min_face: side in px of the smallest face searched for, in that picture.
        start_s, end_s: presentation times of a clip between which frames are analyzed, without ``end_s``.
    """

    checkpoint: str = ""
    sample_fps: float = 10.0
    smoothing: float = 0.15
    detect_every: int = 5
    detection_side: int = 640
    min_face: int = 20
    start_s: float = 0.0
    end_s: float = math.inf

    def __post_init__(self) -> None:
        for name, low, high in (
            ("sample_fps", 0, 60), ("smoothing", 0, 3), ("detect_every", 1, 30),
            ("detection_side", 160, 1920), ("min_face", 12, 400)
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise _out_of_range(name, low, high, value)
        if not 0 <= self.start_s < self.end_s:
            raise _out_of_range("start_s", 0, self.end_s, self.start_s)


def _home() -> Path:
    """Return the user's home; without one, the root of the file system, as container runtimes do."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "hsemotion-space"


def _default_data() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or _home() / ".local/share") / "hsemotion-space"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator chooses, each by an environment variable ``HSEMOTION_<NAME>``.

    Attributes:
        checkpoints: folder of the checkpoint folders.
        cache: folder for converted networks, published files and imported checkpoints.
        engine: ``openvino`` or ``torch``; ``auto`` takes torch on a GPU and OpenVINO on a CPU.
        threads: of the engine; 0 leaves the choice to it.
        workers: processes that analyze: 2, one of which is for clips alone, or 1 for everything, which takes
            half the memory.
        host, port: where the page is served.
        hosts: names under which visitors reach a page on this machine alone or behind a proxy, separated by
            commas; if empty, a page on all addresses answers to any name.
        upload_mb_per_client, upload_mb: what one network, and all together, may upload within the time that
            files are kept.
        free_mb: what uploads leave free on the disk.
        job_time_limit_s: an analysis that takes longer is stopped.
        results_ttl_s: how long a finished analysis and its files are kept.
        feedback: whether corrections are taken.
        feedback_data: folder for the feedback database and the key of this server.
        feedback_database: SQLAlchemy URL; a SQLite file in ``feedback_data`` if empty.
        feedback_repo: dataset repository of the Hub that consented feedback is published to; nothing is
            published if empty.
        feedback_secret: text that the server's keys are made from; a random one, kept in ``feedback_data``,
            if empty.
        review_token: what a reviewer must know; nobody can review with a token if empty.
        reviewers: user names of the Hub, separated by commas, whose owners can review after they sign in;
            works in a Space alone.
        oauth_secret: with which a Space signs who has signed in; ``OAUTH_CLIENT_SECRET``, which the platform
            sets.
        metrics_token: what a monitor must know to read ``/metrics``, which does not exist if empty.
    """

    checkpoints: Path = Path(__file__).resolve().parent.parent / "checkpoints"
    cache: Path = field(default_factory=_default_cache)
    engine: Literal["auto", "openvino", "torch"] = "auto"
    threads: int = 0
    workers: int = 2
    host: str = "127.0.0.1"
    port: int = 7860
    hosts: str = ""
    upload_mb_per_client: int = 500
    upload_mb: int = 4000
    free_mb: int = 500
    job_time_limit_s: float = 180.0
    results_ttl_s: float = 900.0
    feedback: Literal["on", "off"] = "on"
    feedback_data: Path = field(default_factory=_default_data)
    feedback_database: str = field(default="", repr=False)  # it may hold a password
    feedback_repo: str = ""
    feedback_secret: str = field(default="", repr=False)
    review_token: str = field(default="", repr=False)
    metrics_token: str = field(default="", repr=False)
    reviewers: str = ""
    oauth_secret: str = field(default="", repr=False)
    limits: MediaLimits = field(default_factory=MediaLimits)

    def __post_init__(self) -> None:
        if self.engine not in ("auto", "openvino", "torch"):
            raise _unknown_choice("engine", "auto, openvino or torch", self.engine)
        if self.feedback not in ("on", "off"):
            raise _unknown_choice("feedback", "on or off", self.feedback)
        if self.feedback_repo and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.feedback_repo):
            raise _unknown_choice("feedback_repo", "owner/name", self.feedback_repo)
        for name, low, high in (
            ("threads", 0, 1024),
            ("workers", 1, 2),
            ("port", 0, 65535),
            ("upload_mb_per_client", 1, 10**6),
            ("upload_mb", 1, 10**6),
            ("free_mb", 0, 10**6),
            ("job_time_limit_s", 0, 86400),
            ("results_ttl_s", 0, 86400),
        ):
            if not low <= getattr(self, name) <= high:
                raise _out_of_range(ENV_PREFIX + name.upper(), low, high, getattr(self, name))

    @property
    def checkpoint_roots(self) -> tuple[Path, ...]:
        """Folders of checkpoint folders: the project's, then what was imported on this machine."""
        return self.checkpoints, self.cache / "checkpoints"

    @property
    def reviewer_names(self) -> frozenset[str]:
        """Return the user names of the reviewers."""
        return frozenset(filter(None, (name.strip() for name in self.reviewers.split(","))))

    @classmethod
    def secret_variables(cls) -> tuple[str, ...]:
        """Return the names of the environment variables of secrets: of what ``repr`` leaves out."""
        return tuple(ENV_PREFIX + item.name.upper() for item in fields(cls) if not item.repr)

    def without_secrets(self) -> Settings:
        """Return what a process may know that reads files of strangers: the same, with every secret empty."""
        return replace(self, **{item.name: "" for item in fields(self) if not item.repr})  # type: ignore[arg-type]

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings; host and port also follow the variables that a Space sets for Gradio.

        Raises:
            SettingsError: naming the variable whose value cannot be used.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, object] = {}
        for item in fields(cls):
            text = environ.get(ENV_PREFIX + item.name.upper(), environ.get(SPACE_NAMES.get(item.name, "")))
            if text is None or item.name == "limits":
                continue
            convert = {"Path": Path, "int": int, "float": float}.get(str(item.type), str)
            try:
                values[item.name] = convert(text)
            except ValueError as error:
                raise _unknown_choice(item.name, str(item.type), text) from error
        return cls(**values)  # type: ignore[arg-type]
