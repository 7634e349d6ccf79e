"""The datasets that a recipe names, loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hsemotion_space.learn.data import TEST, TRAINING, TUNING, DataError, FaceImages, VoteRegression, fit_votes, load_images
from hsemotion_space.learn.formats.affectnet import read_folder_2021, read_manual_csv
from hsemotion_space.learn.formats.feedback import read_feedback
from hsemotion_space.learn.formats.folders import read_image_folder
from hsemotion_space.learn.formats.samples import FaceSample, Split
from hsemotion_space.learn.recipe import Recipe, Source
from hsemotion_space.learn.store import faces_from_samples


def load_sources(recipe: Recipe, data: Path) -> tuple[list[FaceImages], VoteRegression | None]:
    """Load every source at 9/8 of the input size, so that small zooms and shifts keep detail.

    Raises:
        DataError: if a source cannot be used for training, for tuning and for the test.
    """
    votes = fit_votes(data / recipe.votes) if recipe.votes else None
    sources = []
    for source in recipe.sources:
        images = _load(source, data, recipe.size * 9 // 8, votes)
        if not len(images.rows(TRAINING)) or not all(len(images.rows(split, counted=True)) for split in (TUNING, TEST)):
            raise DataError(f"{source.name} needs a row for training and one with a sure label for tuning and for the test.")
        sources.append(images)
    return sources, votes


def _load(source: Source, data: Path, size: int, votes: VoteRegression | None) -> FaceImages:
    try:
        files = sorted(file for pattern in source.files for file in data.glob(pattern))
    except (NotImplementedError, ValueError, IndexError) as error:
        raise DataError(f"The files {', '.join(source.files)} of {source.name} must be patterns below the data folder: {error}.") from error
    if not files:
        raise DataError(f"No file was found for {source.name}: {', '.join(source.files)} in {data}.")
    if source.format == "parquet":
        return load_images(source.name, files, size, votes, source.tuning, crop=source.crop)
    samples = (
        read_feedback(files, source.tuning, source.tiers)
        if source.format == "feedback"
        else (sample for file in files for sample in _samples(source, file, data))
    )
    return faces_from_samples(source.name, samples, size, source.tuning, crop=source.crop)


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
