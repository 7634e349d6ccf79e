"""The card of the published dataset: metadata for the Hub, contents, and terms of use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from huggingface_hub import DatasetCard, DatasetCardData

from hsemotion_space.feedback.dataset import COLUMNS, TRACE_COLUMNS, Column
from hsemotion_space.feedback.record import VERDICTS
from hsemotion_space.feedback.tables import Counts
from hsemotion_space.tasks import TASKS

CARD: Final = "README.md"
ERASED: Final = "erased.txt"
COUNTS_KEY: Final = "feedback_counts"
SIZES: Final = (
    ("n<1K", 10**3),
    ("1K<n<10K", 10**4),
    ("10K<n<100K", 10**5),
    ("100K<n<1M", 10**6),
    ("1M<n<10M", 10**7),
)
TAGS: Final = (
    "facial-expression-recognition",
    "valence-arousal",
    "action-units",
    "affective-computing",
    "human-feedback",
)
CONFIGS: Final = {"default": "data/[0-9]*/**/*.parquet", "traces": "data/traces/**/*.parquet"}
PROMPT: Final = (
    "These are corrections by volunteers, some with a picture of a face, given for research. Do not try to"
    " find out who anybody is, do not pass the rows on, do not use them for decisions about people, at work,"
    " in education or for surveillance, and remove rows from your copy when they are erased here."
)
PAGE: Final = """---
{metadata}---
# Corrections of facial affect predictions

People looked at what a model said about a face and told whether it is right, and what would be right instead.
One row is one statement of one person about one face. A server of HSEmotion Space writes this page with every
publication; changes by hand are lost.

## What is in it

| | |
|---|---:|
{counts}

Contributors are counted by receipt code: who takes a new code is counted anew.

```python
from datasets import load_dataset

rows = load_dataset("{repo}", split="train")
traces = load_dataset("{repo}", "traces", split="train")
```

The tasks are {tasks}. A statement is the opinion of one person, not what anybody felt. A file is only
rewritten to erase rows, so a statement that was replaced later is still there: of rows with equal
`contributor` and `item` the one with the latest `created` holds.

## Columns

| Column | Type | Meaning |
|---|---|---|
{columns}

A trace is what one person rated while a clip was playing, one dimension per pass:

| Column | Type | Meaning |
|---|---|---|
{trace_columns}

## Consent

Everybody selected each step separately; nothing was selected in advance. They stated that they are adults and
may give the picture away. Rows without a picture come from people who gave labels and scores only. The text
that each row's `consent_version` names:

{consent}

## Erasure

Everybody gets a random receipt code and can have everything of theirs shown and erased with it, on the page
that took the correction, under "My data". Their rows are taken out of the files here, the old files are
deleted for good, and the history is squashed. `{erased}` lists the SHA-256 of the `id` of every erased row:
**remove these rows from your own copy too**, and look again before you publish results.

## Terms of use

Research only. No identification of persons, no passing on, no decisions about people, no use at work or in
education, and no surveillance. Access is given by hand to people who agree to this.
"""


def read_counts(card: str) -> Counts | None:
    """Return the counts that a card states in its metadata; None if it has none that can be read."""
    try:
        stated = DatasetCard(card).data[COUNTS_KEY]
        records, with_crop, contributors = (
            int(stated[name]) for name in ("records", "with_crop", "contributors")
        )
        verdicts: Mapping[str, int] = {name: int(stated["verdicts"][name]) for name in VERDICTS}
        versions = tuple(str(version) for version in stated["consent_versions"])
    except Exception:  # noqa: BLE001
        # somebody may have written anything there, and the parser of YAML has many errors
        return None
    least = min(records, with_crop, contributors, *verdicts.values())
    return Counts(records, with_crop, contributors, verdicts, versions) if least >= 0 else None


def dataset_card(repo: str, counts: Counts, texts: Mapping[str, str]) -> str:
    """Return the card, whose metadata the Hub accepts.

    Args:
        repo: ``owner/name``.
        counts: of everything that is in the repository.
        texts: consent texts by version.
    """
    rows = {
        "Statements": counts.records,
        "with a picture": counts.with_crop,
        "Contributors": counts.contributors,
    }
    rows |= {f"Verdict: {name.replace('_', ' ')}": counts.verdicts.get(name, 0) for name in VERDICTS}
    rows["Traces"] = counts.records - sum(counts.verdicts.values())
    return PAGE.format(
        metadata=_metadata(repo, counts),
        counts="\n".join(f"| {name} | {number:,} |" for name, number in rows.items()),
        repo=repo,
        tasks=", ".join(task.title.lower() for task in TASKS),
        columns=_columns(COLUMNS),
        trace_columns=_columns(TRACE_COLUMNS),
        consent=_consent(counts.consent_versions, texts),
        erased=ERASED,
    )


def _columns(columns: Mapping[str, Column]) -> str:
    return "\n".join(f"| `{name}` | {column.kind} | {column.about} |" for name, column in columns.items())


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
        configs=[
            {"config_name": name, "data_files": [{"split": "train", "path": path}]}
            for name, path in CONFIGS.items()
        ],
        extra_gated_prompt=PROMPT,
        extra_gated_fields={
            "Affiliation": "text",
            "What I want to find out": "text",
            "I keep to these terms": "checkbox",
        },
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
        f"### Version {version}\n\n"
        + "\n".join(f"> {line}  " for line in texts.get(version, "(not known to this server)").splitlines())
        for version in versions
    ]
    return "\n\n".join(parts) or "No rows yet."
