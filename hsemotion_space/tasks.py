"""The five tasks and their labels: what is true whatever the model. Everything else reads them from here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["one_of", "continuous", "independent"]
Scope = Literal["frame", "clip"]


@dataclass(frozen=True, slots=True)
class Label:
    """One class, dimension or unit of a task.

    Attributes:
        name: the public name, unique inside its task.
        short: a name of at most twelve characters for axes and boxes.
        color: ``#rrggbb``; distinguishable under the common forms of color blindness together with the
            label's position.
        description: one sentence for a reader who is new to the term.
        parts: for compound expressions the two expression names it is made of; empty otherwise.
        norm: valence and arousal of the word in -1..1; empty if no prior needs it.
    """

    name: str
    short: str
    color: str
    description: str
    parts: tuple[str, ...] = ()
    norm: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """What one task predicts.

    Attributes:
        name: identifier, also used in exports and manifests.
        title: the name shown to a reader.
        labels: in the public order; column ``k`` of every value array is ``labels[k]``.
        kind: ``one_of`` (probabilities that sum to one), ``continuous`` or ``independent`` (each label for
            itself).
        scope: ``frame`` (a value per frame) or ``clip`` (one value per face and clip).
        low, high: bounds of every value.
        metric: the official measure of the ABAW challenge.
        smoothing_s: half width in seconds of the smoothing window in the challenge, 0 for none.
        version: changes whenever labels or their order change.
        citation: where the definition comes from.
        none: what is said in place of a label whose parts another task does not support; empty where labels
            have no parts.
    """

    name: str
    title: str
    labels: tuple[Label, ...]
    kind: Kind
    scope: Scope
    low: float
    high: float
    metric: str
    smoothing_s: float
    version: int
    citation: str
    none: str = ""

    def __post_init__(self) -> None:
        names = self.label_names
        if not names or len(set(names)) != len(names):
            raise ValueError(f"Task {self.name!r} needs unique label names, got {names}.")
        if self.low >= self.high:
            raise ValueError(f"Task {self.name!r} needs low < high, got {self.low} and {self.high}.")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names in the public order."""
        return tuple(label.name for label in self.labels)

    def index(self, name: str) -> int:
        """Return the column of a label.

        Raises:
            ValueError: if the task has no such label.
        """
        names = self.label_names
        if name not in names:
            raise ValueError(f"{self.title} has no label {name!r}; it has {', '.join(names)}.")
        return names.index(name)

    def subset(self, names: Sequence[str]) -> Task:
        """Return the task with only these labels, in this order: seven-class and reordered checkpoints.

        Raises:
            ValueError: if a name is unknown or given twice.
        """
        return replace(self, labels=tuple(self.labels[self.index(name)] for name in names))


def _labels(rows: Iterable[tuple[str, str, str, str]]) -> tuple[Label, ...]:
    return tuple(Label(name, short, color, description) for name, short, color, description in rows)


EXPRESSION = Task(
    name="expression",
    title="Expression",
    labels=_labels(
        [
            ("Anger", "Anger", "#d55e00", "Lowered brows, hard stare, pressed or squared lips."),
            ("Contempt", "Contempt", "#8c6d31", "One lip corner tightened and raised."),
            ("Disgust", "Disgust", "#5f8a00", "Wrinkled nose, raised upper lip."),
            ("Fear", "Fear", "#7b4fa3", "Brows raised and drawn together, wide eyes, stretched lips."),
            ("Happiness", "Happiness", "#e0a800", "Raised lip corners and cheeks."),
            ("Neutral", "Neutral", "#7f7f7f", "No visible expression."),
            ("Sadness", "Sadness", "#0072b2", "Inner brows raised, lip corners lowered."),
            ("Surprise", "Surprise", "#009e9e", "Raised brows, wide eyes, dropped jaw."),
        ]
    ),
    kind="one_of",
    scope="frame",
    low=0.0,
    high=1.0,
    metric="macro F1, accuracy",
    smoothing_s=1.67,
    version=1,
    citation="AffectNet (Mollahosseini et al., 2017); alphabetical order as in HSEmotion",
)

VALENCE_AROUSAL = Task(
    name="valence_arousal",
    title="Valence and arousal",
    labels=_labels(
        [
            ("Valence", "Valence", "#0072b2", "How unpleasant (-1) to pleasant (1) the face looks."),
            ("Arousal", "Arousal", "#d55e00", "How calm (-1) to excited (1) the face looks."),
        ]
    ),
    kind="continuous",
    scope="frame",
    low=-1.0,
    high=1.0,
    metric="CCC, P_VA",
    smoothing_s=1.67,
    version=1,
    citation="Circumplex model of affect (Russell, 1980)",
)

ACTION_UNITS = Task(
    name="action_units",
    title="Action units",
    labels=_labels(
        [
            ("AU1", "AU1", "#0072b2", "Inner brow raiser."),
            ("AU2", "AU2", "#3a92c4", "Outer brow raiser."),
            ("AU4", "AU4", "#7b4fa3", "Brow lowerer."),
            ("AU6", "AU6", "#e0a800", "Cheek raiser."),
            ("AU7", "AU7", "#b58900", "Lid tightener."),
            ("AU10", "AU10", "#5f8a00", "Upper lip raiser."),
            ("AU12", "AU12", "#009e73", "Lip corner puller."),
            ("AU15", "AU15", "#00695c", "Lip corner depressor."),
            ("AU23", "AU23", "#d55e00", "Lip tightener."),
            ("AU24", "AU24", "#a63603", "Lip pressor."),
            ("AU25", "AU25", "#cc79a7", "Lips part."),
            ("AU26", "AU26", "#8c4a6e", "Jaw drop."),
        ]
    ),
    kind="independent",
    scope="frame",
    low=0.0,
    high=1.0,
    metric="mean F1",
    smoothing_s=0.17,
    version=1,
    citation="Facial Action Coding System (Ekman and Friesen, 1978); the twelve units of Aff-Wild2",
)


