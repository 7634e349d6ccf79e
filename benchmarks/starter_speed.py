"""Milliseconds per face of every bundled checkpoint, in turn: one face and batches of 32, on both engines.

python benchmarks/starter_speed.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from hsemotion_space.hub.registry import list_checkpoints
from hsemotion_space.inference.network import Network, load_network
from hsemotion_space.settings import Settings
from hsemotion_space.vision.engine import EngineOptions

BATCHES = (1, 32)
RUNS = 10


def milliseconds(network: Network, batch: int) -> float:
    """Return the median time per face of a few runs on random faces."""
    size = network.checkpoint.input.size
    faces, times = np.random.default_rng(0).normal(0, 1, (batch, 3, size, size)).astype(np.float32), []
    for _ in range(RUNS):
        started = time.perf_counter()
        network.run(faces)
        times.append(1000 * (time.perf_counter() - started) / batch)
    return statistics.median(times)


def main() -> None:
    """Print a Markdown table: the median over rounds, each of which measures every checkpoint once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    checkpoints = [
        checkpoint
        for checkpoint in list_checkpoints(Settings.from_env().checkpoint_roots)
        if checkpoint.weights_bytes
    ]
    systems = {
        (item.id, name): load_network(item, EngineOptions(name))
        for item in checkpoints
        for name in ("openvino", "torch")
    }
    measured: dict[tuple[str, str, int], list[float]] = {}
    for _ in range(rounds):
        for (checkpoint_id, engine), network in systems.items():
            for batch in BATCHES:
                measured.setdefault((checkpoint_id, engine, batch), []).append(milliseconds(network, batch))
    print(
        "| checkpoint | "
        + " | ".join(f"{engine}, {batch} at once" for engine in ("openvino", "torch") for batch in BATCHES)
        + " |"
    )
    print("|---|" + "---:|" * 4)
    for item in checkpoints:
        cells = [
            statistics.median(measured[item.id, engine, batch])
            for engine in ("openvino", "torch")
            for batch in BATCHES
        ]
        print(f"| {item.id} | " + " | ".join(f"{value:.1f} ms" for value in cells) + " |")


if __name__ == "__main__":
    main()
