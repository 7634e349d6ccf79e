"""Tickets: proof that a prediction was made by this server, and lately."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
from dataclasses import astuple, dataclass
from typing import Final

from hsemotion_space.feedback.keys import Keys
from hsemotion_space.feedback.records import FeedbackError

LIFETIME_S: Final = 30 * 60
SKEW_S: Final = 5 * 60
"""So far in the future a ticket may have been issued: clocks of several replicas differ, and clocks are set back."""
LONGEST: Final = 2000
_MAC_LENGTH: Final = 64
DAMAGED: Final = "The ticket of this result is damaged or was not made here. Please analyze the picture or clip again."
EXPIRED: Final = "This result is too old to be corrected. Please analyze the picture or clip again."
AHEAD: Final = "The clock of this server was changed. Please analyze the picture or clip again."


@dataclass(frozen=True, slots=True)
class Reference:
    """What a ticket is for.

    Attributes:
        media: keyed hash of the digest of the media.
        kind: ``image`` or ``clip``.
        face: number of the track, from 1.
        checkpoint: id.
        preprocessing: digest of how the face was found and prepared.
        prediction: ``Predicted.digest``, which covers the digests of the weights, the preprocessing and all values.
    """

    media: str
    kind: str
    face: int
    checkpoint: str
    preprocessing: str
    prediction: str


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket that was verified: what it is for, a random text that no other ticket has, and when it was issued (UTC, s since 1970)."""

    reference: Reference
    nonce: str
    issued_s: int

    @property
    def expires_s(self) -> int:
        """The last second in which it is accepted."""
        return self.issued_s + LIFETIME_S


def issue(keys: Keys, reference: Reference, now_s: float) -> str:
    """Return a ticket as text of letters, digits, ``-``, ``_`` and one dot."""
    payload = json.dumps([*astuple(reference), secrets.token_hex(16), int(now_s)], separators=(",", ":"))
    encoded = base64.urlsafe_b64encode(payload.encode()).decode().rstrip("=")
    return f"{encoded}.{keys.sign('ticket', encoded)}"


def verify(keys: Keys, text: object, now_s: float) -> Ticket:
    """Check a ticket that a client sent.

    Raises:
        FeedbackError: if it is damaged, was not made here, or is too old.
    """
    if not isinstance(text, str) or not text.isascii() or len(text) > LONGEST:
        raise FeedbackError(DAMAGED)
    encoded, _, mac = text.partition(".")
    if len(mac) != _MAC_LENGTH or not hmac.compare_digest(keys.sign("ticket", encoded), mac):
        raise FeedbackError(DAMAGED)
    try:
        *reference, nonce, issued_s = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        ticket = Ticket(Reference(*reference), nonce, issued_s)
    except (binascii.Error, ValueError, TypeError) as error:  # a ticket of an older version of this program
        raise FeedbackError(DAMAGED) from error
    if now_s > ticket.expires_s:
        raise FeedbackError(EXPIRED)
    if ticket.issued_s > now_s + SKEW_S:
        raise FeedbackError(AHEAD)
    return ticket
