from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from error_codes import codes, raises_code
from media_makers import (
    BLUE,
    GREEN,
    ORIENTED,
    RED,
    UPRIGHT,
    WHITE,
    Corners,
    encoded,
    exif_with,
    jpeg_with_size,
    png,
    png_bit_bomb,
    png_chunk,
    quadrants,
    webp_canvas_bomb,
    write_clip,
)
from PIL import Image

from hsemotion_space.media.clips import MediaError, file_sha256, read_image, sniff
from hsemotion_space.settings import MediaLimits

LIMITS = MediaLimits()
PICTURE = Image.fromarray(quadrants())


def flat(mode: str, color: object, size: tuple[int, int] = (16, 12)) -> Image.Image:
    return Image.new(mode, size, color)


def palette_picture() -> Image.Image:
    image = PICTURE.quantize(4, dither=Image.Dither.NONE)
    assert image.mode == "P"
    return image


def sixteen_bit(value: int) -> bytes:
    return encoded(Image.fromarray(np.full((12, 16), value, np.uint16)), "PNG")


def gray_levels(*levels: int) -> bytes:
    return encoded(Image.fromarray(np.array(levels, np.uint16).reshape(2, 2)), "PNG")


def gray_corners(*levels: int) -> Corners:
    return tuple((level,) * 3 for level in levels)


def rgb16(*channels: int) -> bytes:
    return png(1, 1, 16, 2, b"\0" + struct.pack(">3H", *channels))


def animation(kind: str, **options: object) -> bytes:
    return encoded(
        flat("RGB", RED),
        kind,
        save_all=True,
        append_images=[flat("RGB", BLUE), flat("RGB", GREEN)],
        duration=50,
        **options,
    )


def transparent_palette() -> bytes:
    image = flat("P", 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (8, 0, 16, 12))
    return encoded(image, "PNG", transparency=0)


def palette_alpha(alpha: bytes) -> bytes:
    image = flat("P", 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (8, 0, 16, 12))
    return encoded(image, "PNG", transparency=alpha)


def top_down_bmp() -> bytes:
    data = encoded(PICTURE.transpose(Image.Transpose.FLIP_TOP_BOTTOM), "BMP")
    return data[:22] + struct.pack("<i", -48) + data[26:]


def core_bmp() -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 26 + 8, 0, 0, 26)
        + struct.pack("<IHHHH", 12, 2, 1, 1, 24)
        + bytes((0, 0, 255, 255, 0, 0, 0, 0))
    )


def with_broken_exif() -> bytes:
    data = encoded(PICTURE, "JPEG", quality=100, subsampling=0)
    body = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(64))
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def corners(pixels: np.ndarray) -> np.ndarray:
    return pixels[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int)


RGB16 = png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 0x80FF, 0, 0xFFFF, 0x1234, 0x5678, 0x9ABC))
RGBA16 = png(2, 1, 16, 6, b"\0" + struct.pack(">8H", 0xFFFF, 0, 0, 0, 0, 0xFFFF, 0, 0xFFFF))
JPEG = {"quality": 100, "subsampling": 0}

