"""Publishing a checkpoint: what is made, what arrives on the Hub, and what is written back into the manifest."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from checkpoint_makers import HEADS, manifest_text
from error_codes import raises_code
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
from hsemotion_space.messages import MessageError
from hsemotion_space.vision.backbones import load_backbone

ROOT = Path(__file__).resolve().parent.parent / "checkpoints"
STARTERS = [item for item in list_checkpoints([ROOT]) if item.source.bundled]
TOKEN = "hf_CanaryThatMustNotBeSeen"
WEIGHTS, HEADS_FILE = "model.safetensors", "heads.safetensors"


def refused(*codes: str) -> AbstractContextManager[pytest.ExceptionInfo[MessageError]]:
    return raises_code(CheckpointError, *codes)


each_family = pytest.mark.parametrize(
    ("arch", "family", "size", "args"), FAMILIES, ids=lambda value: value if isinstance(value, str) else ""
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Publication:
    """The smallest checkpoint; tests leave its folder alone."""
    return make_starter(tmp_path_factory.mktemp("checkpoints") / "starter", *FAMILIES[0])


def prepared(model: Publication, checkpoint: Checkpoint, **files: bytes) -> Publication:
    """Prepare a checkpoint with the files of the model, or with ``weights`` or ``heads`` in their place."""
    return prepare(
        checkpoint, files.get("weights", model.files[WEIGHTS]), files.get("heads", model.files[HEADS_FILE])
    )


def digests(model: Publication) -> tuple[Digest, Digest]:
    return Digest.of(model.files[WEIGHTS]), Digest.of(model.files[HEADS_FILE])


def copied(folder: Path, text: str) -> Path:
    """Write a manifest into a folder of its own."""
    folder.mkdir()
    (folder / MANIFEST).write_text(text, "utf-8")
    return folder


@each_family
def test_prepare_describes_the_architecture(
    arch: str, family: str, size: int, args: Mapping[str, int], tmp_path: Path
) -> None:
    config = json.loads(make_starter(tmp_path / "starter", arch, family, size, args).files["config.json"])
    network, pretrained = timm.create_model(arch, num_classes=10, **args), config["pretrained_cfg"]
    own = not type(network).__module__.startswith("timm.")
    assert own == (family in {"MobileFaceNet", "DDAMFN"}) == pretrained["fixed_input_size"]
    assert own == ("global_pool" not in config)
    assert (config["num_classes"], config["num_features"]) == (network.num_classes, network.num_features)
    assert network.get_submodule(pretrained["classifier"]) is network.get_classifier()
    assert network.get_submodule(pretrained["first_conv"]).in_channels == 3
    for key in () if own else ("first_conv", "classifier"):
        assert pretrained[key] == network.pretrained_cfg[key]


def test_prepare_leaves_out_the_tag_of_timm(model: Publication) -> None:
    tagged = prepared(model, replace(model.checkpoint, arch="mobilefacenet_small.some_tag"))
    assert json.loads(tagged.files["config.json"])["architecture"] == "mobilefacenet_small"


def test_prepare_makes_a_checkpoint_of_the_repository(model: Publication, tmp_path: Path) -> None:
    given = model.checkpoint
    on_hub = replace(given, source=replace(given.source, hub=HubSource(REPO, REVISION, WEIGHTS)))
    folder = copied(tmp_path / "starter", "")
    for name, content in prepared(model, on_hub).files.items():
        (folder / name).write_bytes(content)
    checkpoint = read_manifest(folder)
    assert checkpoint.source.hub is None
    assert resolve(checkpoint, tmp_path / "cache") == model.files[WEIGHTS]
    assert load_heads(checkpoint).keys() == {"action_units"}
    assert (checkpoint.source.weights, checkpoint.source.heads) == digests(model)
    same = replace(checkpoint, folder=given.folder, source=given.source)
    assert same == given


def test_prepare_refuses_other_files(model: Publication, tmp_path: Path) -> None:
    checkpoint = model.checkpoint
    unknown = replace(checkpoint, source=replace(checkpoint.source, weights=Digest()))
    for code, given, files in (
        ("wrong_bytes", checkpoint, {"weights": model.files[WEIGHTS][:-1] + b"?"}),
        ("wrong_bytes", checkpoint, {"heads": b""}),
        ("no_card", replace(checkpoint, folder=tmp_path), {}),
        ("bad_layers", replace(checkpoint, outputs=8), {}),
        ("unreadable", unknown, {"weights": b"no tensors"}),
    ):
        with refused(code):
            prepared(model, given, **files)


@pytest.mark.parametrize("checkpoint", STARTERS, ids=lambda checkpoint: checkpoint.id)
def test_prepare_every_starter(checkpoint: Checkpoint, tmp_path: Path) -> None:
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


def test_check_finds_a_card_that_the_hub_cannot_use(model: Publication) -> None:
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
    with refused("not_publishable"):
        publish(broken, REPO, "hf_any")


def test_check_finds_files_that_do_not_belong_together(model: Publication) -> None:
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
def test_write_back_changes_the_source_alone(model: Publication, source: str, tmp_path: Path) -> None:
    weights, heads = digests(model)
    head, _, rest = (model.checkpoint.folder / MANIFEST).read_text("utf-8").partition("[source]")
    rest = rest[rest.index("\n# what it is") :]
    before_text = f"# mine\n{head}{source.format(sha256=weights.sha256, heads=heads.sha256)}{rest}"
    folder = copied(tmp_path / "starter", before_text)
    before = read_manifest(folder)
    hub = HubSource(REPO, REVISION, WEIGHTS)
    after = write_back(folder, hub, weights, heads)
    assert after == read_manifest(folder)
    assert after == replace(before, source=replace(before.source, hub=hub, weights=weights, heads=heads))
    text = (folder / MANIFEST).read_text("utf-8")
    assert text.startswith(f"# mine\n{head}")
    assert text.endswith(rest)
    assert all((comment in text) == (comment in before_text) for comment in COMMENTS)
    assert [file.name for file in folder.iterdir()] == [MANIFEST]
    write_back(folder, hub, weights, heads)
    assert (folder / MANIFEST).read_text("utf-8") == text


def test_write_back_refuses_other_files_and_a_source_in_several_places(
    model: Publication, tmp_path: Path
) -> None:
    text, other = (model.checkpoint.folder / MANIFEST).read_text("utf-8"), Digest.of(b"other")
    weights, heads = digests(model)
    split = text.replace("[input]", '[source.upstream]\nfilename = "model.pt"\n[input]')
    folder = copied(tmp_path / "starter", text)
    for code, content, pair in (
        ("other_files", text, (other, heads)),
        ("other_files", text, (weights, other)),
        ("split_source", split, (weights, Digest())),
    ):
        (folder / MANIFEST).write_text(content, "utf-8")
        with refused(code):
            write_back(folder, HubSource(REPO, REVISION, WEIGHTS), *pair)
        assert (folder / MANIFEST).read_text("utf-8") == content


def test_write_back_of_a_checkpoint_known_by_its_published_file(model: Publication, tmp_path: Path) -> None:
    weights, _ = digests(model)
    text = manifest_text("starter", weights.sha256, heads=HEADS).replace(
        f'[source]\nbundled = "model.safetensors"\nsha256 = "{weights.sha256}"\n',
        '[source.upstream]\nfilename = "model.pt"\n\n',
    )
    folder = copied(tmp_path / "starter", text)
    (folder / "README.md").write_text(CARD, "utf-8")
    assert check(prepared(model, read_manifest(folder), heads=b"")) == []
    source = write_back(folder, HubSource(REPO, REVISION, WEIGHTS), weights, Digest()).source
    assert (source.weights, source.heads) == (weights, Digest())
    assert source.upstream is not None


def test_write_back_that_cannot_write_says_what_to_add(
    model: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere/secret")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with refused("disk") as caught:
        write_back(model.checkpoint.folder, HubSource(REPO, REVISION, WEIGHTS), *digests(model))
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


@each_family
def test_publish_for_timm(
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
    expected = {"input_size": (3, size, size), "interpolation": "bilinear", "crop_pct": 1.0}
    expected |= {"mean": checkpoint.input.mean, "std": checkpoint.input.std}
    found = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    assert {key: found[key] for key in expected} == expected
    assert full.pretrained_cfg["label_names"] == [
        label for head in checkpoint.heads if head.columns for label in head.task.label_names
    ]


def test_publish_fixes_the_size_of_the_picture(model: Publication, hub: FakeHub) -> None:
    publish(model, REPO, TOKEN)
    with pytest.raises(RuntimeError, match="size mismatch"):
        timm.create_model(f"hf-hub:{REPO}", pretrained=True, img_size=112, num_classes=5)


def test_describe_shows_everything_without_a_request(model: Publication, hub: FakeHub) -> None:
    text = describe(model, REPO)
    assert hub.requests == []
    assert REPO in text
    for name, content in model.files.items():
        assert f"{len(content):,} bytes  SHA-256 {hashlib.sha256(content).hexdigest()}" in text, name
    assert "license_name: research-use-only" in text
    assert '"architecture": "mobilefacenet_small"' in text
    assert text.endswith("Problems\n  none")


def test_publish_again_changes_only_what_differs(model: Publication, hub: FakeHub) -> None:
    first = publish(model, REPO, TOKEN)
    assert first == HubSource(REPO, hub.commits(REPO)[-1].oid, "model.safetensors")
    assert len(hub.commits(REPO)) == 2  # the first is that of making the repository
    assert publish(model, REPO, TOKEN) == first
    assert len(hub.commits(REPO)) == 2
    hub.commit(REPO, {"notes.txt": b"of somebody else"})
    fewer = {name: content for name, content in model.files.items() if name != "recipe.toml"}
    changed = with_files(replace(model, files=fewer), README_md=CARD.encode() + b"more\n")
    second = publish(changed, REPO, TOKEN)
    files = hub.files(REPO, revision=second.revision)
    assert len(hub.commits(REPO)) == 4
    assert files["README.md"].endswith(b"more\n")
    assert "recipe.toml" not in files
    assert files["notes.txt"] == b"of somebody else"


def test_publish_a_private_repository(model: Publication, hub: FakeHub) -> None:
    for private, status in ((False, 200), (True, 401)):
        publish(model, f"{REPO}-{private}", TOKEN, private)
        assert get_session().get(f"{hub.url}/api/models/{REPO}-{private}").status_code == status


def refusing(path: str, status: int) -> Fault:
    return Fault("status", path, status=status, count=None)


FAILURES = [
    (refusing(r"/api/repos/create", 401), "refused"),
    (refusing(r"/preupload/", 403), "refused"),
    (refusing(r"/objects/batch", 403), "refused"),
    (refusing(r"/lfs/models/", 403), "refused"),
    (refusing(r"/commit/", 404), "refused"),
    (refusing(r"/commit/", 413), "refused"),
    (Fault("status", r"validate-yaml", status=400, body=b'{"errors": [{"message": "bad"}]}'), "card_refused"),
    (refusing(r"/commit/", 429), "status"),
    (refusing(r"/preupload/", 500), "status"),
    (Fault("reset", r"/commit/", count=None), "connection"),
    (Fault("hang", r"/commit/", count=None), "no_answer"),
    (Fault("hang", r"validate-yaml", count=None), "no_answer"),
    (Fault("garbage", r"/tree/", count=None), "not_understood"),
    (Fault("garbage", r"repos/create", count=None), "not_understood"),
]


@pytest.mark.parametrize(("fault", "code"), FAILURES, ids=lambda value: getattr(value, "kind", ""))
def test_publish_failure_has_a_code_and_never_shows_the_token(
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
    with caplog.at_level(logging.DEBUG), refused(code) as caught:
        publish(model, REPO, TOKEN)
    shown = ["".join(traceback.format_exception(caught.value)), caplog.text, *capfd.readouterr()]
    assert TOKEN not in "".join(shown)
    assert not [
        file for file in tmp_path.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()
    ]
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
def test_publish_retries_and_makes_one_commit(
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


def test_publish_checks_what_arrived(model: Publication, hub: FakeHub) -> None:
    rows = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in model.files]
    hub.fail(Fault("status", r"/tree/", status=200, body=json.dumps(rows[1:]).encode(), count=None))
    with refused("wrong_bytes"):
        publish(model, REPO, TOKEN)


def test_publish_offline_sends_nothing(
    model: Publication, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # undone before the stand-in for the Hub is
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with refused("offline"):
            publish(model, REPO, TOKEN)
        assert hub.requests == []


@pytest.mark.parametrize(
    ("repo", "token", "code"),
    [
        *((REPO, token, "bad_token") for token in ("", " ", f"{TOKEN}\n", f"{TOKEN} {TOKEN}", "käse")),
        *((repo, TOKEN, "invalid_value") for repo in ("", "name", "a/b/c", "own er/a", "a/na--me", "a/.b")),
    ],
)
def test_publish_with_an_impossible_token_or_name(
    model: Publication, hub: FakeHub, repo: str, token: str, code: str
) -> None:
    with refused(code):
        publish(model, repo, token)
    assert hub.requests == []
