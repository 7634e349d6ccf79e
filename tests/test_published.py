"""Manifests and cards of networks that others published, against what is known of those files; the files
themselves are not needed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from hsemotion_space.hub.manifest import Checkpoint, read_manifest
from hsemotion_space.hub.registry import list_checkpoints
from hsemotion_space.hub.source import UpstreamSource
from hsemotion_space.tasks import EXPRESSION, VALENCE_AROUSAL
from hsemotion_space.vision.backbones import Backbone, create_model

ROOT = Path(__file__).resolve().parent.parent / "checkpoints"
ALPHABETICAL = ("Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
WITHOUT_CONTEMPT = ("Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
AFFECTNET = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger", "Contempt")
WITH_AFFECT = (*ALPHABETICAL, "Valence", "Arousal")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
B0, B2, MOBILEVIT = (
    "tf_efficientnet_b0.ns_jft_in1k",
    "tf_efficientnet_b2.ns_jft_in1k",
    "mobilevitv2_150.cvnets_in1k",
)
DIGESTS = {
    "enet_b0_8_best_afew": ("47c1423f3e6f50e3750bf7b0eda7db947c9ce0c2637e1766bf2187eddc652b17", 16_419_305)
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the authors' code and texts say: order of the outputs, input, and figures on AffectNet's
    validation set."""

    family: str
    arch: str
    outputs: tuple[str, ...]
    size: int
    filename: str
    accuracy: dict[int, float]  # percent by number of classes
    ccc: tuple[float, float] | None = None
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET


FACTS = {
    "enet_b0_8_best_vgaf": Facts("EfficientNet", B0, ALPHABETICAL, 224, "enet_b0_8_best_vgaf.pt", {8: 61.325, 7: 64.571}),
    "enet_b0_8_best_afew": Facts("EfficientNet", B0, ALPHABETICAL, 224, "enet_b0_8_best_afew.pt", {8: 60.9, 7: 64.714}),
    "enet_b0_8_va_mtl": Facts("EfficientNet", B0, WITH_AFFECT, 224, "enet_b0_8_va_mtl.pt", {8: 61.925, 7: 64.971}, (0.5937, 0.5486)),
    "enet_b2_8": Facts("EfficientNet", B2, ALPHABETICAL, 260, "enet_b2_8.pt", {8: 63.025, 7: 66.286}),
    "enet_b2_7": Facts("EfficientNet", B2, WITHOUT_CONTEMPT, 260, "enet_b2_7.pt", {7: 65.914}),
    "mbf_va_mtl": Facts("MobileFaceNet", "mobilefacenet", WITH_AFFECT, 112, "mbf_va_mtl.pt", {8: 62.325, 7: 65.171}, (0.5773, 0.5468), HALF),
    "mobilevit_va_mtl": Facts("MobileViT", MOBILEVIT, WITH_AFFECT, 224, "mobilevit_va_mtl.pt", {8: 62.5, 7: 66.457}, (0.5991, 0.565)),
    "ddamfn_affectnet8": Facts("DDAMFN", "ddamfn", AFFECTNET, 112, "affecnet8_epoch25_acc0.6469.pth", {8: 64.69}),
    "ddamfn_affectnet7": Facts("DDAMFN", "ddamfn", AFFECTNET[:7], 112, "affecnet7_epoch19_acc0.671.pth", {7: 67.1}),
}  # fmt: skip
every_published = pytest.mark.parametrize("name", FACTS)


@cache
def published(name: str) -> Checkpoint:
    return read_manifest(ROOT / name)


@cache
def build(arch: str, outputs: int, **args: int) -> Backbone:
    return Backbone(create_model(arch, outputs, **args)).eval()


@cache
def card(name: str) -> ModelCard:
    return ModelCard.load(ROOT / name / "README.md")


def upstream_of(name: str) -> UpstreamSource:
    upstream = published(name).source.upstream
    assert upstream is not None
    return upstream


def notes(name: str) -> dict[str, str]:
    return {head.task.name: head.note for head in published(name).heads}


def test_every_published_network_is_listed_here() -> None:
    checkpoints = list_checkpoints([ROOT])
    assert {checkpoint.id for checkpoint in checkpoints if checkpoint.source.upstream} == FACTS.keys()
    assert len({checkpoint.title for checkpoint in checkpoints}) == len(checkpoints)


@every_published
def test_the_architecture_is_the_one_of_the_manifest(name: str) -> None:
    checkpoint, facts = published(name), FACTS[name]
    backbone = build(checkpoint.arch, checkpoint.outputs, **checkpoint.arch_args)
    assert (checkpoint.family, checkpoint.arch, checkpoint.outputs) == (
        facts.family,
        facts.arch,
        len(facts.outputs),
    )
    assert sum(parameter.numel() for parameter in backbone.parameters()) == checkpoint.parameters
    with torch.inference_mode():
        embeddings, scores = backbone(torch.zeros(1, 3, checkpoint.input.size, checkpoint.input.size))
    assert embeddings.shape == (1, checkpoint.dim)
    assert scores.shape == (1, checkpoint.outputs)


