"""What speaks against a detection being a face at all: the detector, and the network that looks at it.

Nothing runs for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from hsemotion_space.messages import Message
from hsemotion_space.types import FaceResult

LEAST_SCORE: Final = 0.99
"""Of the detector. Measured: below it, answers are right less often."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A reason to doubt that a detection is a face: a sentence, the measured value and its bound."""

    text: Message
    value: float
    threshold: float


def doubt(face: FaceResult) -> Doubt | None:
    """Return why a detection may be no face, by the median over its frames; None without a reason.

    The detector is asked first, then the length of the embedding: networks that have learned to tell faces
    apart give short ones to what is none (compare Meng et al., "MagFace", CVPR 2021).
    """
    score = float(np.median(face.track.detection_scores))
    if score < LEAST_SCORE:
        text = (
            "The detector's confidence in this face is {score:.3f} (below {limit:.3f}); check that it is a"
            " face."
        )
        return Doubt(Message(text, score=score, limit=LEAST_SCORE), score, LEAST_SCORE)
    length = float(np.median(np.linalg.norm(face.track.embeddings, axis=1)))
    if length < face.least_length:
        text = (
            "The network hardly recognizes a face: the embedding length is {length:.4g} (below {limit:.4g});"
            " check that it is one."
        )
        return Doubt(Message(text, length=length, limit=face.least_length), length, face.least_length)
    return None
