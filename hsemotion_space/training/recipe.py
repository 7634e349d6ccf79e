"""Training recipes: everything that decides a run besides the data, read from ``recipe.toml`` and checked."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Literal, TypeVar, get_args, get_type_hints

from hsemotion_space.training.augment import Augmentation, ChannelValue
from hsemotion_space.training.files import DataError, located, reading
from hsemotion_space.training.formats.feedback import DEFAULT_TIERS
from hsemotion_space.training.pictures import Crop

Format = Literal["parquet", "affectnet-csv", "affectnet-2021", "folder", "feedback"]
Table = TypeVar("Table")


@dataclass(frozen=True, slots=True)
class Source:
    """One dataset of the mix.

    Attributes:
        files: globs below the data folder, of Parquet files (``parquet``), of tables (``affectnet-csv``; one
            with ``validation`` in its name is the test), or of folders with everything in them
            (``affectnet-2021``, ``folder``, ``feedback``).
        share: its part of every batch.
        tuning: share of its rows (of its subjects) that choices are made on.
        train_on_tuning: whether those rows are trained on as well, so that no choice made on them can be
            trusted.
        crop: how the box of a face is cut out, see :data:`~hsemotion_space.training.pictures.Crop`.
        images: folder below the data folder that the paths in an AffectNet table start from; the table's own
            if empty.
        tiers: which rows of ``feedback`` count.
        unlabeled: whether rows without a label are trained on as well; the teacher's values are their
            targets.
    """

    name: str
    files: tuple[str, ...]
    share: float
    tuning: float = 0.05
    train_on_tuning: bool = False
    format: Format = "parquet"
    crop: Crop = "square"
    images: str = ""
    tiers: tuple[str, ...] = DEFAULT_TIERS
    unlabeled: bool = False


@dataclass(frozen=True, slots=True)
class Teaching:
    """How soft labels of other networks enter the objective (knowledge distillation; Hinton et al., 2015).

    Attributes:
        file: soft labels from ``learn teach``, below the data folder or absolute.
        weight: share of the teacher in the expression targets of labeled rows; rows without a label have the
            teacher's alone.
        weights: the same for single sources, by name.
        temperature: softens the teacher's probabilities p to p ** (1 / temperature), scaled to sum to one.
        embedding_weight: of the term that draws a linear map of the embedding toward the teacher's; 0 leaves
            it out.
    """

    file: str
    weight: float = 0.5
    weights: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    embedding_weight: float = 0.0

    def weight_of(self, source: str) -> float:
        """Return the share of the teacher in the targets of a source."""
        return self.weights.get(source, self.weight)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a training run besides the data; read from ``recipe.toml``."""

    arch: str
    size: int
    sources: tuple[Source, ...]
    args: Mapping[str, float] = field(default_factory=dict)  # options of the architecture
    init: str = ""  # weights to start from, below the data folder or absolute; random weights if empty
    votes: str = ""  # csv that maps expression votes to valence and arousal, below the data folder
    mean: ChannelValue = 0.5
    std: ChannelValue = 0.5
    steps: int = 10_000  # of these `head_steps` come first
    steps_per_epoch: int = 500
    batch: int = 64
    optimizer: Literal["adamw", "sam"] = "adamw"
    rho: float = 0.05  # radius of SAM
    head_steps: int = 0  # steps at the start that train only the classifier
    head_lr: float = 1e-3
    # after the head: rise, hold and fall, or `peak_lr` throughout
    schedule: Literal["wsd", "constant"] = "wsd"
    peak_lr: float = 2e-3
    warmup: float = 0.03  # share of the steps after the head
    decay: float = 0.4  # share of the same steps at the end, linear to zero
    weight_decay: float = 0.05  # `read_recipe` takes 0 for SAM, as in the paper, unless the file has the key
    class_weight_power: float = (
        0.5  # lower for soft labels: every class of a target is weighted (docs/lab-log.md)
    )
    label_smoothing: float = 0.1
    ema: float = 0.998  # 0 keeps the weights themselves
    choose: Literal["last", "best"] = "last"  # the last epoch, or the most accurate one on the tuning split
    seed: int = 0
    compile: bool = True
    bfloat16: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)
    teaching: Teaching | None = None

    def __post_init__(self) -> None:
        if not self.sources or len({source.name for source in self.sources}) < len(self.sources):
            raise DataError("sources must be one or more, each with a name of its own.", code="sources")
        if self.choose == "best" and any(source.train_on_tuning for source in self.sources):
            raise DataError(
                "choose = 'best' needs tuning rows without training on them; remove train_on_tuning.",
                code="choose",
            )
        if self.teaching is None and any(source.unlabeled for source in self.sources):
            raise DataError("unlabeled rows need a teacher; add a table [teaching].", code="no_teacher")
        if self.teaching and (
            unknown := sorted(self.teaching.weights.keys() - {source.name for source in self.sources})
        ):
            raise DataError(
                "the key weights of teaching names {name}, which is no source.",
                code="weights",
                name=unknown[0],
            )
        if self.head_steps >= self.steps:
            raise DataError(
                "head_steps is {head}; it must be below steps, {steps}.",
                code="head_steps",
                head=self.head_steps,
                steps=self.steps,
            )

    def lr(self, step: int) -> float:
        """Return the learning rate of a step: head phase, then warm-up, plateau, decay, or a constant."""
        if step < self.head_steps:
            return self.head_lr
        if self.schedule == "constant":
            return self.peak_lr
        step, steps = step - self.head_steps, self.steps - self.head_steps
        rise, fall = max(1, round(self.warmup * steps)), max(1, round(self.decay * steps))
        return self.peak_lr * min(1.0, (step + 1) / rise, max(0, steps - step) / fall)


