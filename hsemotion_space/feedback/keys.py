"""The keys of this server, all made from one secret, and the receipt codes of contributors."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hsemotion_space.feedback.limits import network_of
from hsemotion_space.feedback.private import FILE_MODE, make_folder, sync, tighten
from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.settings import ENV_PREFIX, Settings

SECRET_BYTES: Final = 32
SHORTEST_SECRET: Final = 16  # characters, of one that the operator chose
SECRET_FILE: Final = "secret"  # noqa: S105  the name of a file
HASH_LENGTH: Final = 32  # hexadecimal digits

CODE_BITS: Final = 128
CODE_SYMBOLS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CHECK_SYMBOLS: Final = CODE_SYMBOLS + "*~$=U"
CODE_LENGTH: Final = 27  # 26 symbols and one that checks them
CODE_GROUP: Final = 4
MISTYPED: Final = "The receipt code has a typing error. Compare it with the code that you received."
_LOOKS_LIKE: Final = str.maketrans("OIL", "011")
_LONGEST_INPUT: Final = 100


@dataclass(frozen=True, slots=True)
class Keys:
    """Keyed hashes for one purpose each; none of them can be turned back without the secret.

    Attributes:
        secret: of this server. Who loses it can no longer find what belongs to a receipt code.
    """

    secret: bytes = field(repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Keys:
        """Take the secret from the settings, or the random one in ``feedback_data``, created if absent.

        Raises:
            FeedbackError: if the secret is too short, or its file is damaged or cannot be written.
        """
        if not settings.feedback_secret:
            return cls(_read_or_create_secret(settings.feedback_data))
        if len(settings.feedback_secret) < SHORTEST_SECRET:
            raise FeedbackError(
                "{name} must have at least {count} characters; 40 random characters are recommended.",
                code="secret_short", name=f"{ENV_PREFIX}FEEDBACK_SECRET", count=SHORTEST_SECRET,
            )  # fmt: skip
        return cls(settings.feedback_secret.encode())

    def sign(self, purpose: str, text: str) -> str:
        """Return HMAC-SHA256 of a text under the key of one purpose; 64 hexadecimal digits."""
        key = hmac.digest(self.secret, purpose.encode(), "sha256")
        return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def contributor(self, code: str) -> str:
        """Return the pseudonym that stands for a receipt code, here and in the published dataset.

        Raises:
            FeedbackError: if the code is mistyped.
        """
        return self.pseudonym(self.owner(code))

    def owner(self, code: str) -> str:
        """Return the inner hash of a receipt code, from which pseudonym and ids of records follow.

        Raises:
            FeedbackError: if the code is mistyped.
        """
        return self.sign("contributor", read_code(code))[:HASH_LENGTH]

    def media(self, sha256: str) -> str:
        """Return what stands for a file in the store, so that nobody can look up a file that they have."""
        return self.sign("media", sha256)[:HASH_LENGTH]

    def pseudonym(self, owner: str) -> str:
        """Return the pseudonym of a receipt's owner; databases of the first two versions store the owner."""
        return self.sign("published", owner)[:HASH_LENGTH]

    def client(self, address: str, day: int) -> str:
        """Return what stands for the network of an address on one day."""
        return self.sign("client", f"{day} {network_of(address)}")[:HASH_LENGTH]

    def code(self, nonce: str) -> str:
        """Return the receipt code of a random text, always the same: a double click makes one contributor."""
        return _write_code(int(self.sign("code", nonce)[: CODE_BITS // 4], 16))


def read_code(code: str) -> str:
    """Return a receipt code in canonical form, whatever case, spaces or look-alikes (O 0, I L 1) it has.

    Raises:
        FeedbackError: if it is mistyped.
    """
    symbols = re.sub(r"[\s-]", "", code[:_LONGEST_INPUT]).upper().translate(_LOOKS_LIKE)
    body, check = symbols[:-1], symbols[-1:]
    if len(symbols) != CODE_LENGTH or not set(body) <= set(CODE_SYMBOLS) or check not in CHECK_SYMBOLS:
        raise FeedbackError(MISTYPED, code="mistyped")
    number = 0
    for symbol in body:
        number = number * len(CODE_SYMBOLS) + CODE_SYMBOLS.index(symbol)
    if number >= 2**CODE_BITS or CHECK_SYMBOLS[number % len(CHECK_SYMBOLS)] != check:
        raise FeedbackError(MISTYPED, code="mistyped")
    return _write_code(number)


def _write_code(number: int) -> str:
    """Write 128 bits in Crockford's base 32 with its check symbol (the number modulo 37), in groups."""
    body = "".join(CODE_SYMBOLS[number >> 5 * place & 31] for place in reversed(range(CODE_LENGTH - 1)))
    symbols = body + CHECK_SYMBOLS[number % len(CHECK_SYMBOLS)]
    return "-".join(symbols[start : start + CODE_GROUP] for start in range(0, CODE_LENGTH, CODE_GROUP))


def _read_or_create_secret(folder: Path) -> bytes:
    """Return the secret in a folder; of processes that create it at the same time, one wins."""
    file = folder / SECRET_FILE
    try:
        if not file.exists():
            make_folder(folder)
            _make_secret(file)
        tighten(folder, [SECRET_FILE])
        secret = bytes.fromhex(file.read_text("ascii"))
    except OSError as error:
        raise FeedbackError(
            "The secret of this server cannot be read or written: {reason}.",
            code="secret_file",
            reason=error.strerror or str(error),
        ) from error
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise FeedbackError(
            "The file {name} with the secret of this server is damaged. Restore it from a backup.",
            code="secret_damaged",
            name=SECRET_FILE,
        )
    return secret


def _make_secret(file: Path) -> None:
    partial = file.with_name(f"{file.name}.{secrets.token_hex(8)}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "w") as out:
            out.write(secrets.token_hex(SECRET_BYTES) + "\n")
            out.flush()
            os.fsync(out.fileno())
        with suppress(FileExistsError):
            os.link(partial, file)  # never overwrites
    finally:
        partial.unlink(missing_ok=True)
    sync(file.parent)
