"""The pictures of the documentation: all there, all shown, described and small; ``docs/make_pictures.py``
makes them."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
TOGETHER_BYTES = 1_500_000
IN_MARKDOWN = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
IN_HTML = re.compile(r"<img\b[^>]*>")


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pictures", ROOT / "docs" / "make_pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_pictures"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


SHOTS = {shot.name: shot for shot in load_script().SHOTS}


def pages() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def shown() -> list[tuple[Path, str, Path]]:
    """Return page, alternative text and file of every picture that a page shows from this repository."""
    found = []
    for page in pages():
        text = page.read_text("utf-8")
        pairs = IN_MARKDOWN.findall(text)
        for tag in IN_HTML.findall(text):
            source, words = re.search(r'src="([^"]*)"', tag), re.search(r'alt="([^"]*)"', tag)
            assert source is not None, tag
            pairs.append((words[1] if words else "", source[1]))
        found += [
            (page, words, (page.parent / target).resolve())
            for words, target in pairs
            if not target.startswith("http")
        ]
    return found


def test_every_picture_that_a_page_shows_is_there_and_described() -> None:
    assert {page.name for page, *_ in shown()} >= {"README.md", "tour.md"}
    assert not [f"{page.name}: {file}" for page, _, file in shown() if not file.is_file()]
    assert not [f"{page.name}: {file.name}" for page, words, file in shown() if len(words.split()) < 4]


def test_every_picture_is_shown_on_the_tour_and_made_by_the_script() -> None:
    files = set(PICTURES.iterdir())
    assert files == {file for page, _, file in shown() if page.name == "tour.md"}
    assert files == {shot.file for shot in SHOTS.values()}


@pytest.mark.parametrize("name", SHOTS)
def test_a_picture_has_its_size_and_is_small(name: str) -> None:
    shot = SHOTS[name]
    assert shot.file.stat().st_size < load_script().MOST_BYTES
    with Image.open(shot.file) as picture:
        assert (picture.format, picture.size) == ("WEBP", (shot.width * shot.scale, shot.height * shot.scale))


def test_all_pictures_together_are_small() -> None:
    assert sum(file.stat().st_size for file in PICTURES.iterdir()) < TOGETHER_BYTES
