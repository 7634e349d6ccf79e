"""The datasets that a recipe names, loaded; valence and arousal computed from votes for expressions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from hsemotion_space.metrics import concordance
from hsemotion_space.tasks import EXPRESSION
from hsemotion_space.training.data import TEST, TRAINING, TUNING, FaceImages, faces_from_samples, open_images
from hsemotion_space.training.files import DataError, reading
from hsemotion_space.training.formats.affectnet import read_folder_2021, read_manual_csv
from hsemotion_space.training.formats.feedback import read_feedback
from hsemotion_space.training.formats.samples import FaceSample, read_image_folder
from hsemotion_space.training.recipe import Recipe, Source
from hsemotion_space.types import FloatArray

VOTE_COLUMNS = [f"votes_{name.lower()}" for name in EXPRESSION.label_names]
RATINGS = ["valence_mean", "arousal_mean"]


def load_sources(recipe: Recipe, data: Path) -> tuple[list[FaceImages], VoteRegression | None]:
    """Load every source at 9/8 of the input size, so that small zooms and shifts keep detail."""
    votes = fit_votes(data / recipe.votes) if recipe.votes else None
    sources = []
    for source in recipe.sources:
        files = _files(source, data)
        images = _read(source, files, data, detailed_size(recipe.size))
        if source.format == "parquet":  # fits into memory
            images = replace(images, images=images.images[np.arange(len(images))])
            if votes is not None and VOTE_COLUMNS[0] in pq.read_schema(files[0]).names:
                images = replace(
                    images, valence_arousal=np.clip(images.expression @ votes.coefficients, -1, 1)
                )
        scored = all(len(images.rows(split, counted=True)) for split in (TUNING, TEST))
        if not len(images.rows(TRAINING)) or not (
            scored or (source.unlabeled and np.isnan(images.expression).all())
        ):
            template = (
                "{source} needs a row for training, and one with a sure label each for tuning and for the"
                " test."
            )
            raise DataError(template, code="empty_split", source=source.name)
        sources.append(images)
    if not any(images.counted.any() for images in sources):
        raise DataError(
            "No source of the recipe has labels; add one for tuning and for the test.", code="no_labels"
        )
    return sources, votes


def open_source(source: Source, data: Path, size: int) -> FaceImages:
    """Open one source without decoding its pictures, which have ``size`` px when they are asked for."""
    return _read(source, _files(source, data), data, size)


def detailed_size(size: int) -> int:
    """Return the side of pictures in px that a network of an input size is fed from."""
    return size * 9 // 8


def _files(source: Source, data: Path) -> list[Path]:
    patterns = ", ".join(source.files)
    try:
        files = sorted(file for pattern in source.files for file in data.glob(pattern))
    except (NotImplementedError, ValueError, IndexError) as error:
        template = "The files {patterns} of {source} must be patterns below the data folder ({reason})."
        raise DataError(
            template, code="pattern", patterns=patterns, source=source.name, reason=error
        ) from error
    if not files:
        template = "No file matches {patterns} of {source} in {folder}."
        raise DataError(template, code="no_files", patterns=patterns, source=source.name, folder=data)
    return files


def _read(source: Source, files: list[Path], data: Path, size: int) -> FaceImages:
    if source.format == "parquet":
        return open_images(
            source.name, files, size, source.tuning, crop=source.crop, unlabeled=source.unlabeled
        )
    samples = _samples(source, files, data)
    return faces_from_samples(
        source.name, samples, size, source.tuning, crop=source.crop, unlabeled=source.unlabeled
    )


def _samples(source: Source, files: list[Path], data: Path) -> Iterator[FaceSample]:
    if source.format == "feedback":
        yield from read_feedback(files, source.tuning, source.tiers)
        return
    for file in files:
        if source.format == "affectnet-csv":
            folder = data / source.images if source.images else file.parent
            yield from read_manual_csv(file, folder, "validation" if "validation" in file.name else "train")
        elif source.format == "affectnet-2021":
            yield from read_folder_2021(file, "train")
            yield from read_folder_2021(file, "validation")
        else:
            yield from read_image_folder(file)


@dataclass(frozen=True, slots=True)
class VoteRegression:
    """Linear map from a distribution of expression votes to the crowd's mean valence and arousal.

    Attributes:
        coefficients: (8, 2), one valence and arousal per expression.
        ccc_out_of_sample: concordance of (valence, arousal), each half of the ratings predicted from a fit on
            the other.
    """

    coefficients: FloatArray
    ccc_out_of_sample: tuple[float, float]


def fit_votes(csv: Path) -> VoteRegression:
    """Fit valence and arousal on expression votes by least squares, one coefficient per expression.

    Args:
        csv: columns ``set``, ``votes_<expression>`` x 8, ``valence_mean``, ``arousal_mean``.
    """
    with reading(csv, "table of votes and ratings", "votes"):
        columns = arrow_csv.ConvertOptions(include_columns=["set", *VOTE_COLUMNS, *RATINGS])
        table = arrow_csv.read_csv(csv, convert_options=columns)
        sets = np.array(table["set"].to_pylist())
        shares, targets = (
            np.stack([table[name].to_numpy().astype(np.float64) for name in names], 1)
            for names in (VOTE_COLUMNS, RATINGS)
        )
    shares /= shares.sum(1, keepdims=True)
    predicted = np.empty_like(targets)
    for held_out in np.unique(sets):
        rows = sets == held_out
        predicted[rows] = shares[rows] @ np.linalg.lstsq(shares[~rows], targets[~rows], rcond=None)[0]
    agreement = concordance(predicted[:, 0], targets[:, 0]), concordance(predicted[:, 1], targets[:, 1])
    return VoteRegression(np.linalg.lstsq(shares, targets, rcond=None)[0].astype(np.float32), agreement)
