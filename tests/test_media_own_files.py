"""What only a person's own files may be: more formats and codecs, and larger pictures."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from clip_makers import LIMITS, decode, times
from error_codes import codes, raises_code
from media_makers import (
    UPRIGHT,
    encoded,
    exif_with,
    mutated,
    number_of,
    numbered,
    png_bit_bomb,
    quadrants,
    write_clip,
)
from PIL import Image

from hsemotion_space.media.clips import MediaError, read_image, sniff
from hsemotion_space.media.container import SOUND_CODECS, allowed_codecs

OWN = LIMITS.for_own_files()
PICTURE = Image.fromarray(quadrants())
GRAY = np.array([[0, 0x10], [0x80, 0xFF]], np.uint16)


def pfm(*levels: float) -> bytes:
    return b"Pf\n2 2\n-1.0\n" + np.array(levels, "<f4").tobytes()


IMAGES: dict[str, Callable[[], bytes]] = {
    "tiff": lambda: encoded(PICTURE, "TIFF"),
    "tiff-lzw": lambda: encoded(PICTURE, "TIFF", compression="tiff_lzw"),
    "tiff-jpeg": lambda: encoded(PICTURE, "TIFF", compression="jpeg", quality=100),
    "tiff-pages": lambda: encoded(PICTURE, "TIFF", save_all=True, append_images=[PICTURE.rotate(90)]),
    "tiff-turned": lambda: encoded(PICTURE.transpose(Image.Transpose.ROTATE_90), "TIFF", exif=exif_with(6)),
    "ppm": lambda: encoded(PICTURE, "PPM"),
    "ppm-plain": lambda: b"P3 64 48 255\n" + " ".join(map(str, quadrants().ravel())).encode(),
    "jpeg2000": lambda: encoded(PICTURE, "JPEG2000"),
}
GRAYS: dict[str, Callable[[], bytes]] = {
    "tiff-12-of-16": lambda: encoded(Image.fromarray(GRAY * 16), "TIFF"),
    "tiff-32": lambda: encoded(Image.fromarray(GRAY.astype(np.int32) * 2**16), "TIFF"),
    "tiff-float": lambda: encoded(Image.fromarray((GRAY / 255).astype(np.float32)), "TIFF"),
    "tiff-float-of-255": lambda: encoded(Image.fromarray(GRAY.astype(np.float32)), "TIFF"),
    "pgm-16": lambda: b"P5 2 2 65535\n" + (GRAY * 257).astype(">u2").tobytes(),
    "pfm": lambda: pfm(0x80 / 255, 1.0, float("nan"), 0x10 / 255),  # from the lowest row up
}


@pytest.mark.parametrize("name", IMAGES)
def test_reads_more_pictures(name: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(IMAGES[name]())
    with raises_code(MediaError, "unsupported"):
        read_image(path, LIMITS)
    info, frame = read_image(path, OWN)
    assert sniff(path, OWN) == info.kind == "image" and (info.width, info.height) == (64, 48)
    np.testing.assert_allclose(frame.rgb[[0, 0, -1, -1], [0, -1, 0, -1]], UPRIGHT, atol=3)
    assert codes(info.notices) == (["animated"] if name == "tiff-pages" else [])


@pytest.mark.parametrize("name", GRAYS)
def test_scales_gray_levels_by_the_values_that_occur(name: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(GRAYS[name]())
    np.testing.assert_allclose(read_image(path, OWN)[1].rgb[..., 0], GRAY, atol=1)


CLIPS: dict[str, dict[str, object]] = {
    "mpegts-h264": {"kind": "mpegts", "audio": "aac"},
    "mpegts-hevc": {"kind": "mpegts", "codec": "libx265"},
    "m2ts": {"kind": "mpegts", "muxer": {"mpegts_m2ts_mode": "1"}},
    "mpegts-mpeg2": {"kind": "mpegts", "codec": "mpeg2video", "rate": 25},
    "mpeg-ps-mpeg1": {"kind": "mpeg", "codec": "mpeg1video", "rate": 25},
    "mpeg-ps-mpeg2": {"kind": "vob", "codec": "mpeg2video", "audio": "mp2", "rate": 25},
    "wmv": {"kind": "asf", "codec": "wmv2"},
    "wmv-msmpeg4": {"kind": "asf", "codec": "msmpeg4"},
    "flv": {"kind": "flv", "codec": "flv1"},
    "flv-h264": {"kind": "flv", "audio": "aac"},
    "mxf-mpeg2": {"kind": "mxf", "codec": "mpeg2video", "rate": 25},
    "mov-prores": {"kind": "mov", "codec": "prores_ks", "pix_fmt": "yuv422p10le", "audio": "pcm_s16le"},
    "mov-png": {"kind": "mov", "codec": "png", "pix_fmt": "rgb24"},
    "mkv-ffv1": {"kind": "matroska", "codec": "ffv1"},
    "avi-raw": {"kind": "avi", "codec": "rawvideo"},
    "avi-huffyuv": {"kind": "avi", "codec": "huffyuv", "pix_fmt": "yuv422p"},
    "avi-ffvhuff": {"kind": "avi", "codec": "ffvhuff"},
    "avi-utvideo": {"kind": "avi", "codec": "utvideo"},
    "avi-magicyuv": {"kind": "avi", "codec": "magicyuv"},
    "avi-cinepak": {"kind": "avi", "codec": "cinepak", "pix_fmt": "rgb24"},
    "avi-msmpeg4v2": {"kind": "avi", "codec": "msmpeg4v2"},
    "wmv1": {"kind": "asf", "codec": "wmv1"},
    "mov-qtrle": {"kind": "mov", "codec": "qtrle", "pix_fmt": "rgb24"},
    "mov-jpeg2000": {"kind": "mov", "codec": "jpeg2000"},
    "mov-v210": {"kind": "mov", "codec": "v210", "pix_fmt": "yuv422p10le"},
    "mov-svq1": {"kind": "mov", "codec": "svq1", "pix_fmt": "yuv410p"},
    "mov-cineform": {"kind": "mov", "codec": "cfhd", "pix_fmt": "yuv422p10le"},
    "mov-dnxhr": {"kind": "mov", "codec": "dnxhd", "pix_fmt": "yuv422p", "options": {"profile": "dnxhr_hq"}},
    "3gp-h263": {"kind": "3gp", "codec": "h263"},
    "avi-dv": {"kind": "avi", "codec": "dvvideo", "rate": 25},
    "dv": {"kind": "dv", "codec": "dvvideo", "rate": 25, "audio": "pcm_s16le"},
}
SIZES = {"dvvideo": (720, 576), "dnxhd": (256, 120), "h263": (176, 144)}


@pytest.mark.parametrize("name", CLIPS)
def test_reads_more_clips(name: str, tmp_path: Path) -> None:
    path, rate = tmp_path / "clip", CLIPS[name].get("rate", 10)
    pictures = numbered(10, *SIZES.get(str(CLIPS[name].get("codec")), (64, 48)))
    write_clip(path, pictures, **CLIPS[name])  # type: ignore[arg-type]
    with raises_code(MediaError, "unsupported", "unsupported_codec"):
        decode(path)
    frames, info = decode(path, limits=OWN)
    assert sniff(path, OWN) == info.kind == "clip" and codes(info.notices) == []
    assert [number_of(frame.rgb) for frame in frames] == list(range(10))
    priming_s = 0.022 if "audio" in CLIPS[name] else 0.001  # of sound, which may begin before the pictures
    assert times(frames) == pytest.approx([number / rate for number in range(10)], abs=priming_s)


def test_every_allowed_decoder_exists() -> None:
    for name in (*allowed_codecs(OWN), *SOUND_CODECS):
        assert av.codec.Codec(name, "r").name


MEASURE = """
import resource, sys
from pathlib import Path
from hsemotion_space.media.clips import read_image
from hsemotion_space.settings import MediaLimits
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
limits, start = MediaLimits().for_own_files(), 0
for path in map(Path, sys.argv[1:]):
    start = start or peak()
    info, frame = read_image(path, limits)
    print(info.width, info.height, *(getattr(notice, "code", "") for notice in info.notices))
