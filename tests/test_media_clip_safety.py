from __future__ import annotations

import ctypes
import http.server
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from clip_makers import LIMITS, MEDIA_BOXES, NONE, TEN, decode, edited, elsewhere, packets, retabled
from error_codes import raises_code
from media_makers import encoded, mutated, numbered, write_clip, write_packets
from PIL import Image

from hsemotion_space.media.clips import MediaError

# Playlists and references to other files


class Watch:
    """Tells whether a file was opened."""

    def __init__(self, path: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK)
        self._libc.inotify_add_watch(self._fd, os.fsencode(path), 0x20)  # IN_OPEN

    def opened(self) -> bool:
        try:
            return bool(os.read(self._fd, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[tuple[Path, Watch]]:
    path = write_clip(tmp_path / "canary.ts", TEN, kind="mpegts")
    watch = Watch(path)
    yield path, watch
    watch.close()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, list[str]]]:
    hits: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hits.append(self.path)
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{service.server_port}", hits
        service.shutdown()
        thread.join()


PLAYLISTS = {
    "m3u8-file": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{file}\n#EXT-X-ENDLIST\n",
    "m3u8-file-url": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{file}\n#EXT-X-ENDLIST\n",
    "m3u8-http": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}/segment.ts\n#EXT-X-ENDLIST\n",
    "m3u8-key": (
        '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-KEY:METHOD=AES-128,URI="{url}/key"\n#EXTINF:1,\n{file}\n#EXT-X-ENDLIST\n'
    ),
    "m3u8-master": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}/live.m3u8\n",
    "ffconcat-relative": "ffconcat version 1.0\nfile canary.ts\n",
    "ffconcat-absolute": "ffconcat version 1.0\nfile '{file}'\n",
    "sdp": (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96"
        " H264/90000\n"
    ),
    "dash": (
        '<?xml version="1.0"?><MPD'
        ' xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>{url}/</BaseURL></Period></MPD>'
    ),
    "asx": '<asx version="3.0"><entry><ref href="{url}/x"/></entry></asx>',
}
DISGUISES = {
    "plain": b"",
    "as-mp4": b"\0\0\0\x08ftyp",
    "as-mkv": b"\x1a\x45\xdf\xa3",
    "as-avi": b"RIFF\x10\0\0\0AVI ",
    "as-flv": b"FLV\x01\x05\0\0\0\x09\0\0\0\0",
    "as-mpeg": b"\0\0\x01\xba",
    "as-wmv": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs inotify")
@pytest.mark.parametrize(
    "suffix", [".m3u8", ".mp4", ".mov", ".avi", ".mkv", ".webm", ".ts", ".txt", ".sdp", ".mpd", ".ffconcat"]
)
@pytest.mark.parametrize("playlist", PLAYLISTS)
def test_playlists_lead_nowhere(
    playlist: str, suffix: str, tmp_path: Path, canary: tuple[Path, Watch], server: tuple[str, list[str]]
) -> None:
    file, watch = canary
    url, hits = server
    for disguise, start in DISGUISES.items():
        path = tmp_path / f"{disguise}{suffix}"
        path.write_bytes(start + PLAYLISTS[playlist].format(file=file, url=url).encode())
        for limits in (LIMITS, LIMITS.for_own_files()):
            with pytest.raises(MediaError):
                decode(path, limits=limits)
    assert not watch.opened() and not hits


@pytest.mark.skipif(sys.platform != "linux", reason="needs inotify")
def test_references_to_other_files_are_not_followed(tmp_path: Path, canary: tuple[Path, Watch]) -> None:
    file, watch = canary
    path = edited(tmp_path / "clip.mov", [*MEDIA_BOXES, b"dinf", b"dref"], elsewhere(file))
    with raises_code(MediaError, NONE):
        decode(path)
    assert not watch.opened()


@pytest.mark.skipif(sys.platform != "linux", reason="needs inotify")
def test_the_canary_would_tell(tmp_path: Path, canary: tuple[Path, Watch]) -> None:
    """Without the limits the library follows both kinds of reference, and the watch sees it."""
    file, watch = canary
    playlist = tmp_path / "x.m3u8"
    playlist.write_text(PLAYLISTS["m3u8-file"].format(file=file))
    with av.open(str(playlist)):
        assert watch.opened()
    path = edited(tmp_path / "clip.mov", [*MEDIA_BOXES, b"dinf", b"dref"], elsewhere(file))
    with av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"}):
        assert watch.opened()


# Memory

MEASURE = """
import resource, sys
from pathlib import Path
from hsemotion_space.media.clips import MediaError, open_clip
from hsemotion_space.settings import MediaLimits
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
for file in map(Path, sys.argv[1:]):
    before, outcome = peak(), "read"
    try:
        with open_clip(file, MediaLimits(), 0) as clip:
            for frame in clip:
                pass
    except MediaError:
        outcome = "refused"
    print(file.name, outcome, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_bombs_and_long_clips_cost_little_memory(tmp_path: Path) -> None:
    large = encoded(Image.new("L", (7680, 4320)), "JPEG")
    files = {
        "short": write_clip(tmp_path / "short", numbered(20, 640, 360), kind="mp4"),
        "long": write_clip(tmp_path / "long", numbered(300, 640, 360), kind="mp4", rate=30),
        "large": write_packets(tmp_path / "large", [(0, large)], size=(7680, 4320)),
        "grows": write_packets(tmp_path / "grows", [*packets()[:3], (0.3, large)]),
        "index": retabled(tmp_path / "index", b"stsz", 1, 10**9),
    }
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, files.values())],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode == 0 and [name for name, _, _ in lines] == list(files), done.stderr[-500:]
    outcomes = {name: outcome for name, outcome, _ in lines}
    growth = {name: int(mib) for name, _, mib in lines}
    assert outcomes == {
        "short": "read",
        "long": "read",
        "large": "refused",
        "grows": "read",
        "index": "refused",
    }
    assert (
        growth["long"] < 30 and growth["large"] < 100 and growth["grows"] < 100 and growth["index"] < 100
    ), growth


def fuzz(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """Return how many mutated clips were read and refused."""
    rng, read, path = random.Random(seed), 0, folder / "clip"
    seeds = []
    for kind, codec in (
        ("mp4", "libx264"),
        ("mov", "mjpeg"),
        ("matroska", "libx264"),
        ("webm", "libvpx"),
        ("webm", "libvpx-vp9"),
        ("avi", "mpeg4"),
    ):
        seeds.append(write_clip(folder / "seed", numbered(6), kind=kind, codec=codec).read_bytes())
    for number in range(count):
        path.write_bytes(mutated(seeds[number % len(seeds)], rng))
        try:
            frames, info = decode(path, rng.choice((0, 10)))
        except MediaError as error:
            assert str(path) not in str(error)
        else:
            assert (
                frames
                and np.all(np.diff([frame.time_s for frame in frames]) > 0)
                and info.duration_s <= LIMITS.clip_duration_s
            )
            read += 1
    return read, count - read


def test_mutated_clips_are_read_or_refused(tmp_path: Path) -> None:
    read, refused = fuzz(tmp_path, 90, seed=1)
    assert read > 10 and refused > 5


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10, 20))
def test_many_mutated_clips_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    read, refused = fuzz(tmp_path, 1000, seed)
    assert read > 100 and refused > 50
