"""Publishing a checkpoint: what is made, what arrives on the Hub, and what is written back into the manifest."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from checkpoint_makers import HEADS, manifest_text
from fake_hub import FakeHub, Fault, use
from huggingface_hub import EvalResult, ModelCard, get_session
from publish_makers import CARD, FAMILIES, REPO, REVISION, make_starter, with_files
from safetensors.torch import load

from hsemotion_space.hub import client
from hsemotion_space.hub.manifest import MANIFEST, Checkpoint, read_manifest
from hsemotion_space.hub.publish import Publication, check, describe, prepare, publish, write_back
from hsemotion_space.hub.registry import list_checkpoints
from hsemotion_space.hub.source import CheckpointError, Digest, HubSource
from hsemotion_space.hub.weights import load_heads, resolve
from hsemotion_space.vision.backbones import load_backbone

ROOT = Path(__file__).resolve().parent.parent / "checkpoints"
STARTERS = [item for item in list_checkpoints([ROOT]) if item.source.bundled]
TOKEN = "hf_CanaryThatMustNotBeSeen"
WEIGHTS, HEADS_FILE = "model.safetensors", "heads.safetensors"


def code_of(action: Callable[[], object]) -> str:
    with pytest.raises(CheckpointError) as caught:
        action()
    return caught.value.code


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Publication:
    """The smallest checkpoint; tests leave its folder alone."""
    return make_starter(tmp_path_factory.mktemp("checkpoints") / "starter", *FAMILIES[0])


@pytest.mark.parametrize(
    ("arch", "family", "size", "args"), FAMILIES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_config_is_true_of_the_architecture(
    arch: str, family: str, size: int, args: Mapping[str, int], tmp_path: Path
) -> None:
    config = json.loads(make_starter(tmp_path / "starter", arch, family, size, args).files["config.json"])
    network = timm.create_model(arch, num_classes=10, **args)
    own = not type(network).__module__.startswith("timm.")
    assert (
        own
        == (family in {"MobileFaceNet", "DDAMFN"})
        == config["pretrained_cfg"]["fixed_input_size"]
        == ("global_pool" not in config)
    )
    assert (config["num_classes"], config["num_features"]) == (network.num_classes, network.num_features)
    assert network.get_submodule(config["pretrained_cfg"]["classifier"]) is network.get_classifier()
    assert network.get_submodule(config["pretrained_cfg"]["first_conv"]).in_channels == 3
    if not own:
        assert config["pretrained_cfg"]["first_conv"] == network.pretrained_cfg["first_conv"]
        assert config["pretrained_cfg"]["classifier"] == network.pretrained_cfg["classifier"]


def test_a_tag_of_timm_is_no_part_of_the_architecture_on_the_hub(model: Publication, tmp_path: Path) -> None:
    tagged = replace(model.checkpoint, arch="mobilefacenet_small.some_tag")
    assert (
        json.loads(
            prepare(tagged, model.files["model.safetensors"], model.files["heads.safetensors"]).files[
                "config.json"
            ]
        )["architecture"]
        == "mobilefacenet_small"
    )


def test_a_downloaded_repository_is_a_checkpoint(model: Publication, tmp_path: Path) -> None:
    change = {"source": replace(model.checkpoint.source, hub=HubSource(REPO, REVISION, "model.safetensors"))}
    folder = tmp_path / "starter"
    folder.mkdir()
    for name, content in prepare(
        replace(model.checkpoint, **change),
        model.files["model.safetensors"],
        model.files["heads.safetensors"],
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
    unknown = replace(model.checkpoint, source=replace(model.checkpoint.source, weights=Digest()))
    cases = {
        "wrong_bytes": (model.checkpoint, weights[:-1] + b"?", heads),
        "no_card": (replace(model.checkpoint, folder=tmp_path), weights, heads),
        "bad_layers": (replace(model.checkpoint, outputs=8), weights, heads),
        "unreadable": (unknown, b"no tensors", heads),
    }
    assert [code_of(lambda given=given: prepare(*given)) for given in cases.values()] == list(cases)
    assert code_of(lambda: prepare(model.checkpoint, weights, b"")) == "wrong_bytes"


@pytest.mark.parametrize("checkpoint", STARTERS, ids=lambda checkpoint: checkpoint.id)
def test_every_starter_can_be_published(checkpoint: Checkpoint, tmp_path: Path) -> None:
    publication = prepare(
        checkpoint, resolve(checkpoint, tmp_path), (checkpoint.folder / "heads.safetensors").read_bytes()
    )
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


def test_a_card_that_the_hub_could_not_use_is_found(model: Publication) -> None:
    assert check(model) == []
    for old, new, problem in (
        ("license: other\n", "", "needs license"),
        ("license_name: research-use-only\n", "", "needs a license_name"),
        ("research-use-only", "Research use", "needs a license_name"),
        ("library_name: timm\n", "", "needs library_name"),
        ("library_name: timm", "library_name: keras", "must be timm"),
        ("pipeline_tag: image-classification\n", "", "needs pipeline_tag"),
        ("tags: [facial-expression-recognition]", "tags: []", "needs tags"),
        ("tags: [", "tags: [[", "cannot be read"),
        ("- name: starter", "- title: starter", "cannot be read"),
        (CARD, "# Nothing but text", "needs license"),
    ):
        assert old in CARD
        broken = with_files(model, README_md=CARD.replace(old, new).encode())
        assert problem in " ".join(check(broken)), old
    assert problem in describe(broken, REPO)
    assert code_of(lambda: publish(broken, REPO, "hf_any")) == "not_publishable"


def test_files_that_do_not_belong_together_are_found(model: Publication) -> None:
    problems = " ".join(check(with_files(model, model_safetensors=b"", heads_safetensors=b"?")))
    assert "model.safetensors is empty" in problems
    assert "model.safetensors does not have the SHA-256 of the manifest" in problems
    assert "heads.safetensors does not have the SHA-256 of the manifest" in problems


BUNDLED = (
    '[source]  # where\nbundled = "model.safetensors"  # here\nsha256 = "{sha256}"\nheads_sha256 ='
    ' "{heads}"\n'
)
OLD = (
    'repo = "old/name"{end}revision = "9999999999999999999999999999999999999999"{end}filename ='
    ' "old.safetensors"'
)
SOURCES = [
    BUNDLED,
    BUNDLED + f"hub = {{{{ {OLD.format(end=', ')} }}}}  # old\n",
    BUNDLED + "# theirs\n" + '[source.upstream]\nfilename = "model.pt"\n',
    BUNDLED + "\n[source.hub]\n" + OLD.format(end="\n") + "\n",
]
COMMENTS = ("# mine", "# where", "# here", "# theirs", "# what it is")


@pytest.mark.parametrize("source", SOURCES)
def test_the_manifest_says_where_it_was_published_and_is_otherwise_as_before(
    model: Publication, source: str, tmp_path: Path
) -> None:
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
        assert code_of(lambda pair=pair: write_back(folder, hub, *pair)) == "other_files"
    assert (folder / MANIFEST).read_text("utf-8") == text


def test_a_checkpoint_known_only_by_its_published_file_gets_all_of_it(
    model: Publication, tmp_path: Path
) -> None:
    weights = Digest.of(model.files["model.safetensors"])
    folder = tmp_path / "starter"
    folder.mkdir()
    text = manifest_text("starter", weights.sha256, heads=HEADS)
    text = text.replace(
        f'[source]\nbundled = "model.safetensors"\nsha256 = "{weights.sha256}"\n',
        '[source.upstream]\nfilename = "model.pt"\n\n',
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
    text = (
        (model.checkpoint.folder / MANIFEST)
        .read_text("utf-8")
        .replace("[input]", '[source.upstream]\nfilename = "model.pt"\n[input]')
    )
    (folder / MANIFEST).write_text(text, "utf-8")
    hub = HubSource(REPO, REVISION, WEIGHTS)
    assert (
        code_of(lambda: write_back(folder, hub, Digest.of(model.files[WEIGHTS]), Digest())) == "split_source"
    )
    assert (folder / MANIFEST).read_text("utf-8") == text


def test_a_manifest_that_cannot_be_written_tells_what_to_add(
    model: Publication, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere/secret")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(CheckpointError) as caught:
        write_back(
            model.checkpoint.folder,
            HubSource(REPO, REVISION, WEIGHTS),
            Digest.of(model.files[WEIGHTS]),
            Digest.of(model.files[HEADS_FILE]),
        )
    assert caught.value.code == "disk"
    assert f'repo = "{REPO}", revision = "{REVISION}"' in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long publishing paused before another try, in s."""
    paused: list[float] = []
    monkeypatch.setattr(client, "sleep", paused.append)
    return paused


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits: list[float]) -> Iterator[FakeHub]:
    with FakeHub(TOKEN) as hub, use(hub, monkeypatch, tmp_path / "cache"):
        yield hub