def _compound(rows: Iterable[tuple[str, str, str, tuple[str, str]]]) -> tuple[Label, ...]:
    return tuple(
        Label(name, short, color, f"Signs of {first.lower()} and {second.lower()} together.", (first, second))
        for name, short, color, (first, second) in rows
    )


COMPOUND_EXPRESSION = Task(
    name="compound_expression",
    title="Compound expression",
    labels=_compound(
        [
            ("Fearfully surprised", "Fear+Surp", "#7b4fa3", ("Fear", "Surprise")),
            ("Happily surprised", "Happy+Surp", "#e0a800", ("Happiness", "Surprise")),
            ("Sadly surprised", "Sad+Surp", "#0072b2", ("Sadness", "Surprise")),
            ("Disgustedly surprised", "Disg+Surp", "#5f8a00", ("Disgust", "Surprise")),
            ("Angrily surprised", "Angry+Surp", "#d55e00", ("Anger", "Surprise")),
            ("Sadly fearful", "Sad+Fear", "#56b4e9", ("Sadness", "Fear")),
            ("Sadly angry", "Sad+Angry", "#a63603", ("Sadness", "Anger")),
        ]
    ),
    kind="one_of",
    scope="frame",
    low=0.0,
    high=1.0,
    metric="macro F1",
    smoothing_s=0.33,
    version=1,
    citation="C-EXPR-DB (Kollias, 2023); order of the 6th ABAW challenge",
    none="none of the seven stands out",
)

WORD_NORMS: dict[str, tuple[float, float]] = {
    "admiration": (0.969, 0.583), "amusement": (0.929, 0.837), "determination": (0.776, 0.725),
    "empathy": (0.729, 0.349),
    "pain": (0.012, 0.765), "excitement": (0.896, 0.684), "joy": (0.980, 0.824),
}  # fmt: skip
"""Valence and arousal of words in 0..1, from the NRC Valence, Arousal, Dominance Lexicon, version 1
(Mohammad, 2018)."""


def _norm(*words: str) -> tuple[float, float]:
    """Return the mean norm of some words, scaled to -1..1."""
    return (
        2 * sum(WORD_NORMS[word][0] for word in words) / len(words) - 1,
        2 * sum(WORD_NORMS[word][1] for word in words) / len(words) - 1,
    )


def _intensities(rows: Iterable[tuple[str, str, str, tuple[str, ...]]]) -> tuple[Label, ...]:
    return tuple(
        Label(
            name, short, color, f"How strongly {name.lower()} is mimicked over the clip.", (), _norm(*words)
        )
        for name, short, color, words in rows
    )


MIMICRY_INTENSITY = Task(
    name="mimicry_intensity",
    title="Emotional mimicry intensity",
    labels=_intensities(
        [
            ("Admiration", "Admiration", "#0072b2", ("admiration",)),
            ("Amusement", "Amusement", "#e0a800", ("amusement",)),
            ("Determination", "Determin.", "#d55e00", ("determination",)),
            ("Empathic Pain", "Emp. pain", "#7b4fa3", ("empathy", "pain")),
            ("Excitement", "Excitement", "#cc79a7", ("excitement",)),
            ("Joy", "Joy", "#009e73", ("joy",)),
        ]
    ),
    kind="independent",
    scope="clip",
    low=0.0,
    high=1.0,
    metric="mean Pearson r",
    smoothing_s=0.0,
    version=1,
    citation="Hume-Vidmimic2, emotional mimicry challenge of the 6th ABAW competition (2024)",
)

TASKS: tuple[Task, ...] = (EXPRESSION, VALENCE_AROUSAL, ACTION_UNITS, COMPOUND_EXPRESSION, MIMICRY_INTENSITY)

OTHER = Label("Other", "Other", "#555555", "An expression that is none of the others.")

AFF_WILD2_EXPRESSION = replace(
    EXPRESSION,
    labels=(
        *EXPRESSION.subset(
            ["Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise"]
        ).labels,
        OTHER,
    ),
    citation="Aff-Wild2 (Kollias and Zafeiriou, 2019); order of its files",
)
"""The expression task as the Aff-Wild2 files have it: in their order, without Contempt, with Other."""

CHALLENGE: tuple[Task, ...] = (
    VALENCE_AROUSAL,
    AFF_WILD2_EXPRESSION,
    ACTION_UNITS,
    COMPOUND_EXPRESSION,
    MIMICRY_INTENSITY,
)
"""The five tasks of the 6th ABAW competition with the labels of their files."""


def get_task(name: str) -> Task:
    """Return a task by its name.

    Raises:
        ValueError: if there is no such task.
    """
    for task in TASKS:
        if task.name == name:
            return task
    raise ValueError(f"There is no task {name!r}; the tasks are {', '.join(task.name for task in TASKS)}.")
