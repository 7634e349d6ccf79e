"""Model cards: the manifest and the training record as a page for readers and for the Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from hsemotion_space.hub.manifest import Checkpoint
from hsemotion_space.tasks import EXPRESSION

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
Record: TypeAlias = Mapping[str, Json]

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
Targets were computed from the
  votes on expressions by a linear map that was fitted on crowd ratings of other pictures. How close the
  outputs are to human ratings is not known."""
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
    start = mapping(record["start"])
    return str(mapping(start.get("origin") or {}).get("file", start["file"]))


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
    return (
        "\n## Limits\n"
        + "\n".join(f"- {line}" for line in lines)
        + "\n"
        + USE.format(license=checkpoint.license)
    )


def _table(evaluation: Mapping[str, Mapping[str, Json]]) -> str:
    names = list(evaluation)
    rows = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    rows.append("| pictures | " + " | ".join(str(evaluation[name]["count"]) for name in names) + " |")
    for key, title in (("accuracy", "accuracy"), ("macro_f1", "macro F1")):
        rows.append(
            f"| {title} | " + " | ".join(f"{number(evaluation[name][key]):.1%}" for name in names) + " |"
        )
    for label in EXPRESSION.label_names:
        recalls = [mapping(evaluation[name]["recall"]).get(label) for name in names]
        rows.append(
            f"| recall of {label} | "
            + " | ".join("" if value is None else f"{number(value):.0%}" for value in recalls)
            + " |"
        )
    return "\n".join(rows)


def _about(item: Mapping[str, Json]) -> str:
    counts = (
        f"{item['training']} pictures for training, {item['tuning']} for choices, {item['test']} held out"
    )
    return f"{counts}; {SOURCES.get(str(item['source']), 'see the recipe')}"


def number(value: Json) -> float:
    """Return a number of a record.

    Raises:
        TypeError: if it is none.
    """
    if not isinstance(value, int | float):
        raise TypeError(f"expected a number in the training record, got {value!r}")
    return float(value)


def mapping(value: Json) -> Mapping[str, Json]:
    """Return a table of a record.

    Raises:
        TypeError: if it is none.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"expected a table in the training record, got {value!r}")
    return value


def figure(record: Record, *keys: str) -> float:
    """Return the number at the end of a way through the tables of a record.

    Raises:
        KeyError: if it is not there.
        TypeError: if it is no number, or something on the way is no table.
    """
    value: Json = record
    for key in keys:
        value = mapping(value)[key]
    return number(value)


def model_card(checkpoint: Checkpoint, record: Record) -> str:
    """Return the card of a checkpoint that this project trained, as Markdown with Hub metadata.

    Args:
        checkpoint: its manifest.
        record: what ``learn export`` wrote to ``training.json``.

    Raises:
        TypeError: if the record is not of that form.
    """
    evaluation = {name: mapping(result) for name, result in mapping(record["evaluation"]).items()}
    results = [
        RESULT.format(name=name, type=name.split(",")[0], accuracy=result["accuracy"], f1=result["macro_f1"])
        for name, result in evaluation.items()
    ]
    recipe, proxy = mapping(record["recipe"]), mapping(record["proxy"])
    data = record["data"]
    sources = (
        [mapping(item) for item in data] if isinstance(data, Sequence) and not isinstance(data, str) else []
    )
    lines = [f"- **{item['source']}**: {_about(item)}" for item in sources]
    starter = {str(item["source"]) for item in sources} <= SOURCES.keys()
    recipe_file = str(record["command"]).split()[3]
    return PAGE.format(
        metadata=METADATA.format(
            license=_license(checkpoint.license),
            family=checkpoint.family.lower(),
            id=checkpoint.id,
            results="\n".join(results),
        ),
        title=checkpoint.title,
        summary=checkpoint.summary,
        arch=checkpoint.arch,
        parameters=checkpoint.parameters,
        size=checkpoint.input.size,
        megabytes=checkpoint.weights_bytes / 1e6,
        steps=record["steps"],
        batch=recipe["batch"],
        start=_start(record),
        minutes=number(record["minutes"]),
        machine=" on two CPU cores that were doing other work as well" if starter else "",
        held_out=HELD_OUT if starter else "",
        data="\n".join(lines) + _about_proxy(proxy.get("ccc_out_of_sample")),
        table=_table(evaluation),
        heads=_heads(record, recipe),
        limits=_limits(checkpoint, record, starter),
        recipe=recipe_file,
        finish=FINISH.format(recipe=recipe_file, id=checkpoint.id) if "heads" in record else "",
        id=checkpoint.id,
    )


def _about_proxy(agreement: Json) -> str:
    if not isinstance(agreement, Sequence) or isinstance(agreement, str):
        return ""
    valence, arousal = (f"{number(value):.2f}" for value in agreement)
    return (
        "\n\nThe map from votes to valence and arousal agrees with held-out crowd ratings with a CCC of"
        f" {valence} (valence) and\n{arousal} (arousal). This is a figure of the map, **not** of this"
        " network."
    )


def _heads(record: Record, recipe: Mapping[str, Json]) -> str:
    """Return the section on heads, if the starter has been finished."""
    if "heads" not in record:
        return ""
    tables = [_head_table(name, mapping(figures)) for name, figures in mapping(record["heads"]).items()]
    calibration = mapping(record["expression_calibration"])
    errors = {name: mapping(ece) for name, ece in mapping(calibration["ece"]).items()}
    ece = "; ".join(
        f"{name} {number(row['before']):.3f} and {number(row['after']):.3f}" for name, row in errors.items()
    )
    sources = recipe["sources"]
    rows = (
        [mapping(row) for row in sources]
        if isinstance(sources, Sequence) and not isinstance(sources, str)
        else []
    )
    caveat = CAVEAT if any(row.get("train_on_tuning") for row in rows) else ""
    return HEADS.format(
        caveat=caveat, tables="\n\n".join(tables), temperature=calibration["temperature"], ece=ece
    )


def _head_table(name: str, figures: Mapping[str, Json]) -> str:
    systems = {kind: mapping(figures[kind]) for kind in ("trained", "rule") if kind in figures}
    title = name.replace("_", " ").capitalize()
    rows = [f"| {title} | " + " | ".join(systems) + " |", "|---|" + "---|" * len(systems)]
    rows.append(
        f"| {systems['trained']['measure']} | "
        + " | ".join(_with_interval(system) for system in systems.values())
        + " |"
    )
    for label in mapping(systems["trained"]["per_label"]):
        cells = [mapping(mapping(system["per_label"])[label]) for system in systems.values()]
        values = " | ".join(f"{number(cell['value']):.2f}" for cell in cells)
        rows.append(f"| F1 of {label} ({cells[0]['support']} pictures) | {values} |")
    ece, trained = mapping(figures["ece"]), systems["trained"]
    about = (
        f"{trained['pictures']} pictures of {trained['people']} people; calibration error"
        f" {number(ece['before']):.3f} before and"
    )
    return (
        "\n".join(rows)
        + f"\n\n{about} {number(ece['after']):.3f} after the temperature of {figures['temperature']}."
    )


def _with_interval(system: Mapping[str, Json]) -> str:
    interval = system["interval"]
    if not isinstance(interval, Sequence) or isinstance(interval, str):
        raise TypeError(f"expected an interval in the training record, got {interval!r}")
    low, high = (number(bound) for bound in interval)
    return f"{number(system['value']):.3f} ({low:.3f} to {high:.3f})"