@pytest.mark.parametrize(
    ("arch", "family", "size", "args"), FAMILIES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_timm_loads_what_was_published(
    arch: str, family: str, size: int, args: Mapping[str, int], tmp_path: Path, hub: FakeHub
) -> None:
    publication = make_starter(tmp_path / "starter", arch, family, size, args)
    checkpoint = publication.checkpoint
    source = publish(publication, REPO, TOKEN)
    assert hub.files(REPO).items() >= publication.files.items()
    reference = load_backbone(arch, args, checkpoint.dim, 10, load(publication.files["model.safetensors"]))
    pictures = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    name = f"hf-hub:{REPO}@{source.revision}"
    with torch.inference_mode():
        embeddings, scores = reference(pictures)
        full, bare, fresh = (
            timm.create_model(name, pretrained=True, **options).eval()
            for options in ({}, {"num_classes": 0}, {"num_classes": 5})
        )
        assert torch.equal(full(pictures), scores)
        assert torch.equal(bare(pictures), embeddings)
        assert torch.equal(fresh.forward_head(fresh.forward_features(pictures), pre_logits=True), embeddings)
        assert fresh(pictures).shape == (2, 5)
    assert (scores[0] != scores[1]).any()
    assert not torch.equal(timm.create_model(name, pretrained=False).eval()(pictures), scores)
    data = timm.data.resolve_model_data_config(full)
    assert (tuple(data["input_size"]), data["interpolation"], data["crop_pct"]) == (
        (3, size, size),
        "bilinear",
        1.0,
    )
    assert (tuple(data["mean"]), tuple(data["std"])) == (checkpoint.input.mean, checkpoint.input.std)
    assert full.pretrained_cfg["label_names"] == [
        label for head in checkpoint.heads if head.columns for label in head.task.label_names
    ]


def test_weights_for_another_size_of_picture_are_refused(model: Publication, hub: FakeHub) -> None:
    publish(model, REPO, TOKEN)
    with pytest.raises(RuntimeError, match="size mismatch"):
        timm.create_model(f"hf-hub:{REPO}", pretrained=True, img_size=112, num_classes=5)


def test_a_description_shows_everything_and_asks_for_nothing(model: Publication, hub: FakeHub) -> None:
    text = describe(model, REPO)
    assert hub.requests == []
    assert REPO in text
    for name, content in model.files.items():
        assert f"{len(content):,} bytes  SHA-256 {hashlib.sha256(content).hexdigest()}" in text, name
    assert "license_name: research-use-only" in text
    assert '"architecture": "mobilefacenet_small"' in text
    assert text.endswith("Problems\n  none")


def test_publishing_again_changes_only_what_differs(model: Publication, hub: FakeHub) -> None:
    first = publish(model, REPO, TOKEN)
    assert first == HubSource(REPO, hub.commits(REPO)[-1].oid, "model.safetensors")
    assert len(hub.commits(REPO)) == 2  # the first is that of making the repository
    assert publish(model, REPO, TOKEN) == first
    assert len(hub.commits(REPO)) == 2
    hub.commit(REPO, {"notes.txt": b"of somebody else"})
    without = replace(
        model, files={name: content for name, content in model.files.items() if name != "recipe.toml"}
    )
    second = publish(with_files(without, README_md=CARD.encode() + b"more\n"), REPO, TOKEN)
    files = hub.files(REPO, revision=second.revision)
    assert len(hub.commits(REPO)) == 4
    assert files["README.md"].endswith(b"more\n")
    assert "recipe.toml" not in files
    assert files["notes.txt"] == b"of somebody else"


def test_a_new_repository_is_private_if_asked_for(model: Publication, hub: FakeHub) -> None:
    for private in (False, True):
        publish(model, f"{REPO}-{private}", TOKEN, private)
        assert get_session().get(f"{hub.url}/api/models/{REPO}-{private}").status_code == (
            401 if private else 200
        )


FAILURES = [
    (Fault("status", r"/api/repos/create", status=401, count=None), "refused"),
    (Fault("status", r"/preupload/", status=403, count=None), "refused"),
    (Fault("status", r"/objects/batch", status=403, count=None), "refused"),
    (Fault("status", r"/lfs/models/", status=403, count=None), "refused"),
    (Fault("status", r"/commit/", status=404, count=None), "refused"),
    (Fault("status", r"/commit/", status=413, count=None), "refused"),
    (
        Fault("status", r"validate-yaml", status=400, body=b'{"errors": [{"message": "no such license"}]}'),
        "card_refused",
    ),
    (Fault("status", r"/commit/", status=429, count=None), "status"),
    (Fault("status", r"/preupload/", status=500, count=None), "status"),
    (Fault("reset", r"/commit/", count=None), "connection"),
    (Fault("hang", r"/commit/", count=None), "no_answer"),
    (Fault("hang", r"validate-yaml", count=None), "no_answer"),
    (Fault("garbage", r"/tree/", count=None), "not_understood"),
    (Fault("garbage", r"repos/create", count=None), "not_understood"),
]


def everything_said(
    error: BaseException, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], folder: Path
) -> str:
    written = "".join(
        file.read_bytes().decode("utf-8", "replace") for file in folder.rglob("*") if file.is_file()
    )
    return "".join(traceback.format_exception(error)) + caplog.text + "".join(capfd.readouterr()) + written


