"""Training recipes: everything that decides a run besides the data, read from ``recipe.toml`` and checked."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Literal, TypeVar, get_args, get_type_hints

from hsemotion_space.training.augment import Augmentation, ChannelValue
from hsemotion_space.training.data import Crop, DataError
from hsemotion_space.training.formats.feedback import DEFAULT_TIERS

Format = Literal["parquet", "affectnet-csv", "affectnet-2021", "folder", "feedback"]
Table = TypeVar("Table")


@dataclass(frozen=True, slots=True)
class Source:
    """One dataset of the mix.

    Attributes:
        files: globs below the data folder, of Parquet files (``parquet``), of tables (``affectnet-csv``; one with ``validation`` in
            its name is the test), or of folders with everything in them (``affectnet-2021``, ``folder``, ``feedback``).
        share: its part of every batch.
        tuning: share of its rows (of its subjects) that choices are made on.
        train_on_tuning: whether those rows are trained on as well, so that no choice made on them can be trusted.
        crop: how the box of a face is cut out, see ``learn.data.Crop``.
        images: folder below the data folder that the paths in an AffectNet table start from; the table's own if empty.
        tiers: which rows of ``feedback`` count.
        unlabeled: whether rows without a label are trained on as well; the teacher's values are their targets.
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
        weight: share of the teacher in the expression targets of labeled rows; rows without a label have the teacher's alone.
        weights: the same for single sources, by name.
        temperature: softens the teacher's probabilities p to p ** (1 / temperature), scaled to sum to one.
        embedding_weight: of the term that draws a linear map of the embedding toward the teacher's; 0 leaves it out.
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
    schedule: Literal["wsd", "constant"] = "wsd"  # after the head: rise, hold and fall, or `peak_lr` throughout
    peak_lr: float = 2e-3
    warmup: float = 0.03  # share of the steps after the head
    decay: float = 0.4  # share of the same steps at the end, linear to zero
    weight_decay: float = 0.05  # `read_recipe` takes 0 for SAM, as in the paper, unless the file has the key
    class_weight_power: float = 0.5
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
            raise ValueError("sources must be one or more, each with a name of its own.")
        if self.choose == "best" and any(source.train_on_tuning for source in self.sources):
            raise ValueError("choose = 'best' needs tuning rows that are not trained on; remove train_on_tuning.")
        if self.teaching is None and any(source.unlabeled for source in self.sources):
            raise ValueError("unlabeled rows need a teacher; add a table [teaching].")
        if self.teaching and (unknown := sorted(self.teaching.weights.keys() - {source.name for source in self.sources})):
            raise ValueError(f"the key weights of teaching names {unknown[0]}, which is no source.")
        if self.head_steps >= self.steps:
            raise ValueError(f"head_steps is {self.head_steps}; it must be below steps, {self.steps}.")

    def lr(self, step: int) -> float:
        """Return the learning rate of a step: that of the head, then linear warm-up, plateau, linear decay, or a constant."""
        if step < self.head_steps:
            return self.head_lr
        if self.schedule == "constant":
            return self.peak_lr
        step, steps = step - self.head_steps, self.steps - self.head_steps
        rise, fall = max(1, round(self.warmup * steps)), max(1, round(self.decay * steps))
        return self.peak_lr * min(1.0, (step + 1) / rise, max(0, steps - step) / fall)


RANGES = {
    "size": (8, 4096), "steps": (1, math.inf), "steps_per_epoch": (1, math.inf), "batch": (1, math.inf), "rho": (0, math.inf),
    "head_steps": (0, math.inf), "head_lr": (0, math.inf), "peak_lr": (0, math.inf), "warmup": (0, 1), "decay": (0, 1),
    "weight_decay": (0, math.inf), "label_smoothing": (0, 1), "ema": (0, 1), "seed": (0, math.inf), "share": (0, math.inf),
    "tuning": (0, 1), "std": (1e-6, math.inf), "weight": (0, 1), "weights": (0, 1), "temperature": (0.01, 100),
    "embedding_weight": (0, math.inf),
}  # fmt: skip


TABLES: Mapping[str, type] = {"augmentation": Augmentation, "teaching": Teaching}  # of a recipe, besides [[sources]]


def read_recipe(file: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        DataError: with the file and the key that is wrong.
    """
    try:
        table = tomllib.loads(file.read_text("utf-8"))
        if table.get("optimizer") == "sam":
            table.setdefault("weight_decay", 0.0)
        rows = table.pop("sources", ())
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("the key sources is missing; every dataset of the mix needs a table [[sources]].")
        parts: dict[str, object] = {"sources": tuple(_checked(Source, row, f" of source {number}") for number, row in enumerate(rows, 1))}
        for name, kind in TABLES.items():
            if name in table and not isinstance(table[name], dict):
                raise ValueError(f"{name} must be a table.")
            if name in table:
                parts[name] = _checked(kind, table[name], f" of {name}")
        return _checked(Recipe, {**table, **parts})
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is not a usable recipe: {error}") from error


def _checked(kind: type[Table], table: Mapping[str, object], where: str = "") -> Table:
    """Build a dataclass from a table.

    Raises:
        ValueError: naming the key that is missing, unknown, of the wrong kind or out of range.
    """
    hints = get_type_hints(kind)
    if unknown := sorted(table.keys() - hints.keys()):
        raise ValueError(f"the key {unknown[0]}{where} is not known.")
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name not in table and item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"the key {item.name}{where} is missing.")
    return kind(**{key: _converted(key, where, value, hints[key]) for key, value in table.items()})


def _converted(key: str, where: str, value: object, hint: object) -> object:
    """Return a value of a TOML file as the field of a dataclass wants it, after checking kind and range."""
    if isinstance(value, tuple | Augmentation | Teaching):  # a table that has been converted
        return value
    choices = get_args(hint) if hint not in KINDS else ()
    convert, words = KINDS.get(hint, (lambda given: given if given in choices else None, "one of " + ", ".join(map(repr, choices))))
    result = convert(value)
    if result is None:
        raise ValueError(f"the key {key}{where} is {value!r}; it must be {words}.")
    low, high = RANGES.get(key, (-math.inf, math.inf))
    numbers = tuple(result.values()) if isinstance(result, Mapping) else result if isinstance(result, tuple) else (result,)
    if any(isinstance(number, int | float) and not low <= number <= high for number in numbers):
        raise ValueError(f"the key {key}{where} is {value!r}; it must be from {low:g} to {high:g}.")
    return result


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _per_channel(value: object) -> float | tuple[float, ...] | None:
    if not isinstance(value, list):
        return _number(value)
    numbers = tuple(number for number in map(_number, value) if number is not None)
    return numbers if len(numbers) == len(value) == 3 else None


def _texts(value: object) -> tuple[str, ...] | None:
    return tuple(value) if isinstance(value, list) and value and all(isinstance(item, str) for item in value) else None


def _numbers_by_name(value: object) -> Mapping[str, float] | None:
    return value if isinstance(value, dict) and all(_number(item) is not None for item in value.values()) else None


KINDS: Mapping[object, tuple[Callable[[object], object], str]] = {  # of the fields: a function that gives None for another kind, words
    float: (_number, "a number"),
    int: (lambda value: value if type(value) is int else None, "a whole number"),
    bool: (lambda value: value if type(value) is bool else None, "true or false"),
    str: (lambda value: value if type(value) is str else None, "a text"),
    tuple[str, ...]: (_texts, "a list of texts"),
    Mapping[str, float]: (_numbers_by_name, "a table of numbers"),
    ChannelValue: (_per_channel, "a number or a list of three"),
}
