"""What contributors agree to: a ladder of steps, each with its text, and the versions of these texts.

Who changes a text puts the old entry of ``TEXTS`` into ``_EARLIER`` as it was and gives ``VERSION`` a new date and hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hsemotion_space.feedback.records import Consent, FeedbackError


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the ladder: ``name`` in records, ``title`` beside the box to tick, ``text`` below it."""

    name: str
    title: str
    text: str


PROCESS: Final = Step(
    "process",
    "Analyze what I add",
    "Needed to use this page. What I add is sent to this server, analyzed, and deleted together with the result soon afterwards. Nothing "
    "of it is kept unless I tick that beside a result.",
)
LABELS: Final = Step(
    "labels",
    "Keep my correction",
    "Kept: what you say about the face, your comment, what the network had said, which network it was, where in the picture the face is, "
    "and the time. Not kept: the picture, the name of the file, your name, your address on the Internet. "
    "The people who run this server can see it; comments are never published. "
    "It stays until you erase it, which you can do at any time under My data with the receipt code that you get.",
)
CROP: Final = Step(
    "crop",
    "Also keep the picture of the face",
    "Kept: a small picture, at most 224 pixels wide, of this face; other faces found in it are painted over, and details that the file "
    "carried, such as place and camera, are left out. You see it below before you send it. It is still personal data and not anonymous: "
    "whoever knows the face can recognize it. The people who run this server can see it. "
    "It stays until you erase it with your receipt code.",
)
PUBLISH: Final = Step(
    "publish",
    "Also publish it for research",
    "The correction, without your comment, becomes part of a dataset on the Hugging Face Hub, and so does the picture of the face if you "
    "ticked that too. Whoever wants the dataset must ask for access and agree to use it for research only. With your receipt code you can "
    "have it erased from the dataset and its history; copies that others have downloaded before cannot be called back.",
)
LADDER: Final = (PROCESS, LABELS, CROP, PUBLISH)
"""From the least to the most; every step but the first is asked for separately, and none is ticked beforehand."""
ASKED: Final = tuple(step.name for step in LADDER if step is not PROCESS)
STATEMENT: Final = "I am 18 or older. I am the person shown, or I have their permission, and they are 18 or older too."


def wording() -> str:
    """Return the present texts as one."""
    return "\n".join([*(f"{step.name}: {step.title}. {step.text}" for step in LADDER), f"Statement: {STATEMENT}"]) + "\n"


def version_hash(text: str) -> str:
    """Return the part of a version that follows from its text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


VERSION: Final = "2026-11-25-c2ee5dda"
"""Day on which the present texts were first used, and their :func:`version_hash`."""
_EARLIER: Final[Mapping[str, str]] = {}
TEXTS: Final[Mapping[str, str]] = {**_EARLIER, VERSION: wording()}
"""All texts that anybody ever agreed to, by version, as they were."""


def read_consent(scopes: object, adult_and_permitted: object) -> Consent:
    """Check what a client says that a person agreed to.

    Args:
        scopes: list of names of steps; ``process`` is not among them, as it is given by using the page.
        adult_and_permitted: whether the person ticked ``STATEMENT``.

    Raises:
        FeedbackError: saying which tick is missing or unknown.
    """
    if not isinstance(scopes, list | tuple) or not all(isinstance(scope, str) and scope in ASKED for scope in scopes):
        raise FeedbackError(f"What may be kept must be a list with some of {', '.join(ASKED)}.")
    if LABELS.name not in scopes:
        raise FeedbackError(f"Without the tick at “{LABELS.title}” nothing can be kept, so there is nothing to send.")
    if adult_and_permitted is not True:
        raise FeedbackError("Please confirm that you are 18 or older, and that you are the person shown or have their permission.")
    return Consent(VERSION, tuple(step for step in ASKED if step in scopes), adult_and_permitted=True)
