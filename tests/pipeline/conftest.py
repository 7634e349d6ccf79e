"""A pipeline with a network of random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoint_makers import make_checkpoint
from pipeline_makers import GreenDetector

from hsemotion_space.inference.network import Network
from hsemotion_space.inference.pipeline import Pipeline
from hsemotion_space.settings import Settings


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    make_checkpoint(root / "small", size=32)
    make_checkpoint(root / "twin", size=32, seed=1)  # expects the same picture as small
    make_checkpoint(root / "wide", size=48, seed=2, settled=True)
    return root


@pytest.fixture(scope="module")
def settings(checkpoints: Path) -> Settings:
    return Settings(checkpoints=checkpoints, cache=checkpoints / ".cache", engine="torch", threads=1)


@pytest.fixture
def detector() -> GreenDetector:
    return GreenDetector()


@pytest.fixture(scope="module")
def network(settings: Settings) -> Network:
    return Pipeline(settings, GreenDetector()).network("small")


@pytest.fixture
def pipeline(settings: Settings, detector: GreenDetector, network: Network) -> Pipeline:
    pipeline = Pipeline(settings, detector)
    pipeline._networks["small"] = network
    return pipeline
