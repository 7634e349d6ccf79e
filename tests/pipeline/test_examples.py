"""The example clips show what they promise: expressions that change, of one face and of two at different times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hsemotion_space.inference.pipeline import Pipeline
from hsemotion_space.settings import PipelineConfig, Settings
from hsemotion_space.tasks import EXPRESSION

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize(("name", "surprised_s"), [("astronaut", [5.5]), ("two_people", [5.5, 2.5])])
def test_each_face_smiles_and_is_surprised_at_its_own_time(name: str, surprised_s: list[float]) -> None:
    file = EXAMPLES / f"{name}.mp4"
    assert file.stat().st_size < 500_000
    config = PipelineConfig("mobilefacenet-starter", sample_fps=2.0)
    faces = Pipeline(Settings()).analyze(file, config).faces
    assert len(faces) == len(surprised_s)
    faces = sorted(faces, key=lambda face: face.track.boxes_xyxy[0, 0])
    for face, moment in zip(faces, surprised_s, strict=True):
        [line] = [line for line in face.timelines if line.task.name == EXPRESSION.name]
        tops = {EXPRESSION.label_names[column] for column in line.values.argmax(1)}
        here = line.values[np.abs(line.times_s - moment).argmin()]
        assert EXPRESSION.label_names[int(here.argmax())] == "Surprise" and "Happiness" in tops