# name: (bytes, width, height, colors of the corners: top left, top right, bottom left, bottom right,
# tolerance per channel)
GOOD: dict[str, tuple[Callable[[], bytes], int, int, Corners, int]] = {
    "png-rgb": (lambda: encoded(PICTURE, "PNG"), 64, 48, UPRIGHT, 0),
    "png-palette": (lambda: encoded(palette_picture(), "PNG"), 64, 48, UPRIGHT, 0),
    "png-gray": (lambda: encoded(flat("L", 77), "PNG"), 16, 12, ((77,) * 3,) * 4, 0),
    "png-1bit-white": (lambda: encoded(flat("1", 1), "PNG"), 16, 12, (WHITE,) * 4, 0),
    "png-2bit": (lambda: png(4, 1, 2, 0, b"\0\x1b"), 4, 1, ((0,) * 3, WHITE, (0,) * 3, WHITE), 0),
    "png-gray-alpha": (lambda: encoded(flat("LA", (0, 0)), "PNG"), 16, 12, (WHITE,) * 4, 0),
    "png-gray-half-alpha": (lambda: encoded(flat("LA", (0, 128)), "PNG"), 16, 12, ((127,) * 3,) * 4, 0),
    "png-transparent-red": (lambda: encoded(flat("RGBA", (255, 0, 0, 0)), "PNG"), 16, 12, (WHITE,) * 4, 0),
    "png-half-red": (
        lambda: encoded(flat("RGBA", (255, 0, 0, 128)), "PNG"),
        16,
        12,
        ((255, 127, 127),) * 4,
        0,
    ),
    "png-opaque-rgba": (lambda: encoded(PICTURE.convert("RGBA"), "PNG"), 64, 48, UPRIGHT, 0),
    "png-palette-one-transparent": (transparent_palette, 16, 12, (WHITE, GREEN, WHITE, GREEN), 0),
    "png-palette-half-transparent": (
        lambda: palette_alpha(b"\x80\xff"),
        16,
        12,
        ((255, 127, 127), GREEN) * 2,
        0,
    ),
    "png-rgb-key": (
        lambda: encoded(PICTURE, "PNG", transparency=RED),
        64,
        48,
        (WHITE, GREEN, BLUE, WHITE),
        0,
    ),
    "png-gray-key": (lambda: encoded(flat("L", 9), "PNG", transparency=9), 16, 12, (WHITE,) * 4, 0),
    "png-16-gray-middle": (lambda: sixteen_bit(0x8000), 16, 12, ((128,) * 3,) * 4, 0),
    "png-16-gray-black": (lambda: sixteen_bit(0), 16, 12, ((0,) * 3,) * 4, 0),
    "png-8-of-16-gray": (
        lambda: gray_levels(0, 0x10, 0x80, 0xFF),
        2,
        2,
        gray_corners(0, 0x10, 0x80, 0xFF),
        0,
    ),
    "png-10-of-16-gray": (
        lambda: gray_levels(0, 0x40, 0x200, 0x3FF),
        2,
        2,
        gray_corners(0, 0x10, 0x80, 0xFF),
        0,
    ),
    "png-12-of-16-gray": (
        lambda: gray_levels(0, 0x100, 0x800, 0xFFF),
        2,
        2,
        gray_corners(0, 0x10, 0x80, 0xFF),
        0,
    ),
    "png-14-of-16-gray": (
        lambda: gray_levels(0, 0x400, 0x2000, 0x3FFF),
        2,
        2,
        gray_corners(0, 0x10, 0x80, 0xFF),
        0,
    ),
    "png-16-of-16-gray": (
        lambda: gray_levels(0, 0x1000, 0x8000, 0xFFFF),
        2,
        2,
        gray_corners(0, 0x10, 0x80, 0xFF),
        0,
    ),
    "png-14-of-16-rgb": (lambda: rgb16(0x3FFF, 0, 0), 1, 1, ((0x3F, 0, 0),) * 4, 0),
    "png-16-rgb-black": (lambda: rgb16(0, 0, 0), 1, 1, ((0,) * 3,) * 4, 0),
    "png-16-gray-white": (lambda: sixteen_bit(0xFFFF), 16, 12, (WHITE,) * 4, 0),
    "png-16-rgb": (lambda: RGB16, 2, 1, ((0x80, 0, 0xFF), (0x12, 0x56, 0x9A)) * 2, 0),
    "png-16-rgba": (lambda: RGBA16, 2, 1, (WHITE, GREEN) * 2, 0),
    "png-interlaced": (lambda: png(1, 1, 8, 2, b"\0\x01\x02\x03", interlace=1), 1, 1, ((1, 2, 3),) * 4, 0),
    "png-animated": (lambda: animation("PNG"), 16, 12, (RED,) * 4, 0),
    "png-exif-6": (lambda: encoded(PICTURE, "PNG", exif=exif_with(6)), 48, 64, (BLUE, RED, WHITE, GREEN), 0),
    "png-text": (
        lambda: png(1, 1, 8, 2, b"\0\x09\x08\x07", before=[png_chunk(b"tEXt", b"Comment\0" + b"x" * 9000)]),
        1,
        1,
        ((9, 8, 7),) * 4,
        0,
    ),
    "png-bad-icc": (lambda: encoded(PICTURE, "PNG", icc_profile=b"not a profile"), 64, 48, UPRIGHT, 0),
    "png-without-end": (lambda: encoded(PICTURE, "PNG")[:-12], 64, 48, UPRIGHT, 0),
    "png-trailing-bytes": (lambda: encoded(PICTURE, "PNG") + b"junk" * 999, 64, 48, UPRIGHT, 0),
    "png-one-pixel": (lambda: encoded(flat("RGB", BLUE, (1, 1)), "PNG"), 1, 1, (BLUE,) * 4, 0),
    "png-long-line": (lambda: encoded(flat("RGB", BLUE, (10_000, 1)), "PNG"), 1920, 1, (BLUE,) * 4, 0),
    "png-tall-line": (lambda: encoded(flat("L", 5, (1, 3000)), "PNG"), 1, 1920, ((5,) * 3,) * 4, 0),
    "png-scaled": (lambda: encoded(PICTURE.resize((2880, 2160), 0), "PNG"), 1920, 1440, UPRIGHT, 0),
    "jpeg": (lambda: encoded(PICTURE, "JPEG", **JPEG), 64, 48, UPRIGHT, 2),
    "jpeg-progressive": (lambda: encoded(PICTURE, "JPEG", progressive=True, **JPEG), 64, 48, UPRIGHT, 2),
    "jpeg-subsampled": (lambda: encoded(PICTURE, "JPEG", quality=95, subsampling=2), 64, 48, UPRIGHT, 4),
    "jpeg-gray": (lambda: encoded(flat("L", 77), "JPEG", quality=100), 16, 12, ((77,) * 3,) * 4, 1),
    "jpeg-cmyk": (
        lambda: encoded(flat("CMYK", (0, 255, 255, 0)), "JPEG", quality=100),
        16,
        12,
        (RED,) * 4,
        2,
    ),
    "jpeg-cmyk-black": (
        lambda: encoded(flat("CMYK", (0, 0, 0, 255)), "JPEG", quality=100),
        16,
        12,
        ((0,) * 3,) * 4,
        2,
    ),
    "jpeg-restarts": (lambda: encoded(PICTURE, "JPEG", restart_marker_blocks=1, **JPEG), 64, 48, UPRIGHT, 2),
    "jpeg-two-pictures": (
        lambda: encoded(PICTURE, "MPO", save_all=True, append_images=[flat("RGB", RED)], **JPEG),
        64,
        48,
        UPRIGHT,
        2,
    ),
    "jpeg-motion-photo": (
        lambda: encoded(PICTURE, "JPEG", **JPEG) + b"\0\0\0\x18ftypmp42" + bytes(5000),
        64,
        48,
        UPRIGHT,
        2,
    ),
    "jpeg-drafted": (
        lambda: encoded(PICTURE.resize((4000, 3000), 0), "JPEG", **JPEG),
        1920,
        1440,
        UPRIGHT,
        2,
    ),
    "jpeg-drafted-turned": (
        lambda: encoded(PICTURE.resize((4000, 3000), 0), "JPEG", exif=exif_with(6)),
        1440,
        1920,
        (BLUE, RED, WHITE, GREEN),
        4,
    ),
    "jpeg-broken-exif": (with_broken_exif, 64, 48, UPRIGHT, 2),
    "jpeg-bad-icc": (lambda: encoded(PICTURE, "JPEG", icc_profile=bytes(200), **JPEG), 64, 48, UPRIGHT, 2),
    "webp-lossless": (lambda: encoded(PICTURE, "WEBP", lossless=True), 64, 48, UPRIGHT, 0),
    "webp-lossy": (lambda: encoded(PICTURE, "WEBP", quality=95), 64, 48, UPRIGHT, 6),
    "webp-transparent": (
        lambda: encoded(flat("RGBA", (255, 0, 0, 0)), "WEBP", lossless=True, exact=True),
        16,
        12,
        (WHITE,) * 4,
        0,
    ),
    "webp-animated": (lambda: animation("WEBP", lossless=True), 16, 12, (RED,) * 4, 0),
    "webp-exif-8": (
        lambda: encoded(PICTURE, "WEBP", lossless=True, exif=exif_with(8)),
        48,
        64,
        (GREEN, WHITE, RED, BLUE),
        0,
    ),
    "gif": (lambda: encoded(palette_picture(), "GIF"), 64, 48, UPRIGHT, 0),
    "gif-gray": (lambda: encoded(flat("L", 77), "GIF"), 16, 12, ((77,) * 3,) * 4, 0),
    "gif-transparent": (lambda: encoded(flat("P", 0), "GIF", transparency=0), 16, 12, (WHITE,) * 4, 0),
    "gif-animated": (lambda: animation("GIF"), 16, 12, (RED,) * 4, 0),
    "gif-87a": (lambda: b"GIF87a" + encoded(palette_picture(), "GIF")[6:], 64, 48, UPRIGHT, 0),
    "gif-second-picture-broken": (lambda: animation("GIF")[:-20], 16, 12, (RED,) * 4, 0),
    "bmp": (lambda: encoded(PICTURE, "BMP"), 64, 48, UPRIGHT, 0),
    "bmp-1bit": (lambda: encoded(flat("1", 1), "BMP"), 16, 12, (WHITE,) * 4, 0),
    "bmp-palette": (lambda: encoded(palette_picture(), "BMP"), 64, 48, UPRIGHT, 0),
    "bmp-32": (lambda: encoded(PICTURE.convert("RGBA"), "BMP"), 64, 48, UPRIGHT, 0),
    "bmp-top-down": (top_down_bmp, 64, 48, UPRIGHT, 0),
    "bmp-core-header": (core_bmp, 2, 1, (RED, BLUE) * 2, 0),
    "avif": (lambda: encoded(PICTURE, "AVIF", quality=95, subsampling="4:4:4"), 64, 48, UPRIGHT, 6),
    "avif-transparent": (lambda: encoded(flat("RGBA", (255, 0, 0, 0)), "AVIF"), 16, 12, (WHITE,) * 4, 2),
    "avif-animated": (lambda: animation("AVIF", quality=95, subsampling="4:4:4"), 16, 12, (RED,) * 4, 6),
    "avif-exif-6": (
        lambda: encoded(PICTURE, "AVIF", quality=95, subsampling="4:4:4", exif=exif_with(6)),
        48,
        64,
        (BLUE, RED, WHITE, GREEN),
        6,
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", GOOD)
def test_reads_odd_images_exactly(name: str, tmp_path: Path) -> None:
    build, width, height, colors, tolerance = GOOD[name]
    path = tmp_path / "upload"
    path.write_bytes(build())
    info, frame = read_image(path, LIMITS)
    assert sniff(path) == info.kind == "image"
    assert frame.rgb.shape == (info.height, info.width, 3) == (height, width, 3)
    assert np.abs(corners(frame.rgb) - np.array(colors)).max() <= tolerance
    assert (frame.index, frame.time_s, info.duration_s, info.sha256) == (0, 0.0, 0.0, file_sha256(path))
    assert ("animated" in codes(info.notices)) == ("animated" in name or name == "gif-second-picture-broken")
    assert ("scaled_down" in codes(info.notices)) == (max(width, height) == 1920)


@pytest.mark.parametrize("orientation", ORIENTED)
def test_turns_photos_upright_and_drops_their_metadata(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(PICTURE, "JPEG", exif=exif_with(orientation), comment=b"CANARY-COMMENT", **JPEG))
    assert b"CANARY-GPS" in path.read_bytes()
    info, frame = read_image(path, LIMITS)
    assert np.abs(corners(frame.rgb) - np.array(ORIENTED[orientation])).max() <= 2
    assert (info.width, info.height) == ((48, 64) if orientation in (5, 6, 7, 8) else (64, 48))
    saved = (
        encoded(Image.fromarray(frame.rgb), "JPEG")
        + encoded(Image.fromarray(frame.rgb), "WEBP")
        + repr(info).encode()
    )
    assert b"CANARY" not in saved and b"Exif" not in saved


def noise(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    return encoded(Image.fromarray(pixels), kind)


def cut(kind: str, share: float) -> Callable[[], bytes]:
    def build() -> bytes:
        data = noise(kind)
        return data[: int(len(data) * share)]

    return build


def bad_crc() -> bytes:
    data = bytearray(encoded(PICTURE, "PNG"))
    data[data.index(b"IHDR") + 14] ^= 1
    return bytes(data)


def plain(kind: str) -> Callable[[], bytes]:
    return lambda: encoded(PICTURE, kind)


TIFF_FLOAT = Image.new("F", (8, 8), 0.5)
UNSUPPORTED, DAMAGED, TOO_LARGE = "unsupported", "damaged", "too_many_pixels"
HEIC = "damaged" if find_spec("pillow_heif") else "heic"
BMP_24 = struct.pack("<HH", 1, 24)
ONE_ROW = b"\0\x01\x02\x03"
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty"),
    "one-byte": (lambda: b"\xff", UNSUPPORTED),
    "text": (lambda: b"just some words", UNSUPPORTED),
    "text-like-bmp": (lambda: b"BMW is a maker of cars, not a picture.", UNSUPPORTED),
    "html": (lambda: b"<!doctype html><script>alert(1)</script>", UNSUPPORTED),
    "svg": (
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        UNSUPPORTED,
    ),
    "zeros": (lambda: bytes(4096), UNSUPPORTED),
    "noise": (lambda: random.Random(1).randbytes(4096), UNSUPPORTED),
    "pdf": (plain("PDF"), UNSUPPORTED),
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", UNSUPPORTED),
    "tiff": (plain("TIFF"), UNSUPPORTED),
    "tiff-float": (lambda: encoded(TIFF_FLOAT, "TIFF"), UNSUPPORTED),
    "ico": (plain("ICO"), UNSUPPORTED),
    "ppm": (plain("PPM"), UNSUPPORTED),
    "tga": (plain("TGA"), UNSUPPORTED),
    "jpeg2000": (lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), UNSUPPORTED),
    "pcx": (plain("PCX"), UNSUPPORTED),
    "psd": (lambda: b"8BPS\0\1" + bytes(100), UNSUPPORTED),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(100), UNSUPPORTED),
    "zip": (lambda: b"PK\3\4" + bytes(100), UNSUPPORTED),
    "wave": (lambda: b"RIFF\x24\0\0\0WAVEfmt " + bytes(100), UNSUPPORTED),
    "heic": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), HEIC),
    "heif-mif1": (lambda: b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100), HEIC),
    "jpeg-start-only": (lambda: b"\xff\xd8\xff", DAMAGED),
    "jpeg-markers-only": (lambda: b"\xff\xd8" + b"\xff\xe0\0\2" * 50 + b"\xff\xd9", DAMAGED),
    "jpeg-half": (cut("JPEG", 0.5), DAMAGED),
    "jpeg-three-quarters": (cut("JPEG", 0.75), DAMAGED),
    "jpeg-no-size": (lambda: jpeg_with_size(0, 0), DAMAGED),
    "jpeg-claims-4-gigapixels": (lambda: jpeg_with_size(65_500, 65_500), TOO_LARGE),
    "jpeg-claims-26-megapixels": (lambda: jpeg_with_size(5200, 5000), TOO_LARGE),
    "png-signature-only": (lambda: b"\x89PNG\r\n\x1a\n", DAMAGED),
    "png-half": (cut("PNG", 0.5), DAMAGED),
    "png-bad-crc": (bad_crc, DAMAGED),
    "png-no-size": (lambda: png(0, 0, 8, 2, b""), DAMAGED),
    "png-no-data": (
        lambda: b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)),
        DAMAGED,
    ),
    "png-noise-data": (lambda: encoded(PICTURE, "PNG").replace(b"IDAT", b"IDAX"), DAMAGED),
    "png-12-of-16-rgb": (lambda: rgb16(0x0FFF, 0x0123, 0), "few_bits"),
    "png-12-of-16-rgba": (
        lambda: png(1, 1, 16, 6, b"\0" + struct.pack(">4H", 0xFFF, 0, 0, 0xFFFF)),
        "few_bits",
    ),
    "png-odd-depth": (lambda: png(1, 1, 7, 2, ONE_ROW), DAMAGED),
    "png-odd-color": (lambda: png(1, 1, 8, 5, ONE_ROW), DAMAGED),
    "png-claims-2-gigapixels": (lambda: png(2**31 - 1, 2, 8, 2, ONE_ROW), TOO_LARGE),
    "png-900-megapixels": (lambda: png_bit_bomb(30_000, 30_000), TOO_LARGE),
    "png-169-megapixels": (lambda: png_bit_bomb(13_000, 13_000), TOO_LARGE),
    "png-88-megapixels": (lambda: png_bit_bomb(9400, 9400), TOO_LARGE),
    "png-long-side": (lambda: png_bit_bomb(10_001, 1), "side_too_long"),
    "png-text-bomb": (
        lambda: png(
            1,
            1,
            8,
            2,
            ONE_ROW,
            before=[png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2 * 10**8), 9))],
        ),
        DAMAGED,
    ),
    "webp-half": (cut("WEBP", 0.5), DAMAGED),
    "webp-head-only": (lambda: b"RIFF\xff\xff\0\0WEBPVP8 ", DAMAGED),
    "webp-canvas-bomb": (lambda: webp_canvas_bomb(16_383), TOO_LARGE),
    "webp-canvas-100-megapixels": (lambda: webp_canvas_bomb(10_000), TOO_LARGE),
    "gif-half": (cut("GIF", 0.5), DAMAGED),
    "gif-no-picture": (lambda: encoded(palette_picture(), "GIF")[:13] + b";", DAMAGED),
    "gif-claims-4-gigapixels": (
        lambda: b"GIF89a\xff\xff\xff\xff" + encoded(palette_picture(), "GIF")[10:],
        TOO_LARGE,
    ),
    "bmp-half": (cut("BMP", 0.5), DAMAGED),
    "bmp-claims-400-megapixels": (
        lambda: encoded(PICTURE, "BMP")[:18] + struct.pack("<ii", 20_000, 20_000) + BMP_24 + bytes(300),
        TOO_LARGE,
    ),
    "bmp-claims-more": (
        lambda: encoded(PICTURE, "BMP")[:18] + struct.pack("<ii", 2**30, 2**30) + BMP_24 + bytes(300),
        TOO_LARGE,
    ),
    "bmp-odd-depth": (lambda: encoded(PICTURE, "BMP")[:28] + b"\x07\0" + bytes(300), DAMAGED),
    "avif-half": (cut("AVIF", 0.5), DAMAGED),
    "avif-brand-only": (lambda: b"\0\0\0\x14ftypavif\0\0\0\0avif", DAMAGED),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", BAD)
