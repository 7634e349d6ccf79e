"""What contributors agree to: a ladder of steps, each with its text, and the versions of these texts.

Who changes a text or its translation puts the old entry of ``TEXTS`` into ``EARLIER`` as it was and gives its version in
``VERSIONS`` a new date and hash.
"""

# ruff: noqa: RUF001  Japanese has punctuation of its own

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hsemotion_space.feedback.record import FeedbackError


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
STATEMENT_BUNDLED: Final = "I am 18 or older."
"""What is stated about faces that come with this program, which need nobody's permission."""

JAPANESE: Final[Mapping[str, tuple[str, ...]]] = {
    "process": (
        "追加したものの解析に同意する",
        (
            "このページの利用に必要です。追加したものはこのサーバーに送られて解析され、"
            "その後まもなく結果とともに削除されます。結果の横で保存にチェックを入れない限り、何も保存されません。"
        ),
    ),
    "labels": (
        "訂正を保存する",
        (
            "保存されるもの：顔についてのあなたの回答、コメント、ネットワークの出力、どのネットワークであったか、"
            "画像内の顔の位置、日時。保存されないもの：画像、ファイル名、あなたの名前、インターネット上のアドレス。"
            "このサーバーの運営者は保存されたものを見ることができます。コメントが公開されることはありません。"
            "あなたが消去するまで保存されます。消去は、発行される受領コードを使って「マイデータ」でいつでも行えます。"
        ),
    ),
    "crop": (
        "顔の画像も保存する",
        (
            "保存されるもの：この顔の小さな画像（幅は最大224ピクセル）。その中に見つかったほかの顔は塗りつぶされ、"
            "撮影場所やカメラなど、ファイルに含まれていた情報は取り除かれます。送信の前に、下に表示して確認できます。"
            "それでも個人データであり、匿名ではありません。その顔を知っている人は、誰であるか見分けることができます。"
            "このサーバーの運営者は見ることができます。受領コードで消去するまで保存されます。"
        ),
    ),
    "publish": (
        "研究のために公開もする",
        (
            "訂正は、コメントを除いて、Hugging Face Hub上のデータセットの一部となります。"
            "顔の画像にもチェックを入れた場合は、その画像も同様です。データセットを入手するには、利用を申請し、"
            "研究目的のみに使うことに同意しなければなりません。受領コードを使えば、"
            "データセットとその履歴から消去させることができます。ただし、"
            "それより前にほかの人がダウンロードしたコピーを取り戻すことはできません。"
        ),
    ),
    "statement": (("私は18歳以上です。映っているのは私本人であるか、または私は映っている本人の許可を得ており、その人も18歳以上です。"),),
    "adult": ("私は18歳以上です。",),
}
"""Title and text of each step by its name, and the statements; the page shows the same, which a test checks."""

EARLIER: Final[Mapping[str, str]] = {
    "2026-11-25-c2ee5dda": (
        "process: Analyze what I add. Needed to use this page. What I add is sent to this server, analyzed, and deleted "
        "together with the result soon afterwards. Nothing of it is kept unless I tick that beside a result.\n"
        "labels: Keep my correction. Kept: what you say about the face, your comment, what the network had said, which network "
        "it was, where in the picture the face is, and the time. Not kept: the picture, the name of the file, your name, your "
        "address on the Internet. The people who run this server can see it; comments are never published. It stays until you "
        "erase it, which you can do at any time under My data with the receipt code that you get.\n"
        "crop: Also keep the picture of the face. Kept: a small picture, at most 224 pixels wide, of this face; other faces "
        "found in it are painted over, and details that the file carried, such as place and camera, are left out. You see it "
        "below before you send it. It is still personal data and not anonymous: whoever knows the face can recognize it. The "
        "people who run this server can see it. It stays until you erase it with your receipt code.\n"
        "publish: Also publish it for research. The correction, without your comment, becomes part of a dataset on the Hugging "
        "Face Hub, and so does the picture of the face if you ticked that too. Whoever wants the dataset must ask for access "
        "and agree to use it for research only. With your receipt code you can have it erased from the dataset and its "
        "history; copies that others have downloaded before cannot be called back.\n"
        "Statement: I am 18 or older. I am the person shown, or I have their permission, and they are 18 or older too.\n"
    ),
}
"""Texts by their version, as they were."""


def wording(language: str = "en") -> str:
    """Return the present texts as one, in a language of ``VERSIONS``."""
    english = {**{step.name: (step.title, step.text) for step in LADDER}, "statement": (STATEMENT,), "adult": (STATEMENT_BUNDLED,)}
    words = JAPANESE if language == "ja" else english
    steps = [f"{name}: {title}. {text}" for name, (title, text) in ((step.name, words[step.name]) for step in LADDER)]
    return "\n".join([*steps, f"Statement: {words['statement'][0]}", f"Statement on bundled faces: {words['adult'][0]}"]) + "\n"


def version_hash(text: str) -> str:
    """Return the part of a version that follows from its text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


VERSION: Final = "2026-11-25-5efcdb90"
"""Day on which the present texts were first used, and their :func:`version_hash`."""
VERSIONS: Final[Mapping[str, str]] = {"en": VERSION, "ja": "2026-11-25-dbc0aa1f"}
"""By language: what somebody agrees to is the text that they read."""
TEXTS: Final[Mapping[str, str]] = {**EARLIER, **{version: wording(language) for language, version in VERSIONS.items()}}
"""All texts that anybody ever agreed to, by version, as they were."""


def read_consent(
    scopes: object, adult_and_permitted: object, bundled: bool = False, language: str = "en"
) -> tuple[str, tuple[str, ...], str]:
    """Check what a client says that a person agreed to.

    Args:
        scopes: list of names of steps; ``process`` is not among them, as it is given by using the page.
        adult_and_permitted: whether the person ticked ``STATEMENT``, or ``STATEMENT_BUNDLED`` if that is enough.
        bundled: whether the face came with this program; no picture of it is kept.
        language: in which the texts were read; one of ``VERSIONS``.

    Returns:
        Version of the text, steps that were ticked, and the name of the statement, as records have them.

    Raises:
        FeedbackError: saying which tick is missing or unknown.
    """
    if not isinstance(scopes, list | tuple) or not all(isinstance(scope, str) and scope in ASKED for scope in scopes):
        raise FeedbackError("The consent scopes must be a list of these names: {names}.", code="scopes", names=", ".join(ASKED))
    if LABELS.name not in scopes:
        raise FeedbackError("To send a correction, select “{step}”.", code="no_scope", step=LABELS.title)
    if bundled and CROP.name in scopes:
        raise FeedbackError("Images of example faces are not saved. Clear “{step}”.", code="bundled_crop", step=CROP.title)
    if adult_and_permitted is not True:
        if bundled:
            raise FeedbackError("Confirm that you are 18 or older.", code="statement")
        raise FeedbackError(
            "Confirm that you are 18 or older, and that you are the person shown or have their permission.", code="statement"
        )
    return VERSIONS[language], tuple(step for step in ASKED if step in scopes), "adult" if bundled else "adult_and_permitted"
