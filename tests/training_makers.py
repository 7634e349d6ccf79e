"""Small datasets and a small recipe for the tests of learning."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from face_makers import draw_face
from PIL import Image
from torch import Tensor

from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.data import FaceImages
from hsemotion_space.training.recipe import Recipe, Source
from hsemotion_space.training.soft_labels import SoftLabelFile, SoftLabels
from hsemotion_space.types import ByteArray

NAN = float("nan")
RECIPE = Recipe(
    arch="test_byobnet", size=32, args={"drop_rate": 0.3, "drop_path_rate": 0.3},
    sources=(Source("a", ("a.parquet",), 0.75, tuning=0.2), Source("b", ("b.parquet",), 0.25, tuning=0.2)), votes="votes.csv",
    steps=6, steps_per_epoch=2, batch=8, seed=3, compile=False, bfloat16=False,
)  # fmt: skip


def encoded(pixels: ByteArray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def pictures(count: int, seed: int) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [
        encoded(np.roll(draw_face(40), rng.integers(-3, 4), 0) // 2 + rng.integers(10, 120, 3, np.uint8))
        for _ in range(count)
    ]


def write_data(folder: Path) -> Path:
    """Write two sources, ``a`` with names and ``b`` with votes, and a table of ratings; return the folder."""
    rng = np.random.default_rng(0)
    names = [EXPRESSION.label_names[number % 8] for number in range(80)]
    images = [{"bytes": content} for content in pictures(80, 1)]
    pq.write_table(pa.table({"image": images, "expression": names}), folder / "a.parquet")
    votes = (
        rng.multinomial(4, np.full(8, 1 / 8), 60)
        + np.eye(8, dtype=int)[np.arange(60) % 8] * np.where(np.arange(60) % 5, 6, 1)[:, None]
    )
    columns = {f"votes_{name.lower()}": votes[:, k].tolist() for k, name in enumerate(EXPRESSION.label_names)}
    pq.write_table(
        pa.table({"image": [{"bytes": content} for content in pictures(60, 2)], **columns}),
        folder / "b.parquet",
    )
    shares = rng.dirichlet(np.ones(8), 50)
    truth = np.linspace(-0.8, 0.8, 8)
    rows = [
        ["set", *columns, "valence_mean", "arousal_mean"],
        *([f"set{n % 2}", *share, share @ truth, share @ truth[::-1]] for n, share in enumerate(shares)),
    ]
    (folder / "votes.csv").write_text("\n".join(",".join(map(str, row)) for row in rows), "utf-8")
    return folder


def soft_labels(sources: list[FaceImages], dim: int = 0) -> SoftLabelFile:
    """Return random soft labels, with embeddings of width ``dim``."""
    rng = np.random.default_rng(5)
    labels = [
        SoftLabels(
            rng.dirichlet(np.ones(8), len(faces)).astype(np.float32),
            rng.uniform(-1, 1, (len(faces), 2)).astype(np.float32),
            rng.normal(size=(len(faces), dim)).astype(np.float16),
        )
        for faces in sources
    ]
    return SoftLabelFile("soft.parquet", "0" * 64, ({"id": "t", "sha256": "1" * 64},), tuple(labels))


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Return whether two tables of tensors have the same names and bits."""
    return first.keys() == second.keys() and all(bool((first[key] == second[key]).all()) for key in first)