RANGES = {
    "size": (8, 4096), "steps": (1, math.inf), "steps_per_epoch": (1, math.inf), "batch": (1, math.inf),
    "rho": (0, math.inf),
    "head_steps": (0, math.inf), "head_lr": (0, math.inf), "peak_lr": (0, math.inf), "warmup": (0, 1),
    "decay": (0, 1),
    "weight_decay": (0, math.inf), "label_smoothing": (0, 1), "ema": (0, 1), "seed": (0, math.inf),
    "share": (0, math.inf),
    "tuning": (0, 1), "std": (1e-6, math.inf), "weight": (0, 1), "weights": (0, 1),
    "temperature": (0.01, 100),
    "embedding_weight": (0, math.inf),
}  # fmt: skip
KINDS: Mapping[object, str] = {
    float: "a number", int: "a whole number", bool: "true or false", str: "a text",
    tuple[str, ...]: "a list of texts",
    Mapping[str, float]: "a table of numbers", ChannelValue: "a number or a list of three",
}  # fmt: skip
# of a recipe, besides [[sources]]
TABLES: Mapping[str, type] = {"augmentation": Augmentation, "teaching": Teaching}


def read_recipe(file: Path) -> Recipe:
    """Read and check a recipe."""
    with reading(file, "recipe"):
        table = tomllib.loads(file.read_text("utf-8"))
    with located(file):
        if table.get("optimizer") == "sam":
            table.setdefault("weight_decay", 0.0)
        rows = table.get("sources", ())
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(
                "the key sources is missing; every dataset of the mix needs a table [[sources]].",
                code="sources",
            )
        table["sources"] = tuple(
            _checked(Source, row, f" of source {number}") for number, row in enumerate(rows, 1)
        )
        for name, kind in TABLES.items():
            if name in table:
                if not isinstance(table[name], dict):
                    raise DataError("{name} must be a table.", code="table", name=name)
                table[name] = _checked(kind, table[name], f" of {name}")
        return _checked(Recipe, table)


def _checked(kind: type[Table], table: Mapping[str, object], where: str = "") -> Table:
    """Build a dataclass from a table."""
    hints = get_type_hints(kind)
    if unknown := sorted(table.keys() - hints.keys()):
        raise DataError("the key {key}{where} is unknown.", code="unknown_key", key=unknown[0], where=where)
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name not in table and item.default is MISSING and item.default_factory is MISSING:
            raise DataError(
                "the key {key}{where} is missing.", code="missing_key", key=item.name, where=where
            )
    return kind(**{key: _converted(key, where, value, hints[key]) for key, value in table.items()})


def _converted(key: str, where: str, value: object, hint: object) -> object:
    """Return a value of a TOML file as the field of a dataclass needs it, after a check of kind and range."""
    if isinstance(value, tuple | Augmentation | Teaching):  # a table that has been converted
        return value
    result = _of_kind(value, hint)
    low, high = RANGES.get(key, (-math.inf, math.inf))
    if result is None:
        expected = KINDS[hint] if hint in KINDS else "one of " + ", ".join(map(repr, get_args(hint)))
        raise DataError(
            "the key {key}{where} is {value!r}; it must be {kind}.",
            code="kind",
            key=key,
            where=where,
            value=value,
            kind=expected,
        )
    numbers = (
        result.values() if isinstance(result, dict) else result if isinstance(result, tuple) else (result,)
    )
    if any(isinstance(number, int | float) and not low <= number <= high for number in numbers):
        template = "the key {key}{where} is {value!r}; it must be from {low:g} to {high:g}."
        raise DataError(template, code="range", key=key, where=where, value=value, low=low, high=high)
    return result


def _of_kind(value: object, hint: object) -> object:
    """Return the value in the type of a field, None if it is of another kind."""
    if hint not in KINDS:
        return value if value in get_args(hint) else None
    if hint == ChannelValue and isinstance(value, list):
        return tuple(map(float, value)) if len(value) == 3 and all(map(_is_number, value)) else None
    if hint in (float, ChannelValue):
        return float(value) if _is_number(value) else None  # type: ignore[arg-type]
    if hint == tuple[str, ...]:
        return (
            tuple(value)
            if isinstance(value, list) and value and all(isinstance(item, str) for item in value)
            else None
        )
    if hint == Mapping[str, float]:
        return value if isinstance(value, dict) and all(map(_is_number, value.values())) else None
    return value if type(value) is hint else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
