"""Model cards: the manifest and the training record as a page for readers and for the Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.tasks import EXPRESSION

Record: TypeAlias = Mapping[str, Any]
"""JSON of ``training.json``, which this project writes."""

KNOWN_LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0")
METADATA = """---
{license}
library_name: timm
pipeline_tag: image-classification
tags: [facial-expression-recognition, valence-arousal, affective-computing, {family}]
model-index:
- name: {id}
  results:
{results}
---
"""
RESULT = """  - task: {{type: image-classification, name: Facial expression}}
    dataset: {{name: "{name} (held-out part)", type: {type}}}
    metrics:
    - {{type: accuracy, value: {accuracy}}}
    - {{type: f1, name: macro F1, value: {f1}}}"""

PAGE = """{metadata}
# {title}

{summary}

`{arch}`, {parameters:,} parameters, square face crops of {size} px, {megabytes:.1f} MB of 16-bit weights.
Trained from {start} for {steps:,} steps of {batch} pictures in {minutes:.0f} minutes{machine}.

## Data
{data}

## Expression, on held-out pictures
Pictures were held out by the data's own split or by a fixed hash, by person where persons are known. They had
no part in training, nor in the choice of an epoch.{held_out}

{table}
{heads}{limits}
## Made with
```sh
hsemotion-space learn backbone {recipe} --data DATA --run RUN
hsemotion-space learn export {recipe} --data DATA --run RUN --checkpoint checkpoints/{id}{finish}
```
`training.json` has the recipe, the digests of the data, and the figures of every epoch.
"""

SOURCES = {
    "web_faces": (
        "faces from the web with noisy labels, 7 expressions, background blacked out (GitHub"
        " quanbk2512/effectnet)"
    ),
    "ferplus": (
        "FER2013 pictures with the ten votes per picture of FER+ (GitHub gbast0s/resizedImages,"
        " microsoft/FERPlus); pictures whose original class was fear or disgust are missing from this copy,"
        " so those two and contempt are thin"
    ),
    "posed": (
        "CFEE, posed basic and compound expressions in a studio (GitHub"
        " znj592277593/Facial-Emotion-Recognition), split by person"
    ),
    "fear_disgust": (
        "FER2013 pictures of fear and disgust by their single original label, which is noisy (GitHub "
        "Emilmrk/preprocessed-facial-emotions-224)"
    ),
}

HEADS = """
## Heads on frozen embeddings, on held-out posed pictures
One hidden layer of 128 units each, trained on posed portraits (CFEE). Epoch, temperature and thresholds were
chosen on other people than the ones scored here{caveat}. Intervals (95 %) draw people anew. The rule needs no
training, but the backbone has seen such compound faces of other people, labeled as both of their parts. FACS
coding of these pictures is per person and category, and every face is posed: **how well the heads do on
spontaneous faces is not known.**

{tables}

