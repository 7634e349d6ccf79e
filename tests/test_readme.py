"""What the README says in code is run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from face_makers import picture_with
from page_makers import serve_page
from PIL import Image

from hsemotion_space.cli import make_parser

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def test_the_python_example_gives_embeddings_and_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(picture_with([(60, 40)], (240, 320))).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    [code] = [text for language, text in BLOCKS if language == "python" and "Client(" not in text]
    assert len([line for line in code.splitlines() if line]) == 3
    names: dict[str, object] = {}
    exec(code, names)
    embeddings, predictions = names["embeddings"], names["predictions"]
    assert isinstance(embeddings, np.ndarray)
    assert embeddings.shape == (1, 512)
    assert [prediction.task.name for prediction in predictions][:2] == ["expression", "valence_arousal"]
    assert {prediction.provenance for prediction in predictions} <= {"trained", "rule", "prior"}


def test_the_example_for_programs_analyzes_and_corrects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(picture_with([(60, 40)], (240, 320))).save(tmp_path / "photo.jpg")
    [code] = [text for language, text in BLOCKS if language == "python" and "Client(" in text]
    names: dict[str, object] = {}
    with serve_page(tmp_path) as url:
        monkeypatch.chdir(tmp_path)
        exec(code.replace("http://127.0.0.1:7860", url), names)
    assert len(names["faces"]) == 1
    assert names["receipt"]["message"] == "Saved on this server."


@pytest.mark.parametrize(
    "line", re.findall(r"^\.venv/bin/hsemotion-space (.*?)(?:\s+#.*)?$", README, re.MULTILINE)
)
def test_every_command_of_the_readme_exists(line: str) -> None:
    words = line.split()
    if "--help" in words:
        with pytest.raises(SystemExit) as ended:
            make_parser().parse_args(words)
        assert ended.value.code == 0
    else:
        assert callable(make_parser().parse_args(words).handler)


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links
    assert not [link for link in links if not (Path(__file__).resolve().parent.parent / link).exists()]
