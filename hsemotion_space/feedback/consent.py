"""What contributors agree to: a ladder of steps, each with its text, and the versions of these texts.

``consent_texts/VERSION.txt`` has every version word for word. Whoever changes a text or its translation adds
a file and gives the version in ``VERSIONS`` a new date and hash; files that are there are never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from hsemotion_space.feedback.record import FeedbackError

FOLDER: Final = Path(__file__).with_name("consent_texts")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the ladder: ``name`` in records, ``title`` beside the box to tick, ``text`` below it."""

    name: str
    title: str
    text: str


PROCESS: Final = Step(
    "process",
    "Analyze my files",
    (
        "Required to use this page. The server analyzes the files and camera images that I add"
        " and deletes them and their results soon afterwards. Nothing is saved unless I select"
        " it beside a result."
    ),
)
LABELS: Final = Step(
    "labels",
    "Save my correction",
    (
        "Saved: your answer and your comment, the prediction and the network that made it, the"
        " position of the face in the picture, and the time. Not saved: the picture, the file"
        " name, your name, your IP address. The people who run this server can see it; comments"
        " are never published. It stays until you erase it, which you can do at any time under"
        " My data with the receipt code that you get."
    ),
)
CROP: Final = Step(
    "crop",
    "Also save the picture of the face",
    (
        "Saved: a picture of this face, at most 224 pixels wide. Other faces found in it are"
        " painted over, and metadata of the file, such as place and camera, are removed. You see"
        " it below before you send it. It is still personal data and not anonymous: anyone who"
        " knows the face can recognize it. The people who run this server can see it. It stays"
        " until you erase it with your receipt code."
    ),
)
PUBLISH: Final = Step(
    "publish",
    "Also publish it for research",
    (
        "The correction, without your comment, becomes part of a dataset on the Hugging Face"
        " Hub, and so does the picture of the face if you selected that too. Anyone who wants"
        " the dataset must request access and agree to use it for research only. With your"
        " receipt code you can erase your rows from the dataset and its history; copies that"
        " others have already downloaded cannot be recalled."
    ),
)
LADDER: Final = (PROCESS, LABELS, CROP, PUBLISH)
"""From the least to the most; every step but the first is asked for separately, and none is ticked
beforehand."""
SCOPES: Final = tuple(step.name for step in LADDER if step is not PROCESS)
STATEMENT: Final = (
    "I am 18 or older. I am the person shown, or I have their permission, and they are 18 or older too."
)
STATEMENT_BUNDLED: Final = "I am 18 or older."
"""What is stated about faces that come with this program, which need nobody's permission."""


VERSION: Final = "2026-11-28-863c0748"
"""Day on which the present texts were first used, and the start of the SHA-256 of their file."""
VERSIONS: Final[Mapping[str, str]] = {"en": VERSION, "ja": "2026-11-25-dbc0aa1f"}
"""By language: what somebody agrees to is the text that they read."""


@cache
def texts() -> Mapping[str, str]:
    """Return all texts that anybody ever agreed to by version, word for word."""
    return {file.stem: file.read_text("utf-8") for file in sorted(FOLDER.glob("*.txt"))}


def read_consent(
    scopes: object, adult_and_permitted: object, bundled: bool = False, language: str = "en"
) -> tuple[str, tuple[str, ...], str]:
    """Check what a client says that a person agreed to.

    Args:
        scopes: list of names of steps; ``process`` is not among them, as it is given by using the page.
        adult_and_permitted: whether the person ticked ``STATEMENT``, or ``STATEMENT_BUNDLED`` if that is
            enough.
        bundled: whether the face came with this program; no picture of it is kept.
        language: in which the texts were read; one of ``VERSIONS``.

    Returns:
        Version of the text, steps that were ticked, and the name of the statement, as records have them.

    Raises:
        FeedbackError: saying which tick is missing or unknown.
    """
    if not isinstance(scopes, list | tuple) or not all(
        isinstance(scope, str) and scope in SCOPES for scope in scopes
    ):
        raise FeedbackError(
            "The consent scopes must be a list of these names: {names}.",
            code="scopes",
            names=", ".join(SCOPES),
        )
    if LABELS.name not in scopes:
        raise FeedbackError("To send a correction, select “{step}”.", code="no_scope", step=LABELS.title)
    if bundled and CROP.name in scopes:
        raise FeedbackError(
            "Images of example faces are not saved. Clear “{step}”.", code="bundled_crop", step=CROP.title
        )
    if adult_and_permitted is not True:
        if bundled:
            raise FeedbackError("Confirm that you are 18 or older.", code="statement")
        raise FeedbackError(
            "Confirm that you are 18 or older, and that you are the person shown or have their permission.",
            code="statement",
        )
    return (
        VERSIONS[language],
        tuple(step for step in SCOPES if step in scopes),
        "adult" if bundled else "adult_and_permitted",
    )
