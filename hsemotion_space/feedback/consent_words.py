"""The texts of the consent in Japanese, and those that were used before; who changes one reads ``consent`` first."""

# ruff: noqa: RUF001  Japanese has punctuation of its own

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

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
