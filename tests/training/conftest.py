"""Small datasets, made once for all tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_makers import RECIPE, write_data

from hsemotion_space.training.data import FaceImages
from hsemotion_space.training.sources import load_sources


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two sources, one of names and one of votes, and a table of ratings."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def sources(data: Path) -> list[FaceImages]:
    return load_sources(RECIPE, data)[0]
