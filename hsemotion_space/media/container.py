"""Containers of clips, opened with everything switched off that a hostile file could use."""

from __future__ import annotations

from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from hsemotion_space.media.formats import CLIP_FORMATS, OWN_CLIP_FORMATS, MediaError, identify
from hsemotion_space.settings import MediaLimits

CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "libdav1d", "libvpx", "libvpx-vp9")
_OWN_CODECS = (
    "mpeg1video", "mpeg2video", "wmv1", "wmv2", "wmv3", "vc1", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "flv",
    "vp6", "vp6f", "h263", "theora", "prores", "dnxhd", "dvvideo", "cfhd", "ffv1", "huffyuv", "ffvhuff",
    "utvideo", "magicyuv", "rawvideo", "v210", "qtrle", "png", "jpeg2000", "cinepak", "svq1", "svq3", "vvc",
)  # fmt: skip
SOUND_CODECS = (
    "aac", "mp3", "mp3float", "mp2", "mp2float", "ac3", "eac3", "opus", "libopus", "vorbis", "flac", "alac",
    "wmav1", "wmav2", "amrnb", "amrwb", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le",
    "pcm_f32le", "pcm_u8", "pcm_mulaw", "pcm_alaw", "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt",
)  # fmt: skip


def open_container(path: Path, limits: MediaLimits, extra_codecs: tuple[str, ...] = ()) -> InputContainer:
    """Open a clip whose format its content tells; nothing is decoded beyond what finding its streams takes.

    Args:
        path: the file; only its content counts.
        limits: size in bytes and px, and whether formats and codecs beyond those of the page are allowed.
        extra_codecs: that may be opened besides those of the pictures.

    Raises:
        MediaError: if the file is no supported clip or too large.
        Exception: of libav, if it is damaged.
    """
    name = identify(path, limits, limits.clip_bytes)
    if name not in OWN_CLIP_FORMATS:
        raise MediaError("This file is an image, not a clip.", code="is_image")
    formats = OWN_CLIP_FORMATS if limits.own_files else CLIP_FORMATS
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join((*formats, "mp4,m4a,3gp,3g2,mj2,webm")),
        "codec_whitelist": ",".join((*allowed_codecs(limits), *extra_codecs)),
        "max_pixels": str(limits.clip_pixels),
        "max_streams": "64",
        "probesize": "5000000",
        "analyzeduration": "5000000",
    }
    if name == "mov":
        options["enable_drefs"] = "0"
    return av.open(
        str(path.resolve()),
        format=name,
        options=options,
        metadata_errors="replace",
        timeout=limits.decode_deadline_s,
    )


def allowed_codecs(limits: MediaLimits) -> tuple[str, ...]:
    """Return the decoders of pictures that may run."""
    return (*CODECS, *_OWN_CODECS) if limits.own_files else CODECS


def video_stream(container: InputContainer, limits: MediaLimits) -> VideoStream:
    """Return the first stream of moving pictures.

    Raises:
        MediaError: if there is none, or its codec is not allowed.
    """
    for stream in container.streams.video:
        if stream.disposition & (stream.disposition.attached_pic | stream.disposition.timed_thumbnails):
            continue
        if stream.codec_context is None or stream.codec_context.name not in allowed_codecs(limits):
            text = (
                "The video codec of the clip is not supported. Convert the clip to MP4 with H.264 and try"
                " again."
            )
            raise MediaError(text, code="unsupported_codec")
        return stream
    raise MediaError("The file contains no video.", code="no_video")
