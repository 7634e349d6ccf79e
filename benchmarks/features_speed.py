"""Speed of features: reading a table, extraction by an instant network or a checkpoint, smoothing of a video.

python benchmarks/features_speed.py [--rows 200000] [--dim 512] [--faces 4000] [--checkpoint FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import timed
from PIL import Image

from hsemotion_space.hub.manifest import Checkpoint, InputSpec, read_manifest
from hsemotion_space.inference.network import Network, load_network
from hsemotion_space.inference.temporal import box_smooth, gaussian_smooth
from hsemotion_space.training.feature_table import read_features
from hsemotion_space.training.features import extract
from hsemotion_space.training.formats.crops import FaceFile
from hsemotion_space.types import FloatArray
from hsemotion_space.vision.engine import EngineOptions

SIDE, SHARD = 112, 65_536
SPEC = InputSpec(SIDE, "box", 0.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def free(batch: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return features that cost next to nothing, so that the rest is measured."""
    return np.zeros((len(batch), 512), np.float32), np.zeros((len(batch), 10), np.float32)


def report(what: str, count: int, unit: str, run: Callable[[], object]) -> None:
    """Print one row of the table."""
    timing, _ = timed(run)
    print(
        f"| {what} | {timing.wall_s:.2f} | {timing.cpu_s:.2f} | {count / max(timing.cpu_s, 1e-9):,.0f}"
        f" {unit} |",
        flush=True,
    )


def write_shards(folder: Path, rows: int, dim: int) -> None:
    """Write random features in the layout of the shards."""
    rng = np.random.default_rng(0)
    for number, start in enumerate(range(0, rows, SHARD)):
        places = np.arange(start, min(start + SHARD, rows))
        vectors = rng.standard_normal((len(places), dim), np.float32)
        columns = {
            "video": pa.array([f"video-{place // 5000:04d}" for place in places]).dictionary_encode(),
            "frame": places % 5000 + 1,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), dim),
            "scores": pa.FixedSizeListArray.from_arrays(pa.array(vectors[:, :10].ravel()), 10),
        }
        file = folder / f"part-{number:05d}.parquet"
        pq.write_table(
            pa.table(columns),
            file,
            8192,
            compression="zstd",
            use_dictionary=["video"],
            use_byte_stream_split=True,
        )


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--faces", type=int, default=4000)
    parser.add_argument("--checkpoint", type=Path, help="also extract with this checkpoint")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    frames, values = np.arange(50_000), rng.uniform(0, 1, (50_000, 12)).astype(np.float32)
    print("| what | wall s | CPU s | per CPU second |\n|---|---|---|---|")
    report("box, 50,000 frames x 12, half width 50", 50_000, "frames", lambda: box_smooth(frames, values, 50))
    for sigma in (10, 50, 224):
        report(
            f"Gaussian, sigma {sigma}",
            50_000,
            "frames",
            lambda sigma=sigma: gaussian_smooth(frames, values, sigma),
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "features").mkdir()
        write_shards(folder / "features", options.rows, options.dim)
        report(
            f"read {options.rows:,} x {options.dim}",
            options.rows,
            "rows",
            lambda: read_features(folder / "features"),
        )
        picture = Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).resize(
            (160, 180), Image.Resampling.BICUBIC
        )
        crops = [FaceFile("v", frame, folder / f"{frame % 100}.jpg") for frame in range(1, options.faces + 1)]
        for crop in crops[:100]:
            picture.save(crop.image, quality=90)
        nothing = Checkpoint(
            "free", "Free", "MobileFaceNet", "none", folder, "", "", "none", 512, 10, SPEC, ()
        )
        report(
            "extract, a network that costs nothing",
            options.faces,
            "faces",
            lambda: extract(crops, Network(nothing, free), folder / "free"),
        )
        if options.checkpoint:
            network = load_network(read_manifest(options.checkpoint), EngineOptions(cache=folder / "cache"))
            report(
                f"extract, {network.checkpoint.id}",
                options.faces,
                "faces",
                lambda: extract(crops, network, folder / "real"),
            )


if __name__ == "__main__":
    main()
