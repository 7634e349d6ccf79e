"""What the page says, in the language of the visitor.

English is in the code, and every English text is its own key; ``ja/*.json`` hold the Japanese ones, and
``ja/*.md`` whole pages, part by part. Three ways lead there:

- :func:`gettext_lazy` for texts of components, which are laid out once for everybody: the browser puts in its
  language (``gr.I18n``);
- :func:`gettext` for what a handler answers, in the language that the browser of this request asks for;
- :func:`translate` for messages and errors of the layers below, which know no language.

Scripts of the page get the Japanese of their texts from :func:`script_texts` with what they show.

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

from hsemotion_space.messages import Message, MessageError

LANGUAGES: Final = ("en", "ja")
FOLDER: Final = Path(__file__).parent
_LANGUAGE: ContextVar[str] = ContextVar("language", default=LANGUAGES[0])
# fixed texts with their values, by language
_FILLED: Final[dict[str, dict[str, str]]] = {language: {} for language in LANGUAGES}


def gettext_lazy(text: str, **values: object) -> str:
    """Return what a component shows for a text: a marker that the browser replaces.

    Args:
        text: English, whole: a string can hold one marker only.
        values: for its ``{places}``; those that are texts of the catalog are translated too.

    Raises:
        ValueError: if braces would be left in the text, at which the browser would cut the marker.
    """
    key = text.format(**values) if values else text
    if "{" in key or "}" in key:
        raise ValueError(f"Braces cannot be shown: {key!r}.")
    for language in LANGUAGES:
        translations = _translations(language)
        _FILLED[language][key] = _filled(
            translations.get(text, text),
            {name: translations.get(str(value), value) for name, value in values.items()},
        )
    return str(gr.I18n()(key))


def gettext(text: str, /, **values: object) -> str:
    """Return a text in the language of the visitor, with values for its ``{places}``."""
    return _filled(_translations(language()).get(text, text), values)


def translate(message: str | MessageError) -> str:
    """Return a message or an error's message in the visitor's language; unknown text stays unchanged."""
    text = message.message if isinstance(message, MessageError) else message
    template = text.template if isinstance(text, Message) else text
    translated = _translations(language()).get(template, template)
    if not isinstance(text, Message) or not text.values:
        return translated
    values = {
        name: translate(value) if isinstance(value, str | MessageError) else value
        for name, value in text.values.items()
    }
    return _filled(translated, values).replace("。 ", "。")  # sentences that were joined


def script_texts(name: str) -> Mapping[str, str]:
    """Return one file's texts in the visitor's language by their English, for a script; empty for English."""
    return _file(FOLDER / language() / f"{name}.json")


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
    """Return the language for an ``Accept-Language`` header: its first choice if supported, else English."""
    first = re.split("[,;-]", accepted, maxsplit=1)[0].strip().lower()
    return first if first in LANGUAGES else LANGUAGES[0]


@cache
def _translations(language: str) -> Mapping[str, str]:
    """Return the catalog of a language by English text; empty for English.

    Raises:
        ValueError: if two files translate a text in different ways.
    """
    translations: dict[str, str] = {}
    for file in sorted((FOLDER / language).glob("*.*")):
        for text, translated in _file(file).items():
            if translations.setdefault(text, translated) != translated:
                raise ValueError(f"{file.name} translates {text!r} in another way than a file before it.")
    return translations


@cache
def _file(file: Path) -> Mapping[str, str]:
    """Return the texts of a file of a language by the English ones; empty if there is no such file."""
    if file.suffix == ".md":
        return dict(zip(split_page(FOLDER.parent / file.name), split_page(file), strict=True))
    found: dict[str, str] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return found


def split_page(page: Path) -> list[str]:
    """Return the parts of a page in Markdown, which comments divide."""
    return re.split(r"\s*<!--.*?-->\s*", page.read_text("utf-8"))


def _filled(text: str, values: Mapping[str, object]) -> str:
    return text.format(**values) if values else text
