"""Milliseconds per explanation of every bundled checkpoint, in turn, for several grids of patches.

python benchmarks/explain.py [--rounds 7] [--engine openvino]

Speed does not depend on what is in the face, so random pixels do. CPU time is that of the process with all
its threads; it is steadier than wall time on a machine that does other work.
"""

from __future__ import annotations

import argparse
import statistics
from typing import get_args

import numpy as np
from common import Timing, timed

from hsemotion_space.analysis.saliency import STANDARD, Grid, explain
from hsemotion_space.hub.registry import list_checkpoints
from hsemotion_space.inference.network import Network, load_network
from hsemotion_space.settings import Settings
from hsemotion_space.vision.engine import EngineName, EngineOptions

GRIDS = (STANDARD, Grid(0.2, 0.1), Grid(0.25, 0.25), Grid(1 / 3, 1 / 6))


def once(network: Network, grid: Grid) -> Timing:
    """Explain one label of the first head of a face of random pixels."""
    checkpoint = network.checkpoint
    size, task = checkpoint.input.size, checkpoint.heads[0].task
    face = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    return timed(lambda: explain(network.run, checkpoint, face, (task.name, task.label_names[0]), grid))[0]


def main() -> None:
    """Print a Markdown table of medians over rounds that measure every checkpoint with every grid in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--engine", choices=get_args(EngineName), default="openvino")
    given = parser.parse_args()
    checkpoints = [
        checkpoint
        for checkpoint in list_checkpoints(Settings.from_env().checkpoint_roots)
        if checkpoint.weights_bytes
    ]
    networks = [load_network(checkpoint, EngineOptions(given.engine)) for checkpoint in checkpoints]
    measured: dict[tuple[str, Grid], list[Timing]] = {}
    for number in range(given.rounds + 1):
        for network in networks:
            for grid in GRIDS:
                timing = once(network, grid)
                if number:
                    measured.setdefault((network.checkpoint.id, grid), []).append(timing)
    print("| checkpoint | patch | stride | faces | wall ms | CPU ms |")
    print("|---|---:|---:|---:|---:|---:|")
    for (checkpoint_id, grid), timings in measured.items():
        faces = 1 + 2 * len(grid.corners(224)[1]) ** 2
        wall, cpu = (
            1000 * statistics.median(values)
            for values in zip(*((one.wall_s, one.cpu_s) for one in timings), strict=True)
        )
        print(
            f"| {checkpoint_id} | {grid.patch:.3g} | {grid.stride:.3g} | {faces} | {wall:.0f} | {cpu:.0f} |"
        )


if __name__ == "__main__":
    main()
