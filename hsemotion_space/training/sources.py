"""The datasets that a recipe names, loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hsemotion_space.training.data import TEST, TRAINING, TUNING, DataError, FaceImages, load_images, open_images
from hsemotion_space.training.formats.affectnet import read_folder_2021, read_manual_csv
from hsemotion_space.training.formats.feedback import read_feedback
from hsemotion_space.training.formats.folders import read_image_folder
from hsemotion_space.training.formats.samples import FaceSample, Split
from hsemotion_space.training.recipe import Recipe, Source
from hsemotion_space.training.store import faces_from_samples
from hsemotion_space.training.votes import VoteRegression, add_proxies, fit_votes


def load_sources(recipe: Recipe, data: Path) -> tuple[list[FaceImages], VoteRegression | None]:
    """Load every source at 9/8 of the input size, so that small zooms and shifts keep detail.

    Raises:
        DataError: if a source cannot be used for training, for tuning and for the test; one without any label need not be for the last two.
    """
    votes = fit_votes(data / recipe.votes) if recipe.votes else None
    sources = []
    for source in recipe.sources:
        files = _files(source, data)
        images = _read(source, files, data, detailed(recipe.size), load_images)
        if votes is not None and source.format == "parquet":
            images = add_proxies(images, files[0], votes)
        scored = all(len(images.rows(split, counted=True)) for split in (TUNING, TEST))
        if not len(images.rows(TRAINING)) or not (scored or (source.unlabeled and np.isnan(images.expression).all())):
            raise DataError(f"{source.name} needs a row for training and one with a sure label for tuning and for the test.")
        sources.append(images)
    if not any(images.counted.any() for images in sources):
        raise DataError("No source of the recipe has labels; one is needed for tuning and for the test.")
    return sources, votes


def open_source(source: Source, data: Path, size: int) -> FaceImages:
    """Open one source without decoding its pictures, which have ``size`` px when they are asked for.

    Raises:
        DataError: if it cannot be read.
    """
    return _read(source, _files(source, data), data, size, open_images)


def detailed(size: int) -> int:
    """Return the side of pictures in px that a network of an input size is fed from."""
    return size * 9 // 8


def _files(source: Source, data: Path) -> list[Path]:
    try:
        files = sorted(file for pattern in source.files for file in data.glob(pattern))
    except (NotImplementedError, ValueError, IndexError) as error:
        raise DataError(f"The files {', '.join(source.files)} of {source.name} must be patterns below the data folder: {error}.") from error
    if not files:
        raise DataError(f"No file was found for {source.name}: {', '.join(source.files)} in {data}.")
    return files


def _read(source: Source, files: list[Path], data: Path, size: int, parquet: Callable[..., FaceImages]) -> FaceImages:
    if source.format == "parquet":
        return parquet(source.name, files, size, source.tuning, crop=source.crop, unlabeled=source.unlabeled)
    samples = (
        read_feedback(files, source.tuning, source.tiers)
        if source.format == "feedback"
        else (sample for file in files for sample in _samples(source, file, data))
    )
    return faces_from_samples(source.name, samples, size, source.tuning, crop=source.crop, unlabeled=source.unlabeled)


def _samples(source: Source, file: Path, data: Path) -> Iterator[FaceSample]:
    """Yield the faces of one entry of ``Source.files``."""
    if source.format == "affectnet-csv":
        yield from read_manual_csv(file, data / source.images if source.images else file.parent, _split_of_table(file))
    elif source.format == "affectnet-2021":
        yield from read_folder_2021(file, "train")
        yield from read_folder_2021(file, "validation")
    else:
        yield from read_image_folder(file)


def _split_of_table(file: Path) -> Split:
    return "validation" if "validation" in file.name else "train"
