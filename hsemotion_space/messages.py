"""Sentences for people, and the base of every error that a user may read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self


class Message(str):
    """An English sentence that remembers its template and values, so that it can be translated.

    It behaves as the finished English text everywhere. A value may itself be a message.

    Args:
        template: English text with ``{name}`` for each value; the key of the translation catalog.
        code: identifies the sentence in tests and logs; empty where nothing asks for it.
        values: fill the places of the template; a format specification may follow a name, as in
            ``{share:.0%}``.

    Raises:
        KeyError: if the template names a value that is missing.

    Example:
        >>> Message("The picture has {count} pixels.", count=12)
        'The picture has 12 pixels.'
    """

    __slots__ = ("code", "template", "values")
    template: str
    code: str
    values: Mapping[str, object]

    def __new__(cls, template: str, /, *, code: str = "", **values: object) -> Self:
        """Fill the template and remember it."""
        message = super().__new__(cls, template.format(**values) if values else template)
        message.template, message.code, message.values = template, code, values
        return message

    def __reduce__(self) -> tuple[object, ...]:
        return _message, (self.template, self.code, dict(self.values))

    @classmethod
    def joined(cls, sentences: Iterable[str]) -> Self:
        """Return several sentences as one message, each of which is translated by itself."""
        parts = {f"sentence_{number}": sentence for number, sentence in enumerate(sentences)}
        return cls(" ".join(f"{{{name}}}" for name in parts), **parts)


def _message(template: str, code: str, values: Mapping[str, object]) -> Message:
    return Message(template, code=code, **values)


class MessageError(Exception):
    """An error whose message a user may read; each boundary derives its own class.

    Args:
        template: English text with ``{name}`` for each value, or a finished message.
        code: identifies the fault; tests ask for it instead of the prose.
        values: fill the places of the template.
    """

    def __init__(self, template: str, /, *, code: str = "", **values: object) -> None:
        if isinstance(template, Message) and not values:
            self.message = template
        else:
            self.message = Message(template, code=code, **values)
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """Return the code of the message."""
        return self.message.code