print((peak() - start) // 1024)
"""


def test_a_large_jpeg_is_scaled_while_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "large"
    Image.new("L", (16_000, 12_000), 77).save(path, "JPEG")
    with raises_code(MediaError, "too_many_pixels"):
        read_image(path, LIMITS)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    *shown, grown = done.stdout.split()
    assert shown == ["1920", "1440", "scaled_down"] and int(grown) < 60


def test_own_pictures_have_limits_too(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(png_bit_bomb(6000, 5000))
    assert read_image(path, OWN)[0].width == 1920
    Image.new("1", (12_000, 12_000)).save(path, "TIFF", compression="group4")
    assert read_image(path, OWN)[0].width == 1920
    path.write_bytes(png_bit_bomb(30_000, 30_000))
    with raises_code(MediaError, "too_many_pixels"):
        read_image(path, OWN)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_mutated_own_files_are_read_or_refused(tmp_path: Path) -> None:
    rng, path, read = random.Random(5), tmp_path / "file", 0
    clip = {
        name: write_clip(path, numbered(5), **CLIPS[name]).read_bytes() for name in ("wmv", "flv", "m2ts")
    }  # type: ignore[arg-type]
    seeds = [build() for build in (*IMAGES.values(), *GRAYS.values())] + list(clip.values())
    limits = replace(OWN, decode_deadline_s=10.0)
    for number in range(12 * len(seeds)):
        path.write_bytes(mutated(seeds[number % len(seeds)], rng))
        try:
            if sniff(path, OWN) == "clip":
                decode(path, limits=limits)
            else:
                read_image(path, limits)
            read += 1
        except MediaError as error:
            assert str(path) not in str(error)
    assert 20 < read < 11 * len(seeds)


@pytest.mark.parametrize("suffix", [".heic", ".jpg"])
def test_heic_is_read_with_the_extra(suffix: str, tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    path = tmp_path / f"photo{suffix}"
    pillow_heif.from_pillow(PICTURE).save(path, quality=-1, chroma=444, exif=exif_with(6).tobytes())
    for limits in (LIMITS, OWN):
        info, frame = read_image(path, limits)
        assert (info.width, info.height) == (48, 64) and "CANARY" not in repr(info)
        np.testing.assert_allclose(
            frame.rgb[[0, 0, -1, -1], [0, -1, 0, -1]],
            [UPRIGHT[2], UPRIGHT[0], UPRIGHT[3], UPRIGHT[1]],
            atol=6,
        )
    with raises_code(MediaError, "too_many_pixels"):
        read_image(path, replace(LIMITS, image_pixels=3000))
    path.write_bytes(path.read_bytes()[:-200])
    with raises_code(MediaError, "damaged"):
        read_image(path, LIMITS)


def test_heic_without_the_extra_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "photo.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    assert sniff(path) == "image"
    with raises_code(MediaError, "heic"):
        read_image(path, LIMITS)