Probabilities of the expressions were divided by a temperature of {temperature} before the softmax; expected
calibration error on held-out pictures before and after: {ece}.
"""
CAVEAT = ", but the backbone had seen those people's expressions in training"

FINISH = "\nhsemotion-space learn finish {recipe} --data DATA --checkpoint checkpoints/{id}"
HELD_OUT = """ FER+ counts pictures with a majority of at least six votes. Blacked-out
backgrounds are shown as three gray levels, to see whether the mask itself gives anything away."""
LOOKS = (
    "It describes how a face looks to a network, not what a person feels. Expressions are no reliable sign of"
    " feelings."
)
PROXIES = """**Valence and arousal are proxy values.** No training picture has a rated valence or arousal.
  Targets were computed from the votes on expressions by a linear map that was fitted on crowd ratings of
  other pictures. How close the outputs are to human ratings is not known."""
POSED = "**Action units** and **compound expressions** were learned from posed portraits."
RULE = "**{title}** is an untrained rule on top of the expression probabilities."
PRIOR = "**{title} is a prior**: a formula over word norms, never compared with measured intensities."
THIN = """Contempt is almost absent from the data and is hardly ever predicted.
- Most pictures show adults, looking at the camera, many of them acting or public figures."""
GROUPS = (
    "No figures by age, sex or skin color were computed. Expect errors to differ between groups of people."
)
USE = """
## Use
For research and teaching, on pictures of people who agree. Not for people at work or in education, hiring,
surveillance, diagnosis, lie detection, or any decision about a person. Terms of the weights: {license}.
"""


def _license(text: str) -> str:
    """Return the lines of metadata on the license, of which the Hub knows some by name."""
    if (known := text.lower()) in KNOWN_LICENSES:
        return f"license: {known}"
    name = re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")
    return f"license: other\nlicense_name: {name}\nlicense_link: LICENSE"


def _start(record: Record) -> str:
    """Return the file that the first weights came from, or what was there in its place."""
    if not record.get("start"):
        return "random weights"
    start = record["start"]
    return str((start.get("origin") or {}).get("file", start["file"]))


def _limits(checkpoint: Checkpoint, record: Record, starter: bool) -> str:
    """Return the sections on limits and use: only what is true of this checkpoint."""
    lines = [LOOKS, *([PROXIES] if record["proxy"] else []), *([POSED] if "heads" in record else [])]
    sentences = {"rule": RULE, "prior": PRIOR}
    lines += [
        sentences[head.provenance].format(title=head.task.title)
        for head in checkpoint.heads
        if head.provenance in sentences
    ]
    lines += [*([THIN] if starter else []), GROUPS]
    text = "\n".join(f"- {line}" for line in lines)
    return f"\n## Limits\n{text}\n{USE.format(license=checkpoint.license)}"


def markdown_table(header: Sequence[object], rows: Sequence[Sequence[object]], ruler: str = "---") -> str:
    """Return a table in Markdown without an end of line; ``ruler`` aligns all columns but the first."""
    lines = ["| " + " | ".join(map(str, cells)).lstrip() + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---|" + f"{ruler}|" * (len(header) - 1), *lines[1:]])


def _table(evaluation: Mapping[str, Record]) -> str:
    results = list(evaluation.values())
    rows = [["pictures", *(result["count"] for result in results)]]
    for key, title in (("accuracy", "accuracy"), ("macro_f1", "macro F1")):
        rows.append([title, *(f"{result[key]:.1%}" for result in results)])
    for label in EXPRESSION.label_names:
        recalls = [result["recall"].get(label) for result in results]
        rows.append([f"recall of {label}", *("" if value is None else f"{value:.0%}" for value in recalls)])
    return markdown_table(["", *evaluation], rows)


def _about(item: Record) -> str:
    counts = (
        f"{item['training']} pictures for training, {item['tuning']} for choices, {item['test']} held out"
    )
    return f"{counts}; {SOURCES.get(item['source'], 'see the recipe')}"


def model_card(checkpoint: Checkpoint, record: Record) -> str:
    """Return the card of a checkpoint that this project trained, as Markdown with Hub metadata.

    Args:
        checkpoint: its manifest.
        record: what ``learn export`` wrote to ``training.json``.

    Raises:
        KeyError: if the record lacks a figure.
    """
    evaluation, recipe, sources = record["evaluation"], record["recipe"], record["data"]
    lines = [f"- **{item['source']}**: {_about(item)}" for item in sources]
    starter = {item["source"] for item in sources} <= SOURCES.keys()
    recipe_file = record["command"].split()[3]
    return PAGE.format(
        metadata=_metadata(checkpoint, evaluation),
        title=checkpoint.title,
        summary=checkpoint.summary,
        arch=checkpoint.arch,
        parameters=checkpoint.parameters,
        size=checkpoint.input.size,
        megabytes=checkpoint.weights_bytes / 1e6,
        steps=record["steps"],
        batch=recipe["batch"],
        start=_start(record),
        minutes=record["minutes"],
        machine=" on two CPU cores that were doing other work as well" if starter else "",
        held_out=HELD_OUT if starter else "",
        data="\n".join(lines) + _about_proxy(record["proxy"]),
        table=_table(evaluation),
        heads=_heads(record) if "heads" in record else "",
        limits=_limits(checkpoint, record, starter),
        recipe=recipe_file,
        finish=FINISH.format(recipe=recipe_file, id=checkpoint.id) if "heads" in record else "",
        id=checkpoint.id,
    )


def _metadata(checkpoint: Checkpoint, evaluation: Mapping[str, Record]) -> str:
    """Return the front matter that the Hub reads."""
    results = [
        RESULT.format(name=name, type=name.split(",")[0], accuracy=result["accuracy"], f1=result["macro_f1"])
        for name, result in evaluation.items()
    ]
    return METADATA.format(
        license=_license(checkpoint.license),
        family=checkpoint.family.lower(),
        id=checkpoint.id,
        results="\n".join(results),
    )


def _about_proxy(proxy: Record) -> str:
    if "ccc_out_of_sample" not in proxy:
        return ""
    valence, arousal = (f"{value:.2f}" for value in proxy["ccc_out_of_sample"])
    return (
        "\n\nThe map from votes to valence and arousal agrees with held-out crowd ratings with a CCC of"
        f" {valence} (valence) and\n{arousal} (arousal). This is a figure of the map, **not** of this"
        " network."
    )


def _heads(record: Record) -> str:
    """Return the section on heads of a finished starter."""
    calibration = record["expression_calibration"]
    errors = calibration["ece"].items()
    return HEADS.format(
        caveat=CAVEAT if any(row.get("train_on_tuning") for row in record["recipe"]["sources"]) else "",
        tables="\n\n".join(_head_table(name, figures) for name, figures in record["heads"].items()),
        temperature=calibration["temperature"],
        ece="; ".join(f"{name} {row['before']:.3f} and {row['after']:.3f}" for name, row in errors),
    )


def _head_table(name: str, figures: Record) -> str:
    systems = {kind: figures[kind] for kind in ("trained", "rule") if kind in figures}
    trained, ece = figures["trained"], figures["ece"]
    rows = [[trained["measure"], *map(_with_interval, systems.values())]]
    for label, score in trained["per_label"].items():
        values = [f"{system['per_label'][label]['value']:.2f}" for system in systems.values()]
        rows.append([f"F1 of {label} ({score['support']} pictures)", *values])
    table = markdown_table([name.replace("_", " ").capitalize(), *systems], rows)
    return (
        f"{table}\n\n{trained['pictures']} pictures of {trained['people']} people; calibration error"
        f" {ece['before']:.3f} before and {ece['after']:.3f} after the temperature of"
        f" {figures['temperature']}."
    )


def _with_interval(system: Record) -> str:
    low, high = system["interval"]
    return f"{system['value']:.3f} ({low:.3f} to {high:.3f})"
