"""Images that attack: threads, memory, mutations."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from error_codes import raises_code
from media_makers import encoded, exif_with, mutated, png_bit_bomb, quadrants
from PIL import Image
from test_media_images import BAD, LIMITS, PICTURE, TOO_LARGE, animation

from hsemotion_space.media.clips import MediaError, read_image


def test_threads_do_not_disturb_each_other_or_pillow(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS, dict(Image.OPEN)
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(encoded(PICTURE, "WEBP", lossless=True))
    large.write_bytes(png_bit_bomb(6000, 6000))
    gate = threading.Barrier(4)

    def read(number: int) -> bool:
        gate.wait()
        if number % 2:
            with raises_code(MediaError, TOO_LARGE):
                read_image(large, LIMITS)
            return True
        return np.array_equal(read_image(small, LIMITS)[1].rgb, quadrants())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(16)))
    assert before[0] == Image.MAX_IMAGE_PIXELS and before[1].items() <= Image.OPEN.items()


MEASURE = """
import resource, sys, warnings
from pathlib import Path
from hsemotion_space.media.clips import MediaError, read_image
from hsemotion_space.settings import MediaLimits
warnings.simplefilter("ignore")
small, *bombs = map(Path, sys.argv[1:])
read_image(small, MediaLimits())
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = peak()
for bomb in bombs:
    try:
        read_image(bomb, MediaLimits())
    except MediaError:
        pass
print((peak() - start) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_bombs_cost_little_memory(tmp_path: Path) -> None:
    bombs = {
        name: build
        for name, (build, _) in BAD.items()
        if "bomb" in name or "claims" in name or "megapixels" in name
    }
    bombs["largest-allowed"] = lambda: png_bit_bomb(5000, 5000)
    files = [tmp_path / "small", *(tmp_path / name for name in bombs)]
    files[0].write_bytes(encoded(PICTURE, "WEBP"))
    for path, build in zip(files[1:], bombs.values(), strict=True):
        path.write_bytes(build())
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert int(done.stdout) < 300, f"grew by {done.stdout.strip()} MiB"


def fuzz(path: Path, count: int, seed: int) -> tuple[int, int]:
    """Return how many mutated images were read and refused."""
    rng, read = random.Random(seed), 0
    seeds = [encoded(PICTURE, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF")]
    seeds += [animation("GIF"), animation("WEBP"), encoded(PICTURE, "JPEG", exif=exif_with(6))]
    for number in range(count):
        path.write_bytes(mutated(seeds[number % len(seeds)], rng))
        try:
            info, frame = read_image(path, LIMITS)
        except MediaError as error:
            assert str(path) not in str(error)
        else:
            assert frame.rgb.shape == (info.height, info.width, 3)
            read += 1
    return read, count - read


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
def test_mutated_images_are_read_or_refused(tmp_path: Path) -> None:
    read, refused = fuzz(tmp_path / "image", 360, seed=1)
    assert read > 20 and refused > 20


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("seed", range(10, 20))
def test_many_mutated_images_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    read, refused = fuzz(tmp_path / "image", 5000, seed)
    assert read > 200 and refused > 200