def test_read_image_refuses_broken_files(name: str, tmp_path: Path) -> None:
    build, code = BAD[name]
    path = tmp_path / "upload.png"
    path.write_bytes(build())
    with raises_code(MediaError, code) as caught:
        read_image(path, LIMITS)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg",
        "a.gif",
        "a.mp4",
        "a.txt",
        "a.eps",
        "a.heic",
        "noname",
        "..png",
        "-x.png",
        "ü 😀.png",
        "a\nb.png",
        "http:,,x",
        "x" * 200,
    ],
)
def test_names_do_not_count(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(encoded(PICTURE, "PNG"))
    assert np.array_equal(read_image(path, LIMITS)[1].rgb, quadrants())


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.png", Path("/dev/null"), Path("a\0b")):
        for function in (sniff, file_sha256, lambda path: read_image(path, LIMITS)):
            if function is file_sha256 and path == Path("/dev/null"):
                continue
            with raises_code(MediaError, "unreadable"):
                function(path)


def test_refuses_a_clip_as_an_image(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.png", [quadrants()], kind="mp4")
    assert sniff(path) == "clip"
    with raises_code(MediaError, "is_clip"):
        read_image(path, LIMITS)


def test_limits_are_inclusive(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(PICTURE, "PNG"))
    size = path.stat().st_size
    exact = replace(LIMITS, image_bytes=size, image_pixels=64 * 48, image_side=64, image_output_side=64)
    assert read_image(path, exact)[0].notices == ()
    for field, value, code in (
        ("image_bytes", size - 1, "too_large"),
        ("image_pixels", 64 * 48 - 1, "too_many_pixels"),
        ("image_side", 63, "side_too_long"),
    ):
        with raises_code(MediaError, code):
            read_image(path, replace(exact, **{field: value}))
    assert read_image(path, replace(exact, image_output_side=32))[1].rgb.shape == (24, 32, 3)


def test_no_memory_is_an_error_for_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(PICTURE, "PNG"))

    def fail(image: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with raises_code(MediaError, "damaged"):
        read_image(path, LIMITS)
