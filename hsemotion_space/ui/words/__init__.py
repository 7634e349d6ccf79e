"""What the page says, in the language of the visitor.

English is in the code, and every English text is its own key; ``ja/*.json`` hold the Japanese ones. Three ways lead there:

- :func:`fixed` for texts of components, which are laid out once for everybody: the browser puts in its language (``gr.I18n``);
- :func:`say` for what a handler answers, in the language that the browser of this request asks for;
- :func:`retell` for finished English sentences of the layers below, which know no language.

What has no translation stays English. Answers of the API and of the command line are English.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Final

import gradio as gr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

LANGUAGES: Final = ("en", "ja")
FOLDER: Final = Path(__file__).parent
_LANGUAGE: ContextVar[str] = ContextVar("language", default=LANGUAGES[0])
_FILLED: Final[dict[str, dict[str, str]]] = {language: {} for language in LANGUAGES}  # fixed texts with their values, by language
_PLACE: Final = re.compile(r"{(\w+)}")


def fixed(text: str, **values: object) -> str:
    """Return what a component shows for a text: a marker that the browser replaces.

    Args:
        text: English, whole: a string can hold one marker only.
        values: for its ``{places}``.

    Raises:
        ValueError: if braces would be left in the text, at which the browser would cut the marker.
    """
    key = text.format(**values) if values else text
    if "{" in key or "}" in key:
        raise ValueError(f"Braces cannot be shown: {key!r}.")
    for language in LANGUAGES:
        _FILLED[language][key] = _filled(_words(language).get(text, text), values)
    return str(gr.I18n()(key))


def say(text: str, /, **values: object) -> str:
    """Return a text in the language of the visitor, with values for its ``{places}``."""
    return _filled(_words(language()).get(text, text), values)


def retell(sentence: str) -> str:
    """Return a finished English sentence in the language of the visitor; as it is if nothing in the catalog fits it."""
    words = _words(language())
    if sentence in words or not words:
        return words.get(sentence, sentence)
    for pattern, translated in _patterns(language()):
        found = pattern.fullmatch(sentence)
        if found:
            return _filled(translated, found.groupdict())
    return sentence


def language() -> str:
    """Return the language of the visitor whose request is handled; English outside of one."""
    return _LANGUAGE.get()


def catalog() -> gr.I18n:
    """Return all fixed texts of the page for the browser; to be called when the page is laid out."""
    return gr.I18n(**_FILLED)


class Language:
    """ASGI middleware that notes for each request which language its browser asks for first."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the language and pass the request on."""
        if scope["type"] == "http":
            _LANGUAGE.set(choose(Headers(scope=scope).get("accept-language", "")))
        await self.app(scope, receive, send)


def choose(accepted: str) -> str:
    """Return the language to use for an ``Accept-Language`` header: its first choice if there is one, as the browser does; else English."""
    first = accepted.split(",")[0].split(";")[0].strip().lower().split("-")[0]
    return first if first in LANGUAGES else LANGUAGES[0]


@cache
def _words(language: str) -> Mapping[str, str]:
    """Return the catalog of a language by English text; empty for English.

    Raises:
        ValueError: if two files translate a text in different ways.
    """
    words: dict[str, str] = {}
    for file in sorted((FOLDER / language).glob("*.json")):
        for text, translated in json.loads(file.read_text("utf-8")).items():
            if words.setdefault(text, translated) != translated:
                raise ValueError(f"{file.name} translates {text!r} in another way than a file before it.")
    return words


@cache
def _patterns(language: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Return patterns of the texts with places, the longest first, as it fits the least."""
    texts = sorted((text for text in _words(language) if _PLACE.search(text)), key=len, reverse=True)
    return tuple((re.compile(_PLACE.sub(r"(?P<\1>.+?)", _escaped(text)), re.DOTALL), _words(language)[text]) for text in texts)


def _escaped(text: str) -> str:
    """Escape what means something in a pattern, but leave the places."""
    return re.sub(r"[.^$*+?\[\]\\|()]", lambda found: "\\" + found[0], text)


def _filled(text: str, values: Mapping[str, object]) -> str:
    return text.format(**values) if values else text
