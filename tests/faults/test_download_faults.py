"""Downloads where a process really dies halfway, two start at once, or the disk is really full."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import FakeHub, Fault, environment

REPO, NAME = "faces/small", "model.safetensors"
BIG = random.Random(0).randbytes(200_000)  # more than what files hold back before they write
SHA256 = hashlib.sha256(BIG).hexdigest()
KINDS = pytest.mark.parametrize("kind", ["hub", "upstream"])


SCRIPT = """
import hashlib, resource, sys, time
from pathlib import Path
from huggingface_hub import constants
from hsemotion_space.hub import client, download
from hsemotion_space.hub.source import CheckpointError, Digest, HubSource, UpstreamSource
kind, where, sha256, folder, halt = sys.argv[1:]
download.CHUNK = constants.DOWNLOAD_CHUNK_SIZE = 20_000
client.sleep = lambda _: None

def report(done, total):
    if halt == "halfway" and done >= 100_000:
        print("halfway", flush=True)
        time.sleep(60)

print("ready", flush=True)
sys.stdin.readline()
if halt == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    if kind == "hub":
        source = HubSource("faces/small", where, "model.safetensors")
        content = download.from_hub("Small", source, source.filename, Digest(sha256), report)
    else:
        content = download.from_upstream("Small", UpstreamSource("small.pt", where, "", Digest(sha256)), Path(folder), report)
    print(hashlib.sha256(content).hexdigest())
except CheckpointError as error:
    print(error.code)
"""


class Machine:
    """Processes that share a cache and fetch the same file."""

    def __init__(self, kind: str, hub: FakeHub, folder: Path) -> None:
        where = hub.add_repo(REPO, {NAME: BIG}) if kind == "hub" else hub.add_raw("0123/small.pt", BIG)
        self.folder, self.words = folder, [kind, where, SHA256, str(folder / "upstream")]
        self.env = os.environ | environment(hub, folder / "hf")

    def start(self, halt: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *self.words, halt], env=self.env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None and process.stdin is not None
        # it waits, so that nothing else is read ahead here and lost
        assert process.stdout.readline() == "ready\n"
        if halt != "barrier":
            process.stdin.write("\n")
            process.stdin.flush()
        return process

    def in_place(self) -> list[Path]:
        """Return the files that a start would read."""
        files = [
            *self.folder.glob("hf/hub/*/snapshots/*/*"),
            *self.folder.glob("hf/hub/*/blobs/*"),
            *self.folder.glob("upstream/*"),
        ]
        return [file for file in files if file.suffix not in {".incomplete", ".lock", ".part"}]


def last_line(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.splitlines()[-1]


@KINDS
def test_a_process_that_dies_halfway_leaves_nothing_in_place_of_the_file(kind: str, tmp_path: Path) -> None:
    with FakeHub() as hub:
        machine = Machine(kind, hub, tmp_path)
        victim = machine.start("halfway")
        assert victim.stdout is not None
        assert victim.stdout.readline() == "halfway\n"
        victim.kill()
        victim.communicate()
        assert machine.in_place() == []
        hub.requests.clear()
        assert last_line(machine.start()) == SHA256
        (get,) = hub.seen("GET")
        assert ("range" in get.headers) == (kind == "upstream")  # the Hub client starts again
        assert any(file.read_bytes() == BIG for file in machine.in_place())


@KINDS
def test_two_processes_that_start_together_both_get_the_right_bytes(kind: str, tmp_path: Path) -> None:
    with FakeHub() as hub:
        machine = Machine(kind, hub, tmp_path)
        hub.fail(Fault("hang", method="GET", wait_s=0.3))
        pair = [machine.start("barrier") for _ in range(2)]
        for process in pair:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [last_line(process) for process in pair] == [SHA256, SHA256]
        assert len(hub.seen("GET")) == 1


@KINDS
def test_a_disk_that_takes_half_the_file_is_an_error_and_a_larger_one_heals_it(
    kind: str, tmp_path: Path
) -> None:
    with FakeHub() as hub:
        machine = Machine(kind, hub, tmp_path)
        assert last_line(machine.start("full")) == "disk"
        assert machine.in_place() == []
        assert last_line(machine.start()) == SHA256