@pytest.mark.parametrize(("fault", "code"), FAILURES, ids=lambda value: getattr(value, "kind", ""))
def test_every_failure_has_a_code_and_never_shows_the_token(
    fault: Fault,
    code: str,
    model: Publication,
    hub: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(client, "UPLOAD_TIMEOUT_S", 0.3)
    hub.fail(replace(fault))
    with caplog.at_level(logging.DEBUG), pytest.raises(CheckpointError) as caught:
        publish(model, REPO, TOKEN)
    assert caught.value.code == code
    assert TOKEN not in everything_said(caught.value, caplog, capfd, tmp_path)
    assert len(hub.commits(REPO) if hub.has_repo(REPO) else []) <= (2 if "tree" in fault.path else 1)


@pytest.mark.parametrize(
    ("fault", "tries"),
    [
        (Fault("status", r"/commit/", status=429, headers={"Retry-After": "7"}), 2),
        (Fault("status", r"/commit/", status=412), 2),
        (Fault("status", r"/api/repos/create", status=502, count=2), 3),
        (Fault("lost_response", r"/commit/"), 2),
        (Fault("lost_response", r"/api/repos/create"), 2),
        (Fault("garbage", r"/commit/"), 2),
        (Fault("reset", r"/lfs/models/"), 1),
        (Fault("hang", r"/commit/", wait_s=1.0), 2),
        (Fault("status", r"/tree/", status=500), 2),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_what_passes_is_tried_again_and_makes_one_commit(
    fault: Fault,
    tries: int,
    model: Publication,
    hub: FakeHub,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "UPLOAD_TIMEOUT_S", 0.5)
    armed = hub.fail(replace(fault))
    source = publish(model, REPO, TOKEN)
    assert armed.hits == (fault.count or 0)
    assert len(hub.seen("POST", "validate-yaml$")) >= tries
    assert len(waits) == tries - 1
    assert all(0 < wait_s <= 30 for wait_s in waits)
    if "Retry-After" in fault.headers:
        assert waits == [7]
    if fault.kind == "hang":
        time.sleep(fault.wait_s)  # the Hub goes on with the request that nobody waits for
    assert [commit.oid for commit in hub.commits(REPO)][1:] == [source.revision]
    assert hub.files(REPO, revision=source.revision).items() >= model.files.items()


def test_only_what_is_there_is_reported(model: Publication, hub: FakeHub) -> None:
    rows = [
        {"type": "file", "path": name, "size": 1, "oid": "0" * 40}
        for name in model.files
        if name != "README.md"
    ]
    hub.fail(Fault("status", r"/tree/", status=200, body=json.dumps(rows).encode(), count=None))
    assert code_of(lambda: publish(model, REPO, TOKEN)) == "wrong_bytes"


def test_offline_nothing_is_sent(model: Publication, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:  # undone before the stand-in for the Hub is
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert code_of(lambda: publish(model, REPO, TOKEN)) == "offline"
        assert hub.requests == []


def test_no_request_is_made_with_an_impossible_token_or_name(model: Publication, hub: FakeHub) -> None:
    for token in ("", " ", f"{TOKEN}\n", f"{TOKEN} {TOKEN}", "käse"):
        assert code_of(lambda token=token: publish(model, REPO, token)) == "bad_token"
    for repo in ("", "name", "a/b/c", "own er/name", "owner/na--me", "owner/.name"):
        assert code_of(lambda repo=repo: publish(model, repo, TOKEN)) == "invalid_value"
    assert hub.requests == []
