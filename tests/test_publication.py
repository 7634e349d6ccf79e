"""What is made for the Hub, and what is written back into the manifest; no request is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import timm
from checkpoint_makers import HEADS, manifest_text
from huggingface_hub import EvalResult, ModelCard
from publish_makers import CARD, FAMILIES, REPO, REVISION, make_starter, with_files

from hsemotion_space.hub.manifest import MANIFEST, Checkpoint, CheckpointError, list_checkpoints, read_manifest
from hsemotion_space.hub.publish import Publication, check, describe, prepare, publish, write_back
from hsemotion_space.hub.resolve import load_heads, resolve
from hsemotion_space.hub.source import Digest, HubSource

ROOT = Path(__file__).resolve().parent.parent / "checkpoints"
STARTERS = [item for item in list_checkpoints([ROOT]) if item.source.bundled]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Publication:
    """The smallest checkpoint; tests leave its folder alone."""
    return make_starter(tmp_path_factory.mktemp("checkpoints") / "starter", *FAMILIES[0])


@pytest.mark.parametrize(("arch", "family", "size", "args"), FAMILIES, ids=lambda value: value if isinstance(value, str) else "")
def test_the_config_is_true_of_the_architecture(arch: str, family: str, size: int, args: Mapping[str, int], tmp_path: Path) -> None:
    config = json.loads(make_starter(tmp_path / "starter", arch, family, size, args).files["config.json"])
    network = timm.create_model(arch, num_classes=10, **args)
    own = not type(network).__module__.startswith("timm.")
    assert own == (family in {"MobileFaceNet", "DDAMFN"}) == config["pretrained_cfg"]["fixed_input_size"] == ("global_pool" not in config)
    assert (config["num_classes"], config["num_features"]) == (network.num_classes, network.num_features)
    assert network.get_submodule(config["pretrained_cfg"]["classifier"]) is network.get_classifier()
    assert network.get_submodule(config["pretrained_cfg"]["first_conv"]).in_channels == 3
    if not own:
        assert config["pretrained_cfg"]["first_conv"] == network.pretrained_cfg["first_conv"]
        assert config["pretrained_cfg"]["classifier"] == network.pretrained_cfg["classifier"]


def test_a_tag_of_timm_is_no_part_of_the_architecture_on_the_hub(model: Publication, tmp_path: Path) -> None:
    tagged = replace(model.checkpoint, arch="mobilefacenet_small.some_tag")
    assert (
        json.loads(prepare(tagged, model.files["model.safetensors"], model.files["heads.safetensors"]).files["config.json"])["architecture"]
        == "mobilefacenet_small"
    )


def test_a_downloaded_repository_is_a_checkpoint(model: Publication, tmp_path: Path) -> None:
    change = {"source": replace(model.checkpoint.source, hub=HubSource(REPO, REVISION, "model.safetensors"))}
    folder = tmp_path / "starter"
    folder.mkdir()
    for name, content in prepare(
        replace(model.checkpoint, **change), model.files["model.safetensors"], model.files["heads.safetensors"]
    ).files.items():
        (folder / name).write_bytes(content)
    checkpoint = read_manifest(folder)
    assert checkpoint.source.hub is None
    assert resolve(checkpoint, tmp_path / "cache") == model.files["model.safetensors"]
    assert load_heads(checkpoint).keys() == {"action_units"}
    assert (checkpoint.source.weights.size_bytes, checkpoint.source.heads.size_bytes) == (
        len(model.files["model.safetensors"]),
        len(model.files["heads.safetensors"]),
    )
    assert (checkpoint.heads, checkpoint.input, checkpoint.arch_args) == (
        model.checkpoint.heads,
        model.checkpoint.input,
        model.checkpoint.arch_args,
    )


def test_only_what_the_manifest_means_is_prepared(model: Publication, tmp_path: Path) -> None:
    weights, heads = model.files["model.safetensors"], model.files["heads.safetensors"]
    with pytest.raises(CheckpointError, match="not the weights"):
        prepare(model.checkpoint, weights[:-1] + b"?", heads)
    with pytest.raises(CheckpointError, match="not the heads"):
        prepare(model.checkpoint, weights, b"")
    with pytest.raises(CheckpointError, match=r"no model card; write README\.md"):
        prepare(replace(model.checkpoint, folder=tmp_path), weights, heads)
    with pytest.raises(CheckpointError, match="must have one output layer, found none"):
        prepare(replace(model.checkpoint, outputs=8), weights, heads)
    with pytest.raises(CheckpointError, match="cannot be read"):
        prepare(replace(model.checkpoint, source=replace(model.checkpoint.source, weights=Digest())), b"no tensors", heads)


@pytest.mark.parametrize("checkpoint", STARTERS, ids=lambda checkpoint: checkpoint.id)
def test_every_starter_can_be_published(checkpoint: Checkpoint, tmp_path: Path) -> None:
    publication = prepare(checkpoint, resolve(checkpoint, tmp_path), (checkpoint.folder / "heads.safetensors").read_bytes())
    assert check(publication) == []
    assert publication.files.keys() == {
        *("LICENSE", "README.md", "config.json", "heads.safetensors", "manifest.toml"),
        *("model.safetensors", "recipe.toml", "training.json"),
    }
    data = ModelCard(publication.files["README.md"].decode()).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("timm", "image-classification", "other")
    assert data.eval_results
    assert all(isinstance(item, EvalResult) and 0 < item.metric_value < 1 for item in data.eval_results)
    record = json.loads(publication.files["training.json"])["evaluation"]
    assert len(data.eval_results) == 2 * len(record)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("license: other\n", "", "lacks license"),
        ("license_name: research-use-only\n", "", "needs a license_name"),
        ("research-use-only", "Research use", "needs a license_name"),
        ("library_name: timm\n", "", "lacks library_name"),
        ("library_name: timm", "library_name: keras", "must be timm"),
        ("pipeline_tag: image-classification\n", "", "lacks pipeline_tag"),
        ("tags: [facial-expression-recognition]", "tags: []", "lacks tags"),
        ("tags: [", "tags: [[", "cannot be read"),
        ("- name: starter", "- title: starter", "cannot be read"),
        (CARD, "# Nothing but text", "lacks license"),
    ],
)
def test_a_card_that_the_hub_could_not_use_is_found(model: Publication, old: str, new: str, problem: str) -> None:
    assert old in CARD
    broken = with_files(model, README_md=CARD.replace(old, new).encode())
    assert check(model) == []
    assert problem in " ".join(check(broken))
    assert problem in describe(broken, REPO)
    with pytest.raises(CheckpointError, match="cannot be published"):
        publish(broken, REPO, "hf_any")


def test_files_that_do_not_belong_together_are_found(model: Publication) -> None:
    problems = " ".join(check(with_files(model, model_safetensors=b"", heads_safetensors=b"?")))
    assert "model.safetensors is empty" in problems
    assert "model.safetensors is not the file that manifest.toml means" in problems
    assert "heads.safetensors is not the file that manifest.toml means" in problems


BUNDLED = '[source]  # where\nbundled = "model.safetensors"  # here\nsha256 = "{sha256}"\nheads_sha256 = "{heads}"\n'
OLD = 'repo = "old/name"{end}revision = "9999999999999999999999999999999999999999"{end}filename = "old.safetensors"'
SOURCES = [
    BUNDLED,
    BUNDLED + f"hub = {{{{ {OLD.format(end=', ')} }}}}  # old\n",
    BUNDLED + "# theirs\n" + '[source.upstream]\nfilename = "model.pt"\n',
    BUNDLED + "\n[source.hub]\n" + OLD.format(end="\n") + "\n",
]
COMMENTS = ("# mine", "# where", "# here", "# theirs", "# what it is")


@pytest.mark.parametrize("source", SOURCES)
def test_the_manifest_says_where_it_was_published_and_is_otherwise_as_before(model: Publication, source: str, tmp_path: Path) -> None:
    weights, heads = (Digest.of(model.files[name]) for name in ("model.safetensors", "heads.safetensors"))
    folder = tmp_path / "starter"
    folder.mkdir()
    head, _, rest = (model.checkpoint.folder / MANIFEST).read_text("utf-8").partition("[source]")
    table = source.format(sha256=weights.sha256, heads=heads.sha256)
    rest = rest[rest.index("\n# what it is") :]
    before_text = f"# mine\n{head}{table}{rest}"
    (folder / MANIFEST).write_text(before_text, "utf-8")
    before = read_manifest(folder)
    hub = HubSource(REPO, REVISION, "model.safetensors")
    after = write_back(folder, hub, weights, heads)
    assert after == read_manifest(folder)
    assert after.source.hub == hub
    assert (after.source.weights, after.source.heads) == (weights, heads)
    assert replace(after, source=before.source) == before
    assert (after.source.bundled, after.source.upstream) == (before.source.bundled, before.source.upstream)
    text = (folder / MANIFEST).read_text("utf-8")
    assert text.startswith(f"# mine\n{head}")
    assert text.endswith(rest)
    assert all((comment in text) == (comment in before_text) for comment in COMMENTS)
    assert [file.name for file in folder.iterdir()] == [MANIFEST]
    write_back(folder, hub, weights, heads)
    assert (folder / MANIFEST).read_text("utf-8") == text


def test_a_manifest_about_other_files_is_left_alone(model: Publication, tmp_path: Path) -> None:
    folder = tmp_path / "starter"
    folder.mkdir()
    text = (model.checkpoint.folder / MANIFEST).read_text("utf-8")
    (folder / MANIFEST).write_text(text, "utf-8")
    hub = HubSource(REPO, REVISION, "model.safetensors")
    weights, heads = (Digest.of(model.files[name]) for name in ("model.safetensors", "heads.safetensors"))
    for pair in ((Digest.of(b"other"), heads), (weights, Digest.of(b"other"))):
        with pytest.raises(CheckpointError, match="names other files"):
            write_back(folder, hub, *pair)
    assert (folder / MANIFEST).read_text("utf-8") == text


def test_a_checkpoint_known_only_by_its_published_file_gets_all_of_it(model: Publication, tmp_path: Path) -> None:
    weights = Digest.of(model.files["model.safetensors"])
    folder = tmp_path / "starter"
    folder.mkdir()
    text = manifest_text("starter", weights.sha256, heads=HEADS)
    text = text.replace(
        f'[source]\nbundled = "model.safetensors"\nsha256 = "{weights.sha256}"\n', '[source.upstream]\nfilename = "model.pt"\n\n'
    )
    for name, content in ((MANIFEST, text), ("README.md", CARD)):
        (folder / name).write_text(content, "utf-8")
    assert check(prepare(read_manifest(folder), model.files["model.safetensors"], b"")) == []
    checkpoint = write_back(folder, HubSource(REPO, REVISION, "model.safetensors"), weights, Digest())
    assert (checkpoint.source.weights, checkpoint.source.heads) == (weights, Digest())
    assert checkpoint.source.upstream is not None


def test_a_source_in_several_places_is_not_guessed_at(model: Publication, tmp_path: Path) -> None:
    folder = tmp_path / "starter"
    folder.mkdir()
    text = (model.checkpoint.folder / MANIFEST).read_text("utf-8").replace("[input]", '[source.upstream]\nfilename = "model.pt"\n[input]')
    (folder / MANIFEST).write_text(text, "utf-8")
    with pytest.raises(CheckpointError, match="in several places"):
        write_back(folder, HubSource(REPO, REVISION, "model.safetensors"), Digest.of(model.files["model.safetensors"]), Digest())
    assert (folder / MANIFEST).read_text("utf-8") == text


def test_a_manifest_that_cannot_be_written_tells_what_to_add(model: Publication, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere/secret")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(CheckpointError, match=rf'Permission denied\)\. Add .+ hub = {{ repo = "{REPO}", revision = "{REVISION}"') as caught:
        write_back(
            model.checkpoint.folder,
            HubSource(REPO, REVISION, "model.safetensors"),
            Digest.of(model.files["model.safetensors"]),
            Digest.of(model.files["heads.safetensors"]),
        )
    assert "secret" not in str(caught.value)
