"""The card of the published dataset: metadata for the Hub, and a page that says what is in it and who may do what with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from huggingface_hub import DatasetCard, DatasetCardData

from hsemotion_space.feedback.columns import COLUMNS
from hsemotion_space.feedback.records import VERDICTS, FeedbackError
from hsemotion_space.feedback.remote import Repository
from hsemotion_space.feedback.rows import Row, decode
from hsemotion_space.tasks import TASKS

CARD: Final = "README.md"
ERASED: Final = "erased.txt"
COUNTS_KEY: Final = "feedback_counts"
SIZES: Final = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7))
TAGS: Final = ("facial-expression-recognition", "valence-arousal", "action-units", "affective-computing", "human-feedback")
PROMPT: Final = (
    "These are corrections by volunteers, some with a picture of a face, given for research. Do not try to find out who anybody is, do not "
    "pass the rows on, do not use them for decisions about people, at work, in education or for surveillance, and remove rows from your "
    "copy when they are erased here."
)
PAGE: Final = """---
{metadata}---
# Corrections of facial affect predictions

People looked at what a model said about a face and told whether it is right, and what would be right instead. One row is one statement of
one person about one face. A server of HSEmotion Space writes this page with every publication; changes by hand are lost.

## What is in it

| | |
|---|---:|
{counts}

Contributors are counted by receipt code: who takes a new code is counted anew.

```python
from datasets import load_dataset

rows = load_dataset("{repo}", split="train")
```

The tasks are {tasks}. A statement is the opinion of one person, not what anybody felt. A file is only rewritten to erase rows, so a
statement that was replaced later is still there: of rows with equal `contributor` and `item` the one with the latest `created` holds.

## Columns

| Column | Type | Meaning |
|---|---|---|
{columns}

## Consent

Everybody ticked each step separately; nothing was ticked beforehand. They stated that they are adults and may give the picture away.
Rows without a picture come from people who gave labels and scores only. The text that each row's `consent_version` names:

{consent}

## Erasure

Everybody gets a random receipt code and can have everything of theirs shown and erased with it, on the page that took the correction, under
"My data". Their rows are taken out of the files here, the old files are deleted for good, and the history is squashed. `{erased}` lists the
SHA-256 of the `id` of every erased row: **remove these rows from your own copy too**, and look again before you publish results.

## Terms of use

Research only. No identification of persons, no passing on, no decisions about people, no use at work or in education, and no surveillance.
Access is given by hand to people who agree to this.
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the files of the repository contain together.

    Attributes:
        records, with_crop: rows, and those with a picture.
        contributors: different ones.
        verdicts: rows by verdict.
        consent_versions: of the texts that occur, sorted.
    """

    records: int = 0
    with_crop: int = 0
    contributors: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    consent_versions: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Collection[Row]) -> Counts:
        """Count rows."""
        return cls(
            len(rows),
            sum(bool(row.crop) for row in rows),
            len({row.contributor for row in rows}),
            Counter(row.verdict for row in rows),
            tuple(sorted({row.consent_version for row in rows})),
        )

    def changed(self, added: Counts, removed: Counts, contributors: int) -> Counts:
        """Return the counts after rows were added and removed, with so many more contributors; versions of the consent stay."""
        return Counts(
            max(self.records + added.records - removed.records, 0),
            max(self.with_crop + added.with_crop - removed.with_crop, 0),
            max(self.contributors + contributors, 0),
            {name: max(sum(of.verdicts.get(name, 0) for of in (self, added)) - removed.verdicts.get(name, 0), 0) for name in VERDICTS},
            tuple(sorted({*self.consent_versions, *added.consent_versions})),
        )


def read_counts(card: str) -> Counts | None:
    """Return the counts that a card states in its metadata; None if it has none that can be read."""
    try:
        stated = DatasetCard(card).data[COUNTS_KEY]
        records, with_crop, contributors = (int(stated[name]) for name in ("records", "with_crop", "contributors"))
        verdicts: Mapping[str, int] = {name: int(stated["verdicts"][name]) for name in VERDICTS}
        versions = tuple(str(version) for version in stated["consent_versions"])
    except Exception:  # noqa: BLE001  somebody may have written anything there, and the parser of YAML has many errors
        return None
    least = min(records, with_crop, contributors, *verdicts.values())
    return Counts(records, with_crop, contributors, verdicts, versions) if least >= 0 else None


def counts_in(remote: Repository, head: str) -> Counts:
    """Return what a repository contains at a commit: as its card states it, or counted file by file where the card does not.

    Raises:
        FeedbackError: if the Hub does not answer as it should.
    """
    card = remote.read(CARD, head).decode(errors="replace")
    if card and (stated := read_counts(card)) is not None:
        return stated
    paths = [path for path in remote.listing("data", head, recursive=True) if path.endswith(".parquet")]
    return Counts.of([row for path in sorted(paths) for row in rows_of(remote.read(path, head))])


def rows_of(body: bytes) -> Sequence[Row]:
    """Return the rows of a file in the repository; none if somebody put something else there."""
    try:
        return decode(body)
    except FeedbackError:
        return []


def dataset_card(repo: str, counts: Counts, texts: Mapping[str, str]) -> str:
    """Return the card, whose metadata the Hub accepts.

    Args:
        repo: ``owner/name``.
        counts: of everything that is in the repository.
        texts: consent texts by version.
    """
    rows = {"Statements": counts.records, "with a picture": counts.with_crop, "Contributors": counts.contributors}
    rows |= {f"Verdict: {name.replace('_', ' ')}": counts.verdicts.get(name, 0) for name in VERDICTS}
    return PAGE.format(
        metadata=_metadata(repo, counts),
        counts="\n".join(f"| {name} | {number:,} |" for name, number in rows.items()),
        repo=repo,
        tasks=", ".join(task.title.lower() for task in TASKS),
        columns="\n".join(f"| `{name}` | {column.kind} | {column.about} |" for name, column in COLUMNS.items()),
        consent=_consent(counts.consent_versions, texts),
        erased=ERASED,
    )


def _metadata(repo: str, counts: Counts) -> str:
    data = DatasetCardData(
        pretty_name="Corrections of facial affect predictions",
        license="other",
        license_name="research-only-consented-faces",
        license_link=f"https://huggingface.co/datasets/{repo}#terms-of-use",
        task_categories=["image-classification"],
        size_categories=[next((name for name, limit in SIZES if counts.records < limit), "10M<n<100M")],
        annotations_creators=["crowdsourced", "machine-generated"],
        tags=list(TAGS),
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/**/*.parquet"}]}],
        extra_gated_prompt=PROMPT,
        extra_gated_fields={"Affiliation": "text", "What I want to find out": "text", "I keep to these terms": "checkbox"},
    )
    data["viewer"] = False  # its copy in another branch would outlive an erasure
    data[COUNTS_KEY] = _stated(counts)
    return f"{data.to_yaml()}\n"


def _stated(counts: Counts) -> Mapping[str, object]:
    verdicts = {name: counts.verdicts.get(name, 0) for name in VERDICTS}
    numbers = {"records": counts.records, "with_crop": counts.with_crop, "contributors": counts.contributors}
    return {**numbers, "verdicts": verdicts, "consent_versions": list(counts.consent_versions)}


def _consent(versions: Iterable[str], texts: Mapping[str, str]) -> str:
    parts = [
        f"### Version {version}\n\n" + "\n".join(f"> {line}  " for line in texts.get(version, "(not known to this server)").splitlines())
        for version in versions
    ]
    return "\n\n".join(parts) or "No rows yet."