@every_published
def test_manifest_has_the_outputs_and_the_input_of_the_authors(name: str) -> None:
    checkpoint, facts = published(name), FACTS[name]
    outputs, spec, source = facts.outputs, checkpoint.input, checkpoint.source
    read = [head for head in checkpoint.heads if head.kind == "scores"]
    labels = [[outputs[column] for column in head.columns] for head in read]
    assert labels == [list(head.task.label_names) for head in read]
    assert sorted(column for head in read for column in head.columns) == list(range(len(outputs)))
    for head, task in zip(read, (EXPRESSION, VALENCE_AROUSAL), strict=False):
        # in the project's order
        assert head.task.label_names == tuple(label for label in task.label_names if label in outputs)
    tasks = ["expression", *(["valence_arousal"] if facts.ccc else []), "compound_expression"]
    assert [head.task.name for head in checkpoint.heads] == tasks
    kinds = [("scores", "trained")] * (len(tasks) - 1) + [("pair_mean", "rule")]
    assert [(head.kind, head.provenance) for head in checkpoint.heads] == kinds
    assert not any(head.has_weights or head.temperature != 1 for head in checkpoint.heads)
    assert (spec.size, spec.crop, spec.margin) == (facts.size, "box", 0.0)
    assert (spec.mean, spec.std) == facts.normalization
    assert (source.bundled, source.hub) == ("", None)
    assert {file.name for file in (ROOT / name).iterdir()} == {"README.md", "manifest.toml"}


@every_published
def test_the_published_file_is_fixed_as_far_as_it_is_known(name: str) -> None:
    upstream, facts = upstream_of(name), FACTS[name]
    assert upstream.filename == facts.filename
    assert upstream.page.startswith("https://github.com/")
    if facts.family == "DDAMFN":
        assert not upstream.url
    else:
        assert re.fullmatch(
            rf"https://raw\.githubusercontent\.com/[\w-]+/\w+/[0-9a-f]{{40}}/[\w/]+/{re.escape(facts.filename)}",
            upstream.url,
        )
    assert (upstream.digest.sha256, upstream.digest.size_bytes) == DIGESTS.get(name, ("", 0))
    assert upstream.pinned == (name in DIGESTS)


@every_published
def test_notes_quote_the_authors_and_say_so(name: str) -> None:
    facts, texts = FACTS[name], notes(name)
    for text in texts.values():
        if re.search(r"\d", text):
            assert text.startswith("Published: ")
            assert text.endswith("; not measured by this project")
    classes = max(facts.accuracy)
    quoted = re.search(rf"([\d.]+) % on AffectNet's validation set \({classes} classes", texts["expression"])
    assert quoted is not None
    assert float(quoted[1]) == round(facts.accuracy[classes], len(quoted[1].partition(".")[2]))
    if facts.ccc:
        assert (
            f"CCC {facts.ccc[0]:.3f} (valence) and {facts.ccc[1]:.3f} (arousal)" in texts["valence_arousal"]
        )


@every_published
def test_metadata_of_the_card_hold_the_authors_figures_with_their_source(name: str) -> None:
    data, facts = card(name).data, FACTS[name]
    results = data.eval_results or []
    assert data.model_name == name
    assert (data.license, data.library_name, data.pipeline_tag) == ("other", "timm", "image-classification")
    assert data["license_name"]
    assert data["license_link"].startswith("https://")
    assert "AffectNet" in data.datasets
    assert all(result.source_name and (result.source_url or "").startswith("https://") for result in results)
    accuracy = {
        int(result.dataset_name.split()[1]): 100 * result.metric_value
        for result in results
        if result.metric_type == "accuracy"
    }
    assert accuracy == pytest.approx(facts.accuracy)
    assert tuple(result.metric_value for result in results if result.metric_type == "ccc") == (
        facts.ccc or ()
    )


@every_published
def test_the_card_says_what_the_manifest_says(name: str) -> None:
    checkpoint, facts = published(name), FACTS[name]
    text = " ".join(card(name).text.split())
    outputs = facts.outputs
    assert f"# {checkpoint.title} {checkpoint.summary} " in text
    assert (
        f"`{checkpoint.arch}` with {checkpoint.parameters:,} parameters, {checkpoint.dim:,}-dimensional"
        " embeddings" in text
    )
    assert f"and {checkpoint.outputs} outputs; published as `{facts.filename}`" in text
    assert f"A face of {checkpoint.input.size} by {checkpoint.input.size} px in RGB" in text
    assert f"| Column | {' | '.join(map(str, range(len(outputs))))} |" in text
    assert f"| Output | {' | '.join(outputs)} |" in text
    for figure in re.findall(r"([\d.]+ %|CCC [\d.]+)", " ".join(notes(name).values())):
        assert figure in text


@every_published
def test_the_card_tells_how_to_get_the_file_and_what_not_to_do_with_it(name: str) -> None:
    text = " ".join(card(name).text.split())
    wanted = name if upstream_of(name).url else FACTS[name].filename
    assert f"```sh hsemotion-space checkpoints import {wanted} ```" in text
    assert "nothing in it is executed" in text
    assert "**Nothing here was measured by this project.**" in text
    for word in (
        "not what a person feels",
        "Not for people at work or in education, hiring, surveillance",
        "untrained rule",
        "## Citation",
    ):
        assert word in text
