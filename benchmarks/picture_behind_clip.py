"""How long does a picture take that comes while a clip of a minute is analyzed?

By workers, and with a clip that gives way.

    python benchmarks/picture_behind_clip.py [--rounds 1] [--pictures 5] [--seconds 60] [--niceness 10]

Both files are made from the example portrait. "gives way" is one process that looks after each frame of the
clip whether a picture has come; the page does not do that, it is here to be compared. A round measures every
way once, in turn, and each way measures pictures alone first. Proportional set size (PSS, Linux only) counts
once what processes share.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common import make_clip

from hsemotion_space.inference.pipeline import Pipeline
from hsemotion_space.jobs import JobRunner, runner
from hsemotion_space.settings import PipelineConfig, Settings

PORTRAIT = Path(__file__).resolve().parent.parent / "examples" / "astronaut.jpg"
FPS, SIZE = 10, (640, 480)
FIRST_FRAMES = 20  # of the clip, before the first picture comes
PAUSE_S = 1.0  # from an answer to the next picture


@dataclass(frozen=True)
class Files:
    """What is analyzed, and how many pictures."""

    clip: Path
    pictures: int


@dataclass(frozen=True)
class Measured:
    """Seconds of pictures alone and behind the clip, of the clip meanwhile and alone; MiB of the workers."""

    alone_s: Sequence[float]
    behind_s: Sequence[float]
    clip_s: float
    clip_alone_s: float
    memory: float

    @property
    def row(self) -> str:
        """Cells of the table."""
        alone, behind = statistics.median(self.alone_s), statistics.median(self.behind_s)
        seconds = f"{alone:.2f} | {behind:.2f} | {max(self.behind_s):.2f} | {behind / alone:.1f}"
        return (
            f"{seconds} | {self.clip_alone_s:.0f} | {self.clip_s:.0f} | {len(self.behind_s)} |"
            f" {self.memory:.0f}"
        )


def in_queue(files: Files, settings: Settings) -> Measured:
    """Measure the queue of the page."""
    jobs = JobRunner(settings)

    def once(file: Path) -> float:
        start, job = time.monotonic(), jobs.submit(file, PipelineConfig())
        *_, last = jobs.watch(job, 0.02)
        if last.state != "done":
            raise RuntimeError(last.message)
        return time.monotonic() - start

    def started(job: str) -> bool:
        return jobs.status(job).done >= FIRST_FRAMES

    def follow(job: str) -> None:
        for _ in jobs.watch(job, 0.02):
            pass

    try:
        once(PORTRAIT)  # the worker is warm then
        alone, clip_alone_s = [once(PORTRAIT) for _ in range(files.pictures)], once(files.clip)
        start, behind = time.monotonic(), []
        job = jobs.submit(files.clip, PipelineConfig())
        with ThreadPoolExecutor(1) as pool:
            end: Future[float] = pool.submit(lambda: (follow(job), time.monotonic())[1])
            while not started(job):
                time.sleep(0.05)
            while len(behind) < files.pictures and not end.done():
                behind.append(once(PORTRAIT))
                time.sleep(PAUSE_S)
            clip_s = end.result() - start
        memory = sum(pss(lane.worker.process.pid) for lane in jobs._lanes if lane.worker.process is not None)
        return Measured(alone, behind, clip_s, clip_alone_s, memory)
    finally:
        jobs.close()


def giving_way(files: Files, settings: Settings) -> Measured:
    """Measure one pipeline that analyzes a picture between two frames of the clip."""
    pipeline = Pipeline(settings)
    alone: list[float] = []
    for _ in range(files.pictures + 1):
        start = time.monotonic()
        pipeline.analyze(PORTRAIT)
        alone.append(time.monotonic() - start)
    start = time.monotonic()
    pipeline.analyze(files.clip)
    clip_alone_s = time.monotonic() - start
    behind: list[float] = []
    comes_s = [float("inf")]

    def between(done: int, _total: int) -> None:
        if done == FIRST_FRAMES:
            comes_s[0] = time.monotonic() + PAUSE_S
        if time.monotonic() >= comes_s[0] and len(behind) < files.pictures:
            pipeline.analyze(PORTRAIT)
            behind.append(time.monotonic() - comes_s[0])
            comes_s[0] = time.monotonic() + PAUSE_S

    start = time.monotonic()
    pipeline.analyze(files.clip, report=between)
    return Measured(alone[1:], behind, time.monotonic() - start, clip_alone_s, float("nan"))


def pss(pid: int | None) -> float:
    """Return the proportional set size of a process in MiB; NaN where the system does not report it."""
    file = Path(f"/proc/{pid}/smaps_rollup")
    lines = file.read_text("ascii").splitlines() if file.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), float("nan"))


def main() -> None:
    """Print a Markdown table, row by row as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=60, help="of the clip")
    parser.add_argument(
        "--niceness", type=int, nargs="*", default=[runner.CLIP_NICENESS], help="of the worker for clips"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder) / "clip.mp4", given.pictures)
        make_clip(PORTRAIT, files.clip, given.seconds * FPS, FPS, SIZE)
        print(
            "| way | picture alone s | behind, median s | longest s | times alone | clip alone s | clip s |"
            " pictures | PSS MiB |"
        )
        print("|---|" + "---:|" * 8, flush=True)
        for _ in range(given.rounds):
            for niceness in given.niceness:
                runner.CLIP_NICENESS = niceness  # type: ignore[misc]
                print(
                    f"| two workers, niceness {niceness} |"
                    f" {in_queue(files, Settings(job_time_limit_s=3600)).row} |",
                    flush=True,
                )
            print(f"| gives way | {giving_way(files, Settings()).row} |", flush=True)
            print(
                f"| one worker | {in_queue(files, Settings(workers=1, job_time_limit_s=3600)).row} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
