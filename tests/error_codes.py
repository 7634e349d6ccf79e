"""Ask errors for their codes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from hsemotion_space.messages import Message, MessageError


@contextmanager
def raises_code(
    kind: type[MessageError], /, *codes: str, **values: object
) -> Iterator[pytest.ExceptionInfo[MessageError]]:
    """Expect an error of a kind with one of some codes, and with these values in its message."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code in codes
    assert {name: str(caught.value.message.values[name]) for name in values} == {
        name: str(value) for name, value in values.items()
    }


def codes(messages: Iterable[str]) -> list[str]:
    """Return the codes of notices."""
    return [message.code for message in messages if isinstance(message, Message)]
