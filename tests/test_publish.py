"""Publishing a checkpoint: what arrives on the Hub, and what is said when it does not."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from fake_hub import FakeHub, Fault, use
from huggingface_hub import get_session
from publish_makers import CARD, FAMILIES, REPO, make_starter, with_files
from safetensors.torch import load

from hsemotion_space.backbones import load_backbone
from hsemotion_space.hub import publish as module
from hsemotion_space.hub.manifest import CheckpointError
from hsemotion_space.hub.publish import Publication, describe, publish
from hsemotion_space.hub.source import HubSource

TOKEN = "hf_CanaryThatMustNotBeSeen"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Publication:
    """The smallest checkpoint; tests leave its folder alone."""
    return make_starter(tmp_path_factory.mktemp("checkpoints") / "starter", *FAMILIES[0])


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long publishing paused before another try, in s."""
    paused: list[float] = []
    monkeypatch.setattr(module, "sleep", paused.append)
    return paused


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits: list[float]) -> Iterator[FakeHub]:
    with FakeHub(TOKEN) as hub, use(hub, monkeypatch, tmp_path / "cache"):
        yield hub


@pytest.mark.parametrize(("arch", "family", "size", "args"), FAMILIES, ids=lambda value: value if isinstance(value, str) else "")
def test_timm_loads_what_was_published(arch: str, family: str, size: int, args: Mapping[str, int], tmp_path: Path, hub: FakeHub) -> None:
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
            timm.create_model(name, pretrained=True, **options).eval() for options in ({}, {"num_classes": 0}, {"num_classes": 5})
        )
        assert torch.equal(full(pictures), scores)
        assert torch.equal(bare(pictures), embeddings)
        assert torch.equal(fresh.forward_head(fresh.forward_features(pictures), pre_logits=True), embeddings)
        assert fresh(pictures).shape == (2, 5)
    assert (scores[0] != scores[1]).any()
    assert not torch.equal(timm.create_model(name, pretrained=False).eval()(pictures), scores)
    data = timm.data.resolve_model_data_config(full)
    assert (tuple(data["input_size"]), data["interpolation"], data["crop_pct"]) == ((3, size, size), "bilinear", 1.0)
    assert (tuple(data["mean"]), tuple(data["std"])) == (checkpoint.input.mean, checkpoint.input.std)
    assert full.pretrained_cfg["label_names"] == [label for head in checkpoint.heads if head.columns for label in head.task.label_names]


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
    without = replace(model, files={name: content for name, content in model.files.items() if name != "recipe.toml"})
    second = publish(with_files(without, README_md=CARD.encode() + b"more\n"), REPO, TOKEN)
    files = hub.files(REPO, revision=second.revision)
    assert len(hub.commits(REPO)) == 4
    assert files["README.md"].endswith(b"more\n")
    assert "recipe.toml" not in files
    assert files["notes.txt"] == b"of somebody else"


@pytest.mark.parametrize("private", [False, True])
def test_a_new_repository_is_private_if_asked_for(model: Publication, hub: FakeHub, private: bool) -> None:
    publish(model, REPO, TOKEN, private)
    assert get_session().get(f"{hub.url}/api/models/{REPO}").status_code == (401 if private else 200)


REFUSALS = [
    (Fault("status", r"/api/repos/create", status=401, count=None), "does not accept the token"),
    (Fault("status", r"/preupload/", status=403, count=None), f"may not write to {REPO}"),
    (Fault("status", r"/commit/", status=403, count=None), f"may not write to {REPO}"),
    (Fault("status", r"/objects/batch", status=403, count=None), f"may not write to {REPO}"),
    (Fault("status", r"/lfs/models/", status=403, count=None), f"may not write to {REPO}"),
    (Fault("status", r"/commit/", status=404, count=None), f"There is no {REPO}"),
    (Fault("status", r"/commit/", status=413, count=None), "answer 413"),
    (Fault("status", r"validate-yaml", status=400, body=b'{"errors": [{"message": "no such license"}]}'), "no such license"),
]
PASSING = [
    (Fault("status", r"/commit/", status=503, count=None), "answers 503"),
    (Fault("status", r"/commit/", status=429, count=None), "answers 429"),
    (Fault("status", r"/preupload/", status=500, count=None), "answers 500"),
    (Fault("reset", r"/commit/", count=None), "the connection broke"),
    (Fault("hang", r"/commit/", count=None), "does not answer"),
    (Fault("hang", r"validate-yaml", count=None), "does not answer"),
    (Fault("garbage", r"/commit/", count=None), "not understood"),
    (Fault("garbage", r"/tree/", count=None), "not understood"),
    (Fault("garbage", r"repos/create", count=None), "not understood"),
]


def everything_said(error: BaseException, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], folder: Path) -> str:
    written = "".join(file.read_bytes().decode("utf-8", "replace") for file in folder.rglob("*") if file.is_file())
    return "".join(traceback.format_exception(error)) + caplog.text + "".join(capfd.readouterr()) + written


@pytest.mark.parametrize(("fault", "words"), [*REFUSALS, *PASSING], ids=lambda value: getattr(value, "kind", ""))
def test_every_failure_is_told_in_a_sentence_without_the_token(
    fault: Fault,
    words: str,
    model: Publication,
    hub: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    hub.fail(replace(fault))
    began = time.monotonic()
    with caplog.at_level(logging.DEBUG), pytest.raises(CheckpointError) as caught:
        publish(model, REPO, TOKEN)
    assert words in str(caught.value)
    assert str(caught.value).endswith((".", "sent again."))
    assert TOKEN not in everything_said(caught.value, caplog, capfd, tmp_path)
    assert time.monotonic() - began < 20
    assert len(hub.commits(REPO) if hub.has_repo(REPO) else []) <= (2 if "tree" in fault.path else 1)


@pytest.mark.parametrize(
    ("fault", "tries"),
    [
        (Fault("status", r"/commit/", status=429, headers={"Retry-After": "7"}), 2),
        (Fault("status", r"/commit/", status=503), 2),
        (Fault("status", r"/commit/", status=412), 2),
        (Fault("status", r"/api/repos/create", status=502, count=2), 3),
        (Fault("lost_response", r"/commit/"), 2),
        (Fault("lost_response", r"/api/repos/create"), 2),
        (Fault("garbage", r"/commit/"), 2),
        (Fault("reset", r"/lfs/models/"), 1),
        (Fault("hang", r"/commit/", wait_s=1.0), 2),
        (Fault("status", r"/tree/", status=500), 1),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_what_passes_is_tried_again_and_makes_one_commit(
    fault: Fault, tries: int, model: Publication, hub: FakeHub, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.5)
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
    rows = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in model.files if name != "README.md"]
    hub.fail(Fault("status", r"/tree/", status=200, body=json.dumps(rows).encode(), count=None))
    with pytest.raises(CheckpointError, match=r"does not hold what was sent \(LICENSE, README\.md"):
        publish(model, REPO, TOKEN)


def test_the_usual_client_is_back_afterwards(model: Publication, hub: FakeHub) -> None:
    before = get_session()
    publish(model, REPO, TOKEN)
    after = get_session()
    assert (after.timeout, after.follow_redirects) == (before.timeout, before.follow_redirects)
    assert [hook.__name__ for hook in after.event_hooks["request"]] == [hook.__name__ for hook in before.event_hooks["request"]]


def test_offline_nothing_is_sent(model: Publication, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:  # undone before the stand-in for the Hub is
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE=1 forbids requests"):
            publish(model, REPO, TOKEN)
        assert hub.requests == []


@pytest.mark.parametrize("token", ["", " ", f"{TOKEN}\n", f"{TOKEN} {TOKEN}", "käse"])
def test_what_is_no_token_is_not_sent(model: Publication, hub: FakeHub, token: str) -> None:
    with pytest.raises(CheckpointError, match="Copy it again") as caught:
        publish(model, REPO, token)
    assert hub.requests == []
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("repo", ["", "name", "a/b/c", "own er/name", "owner/na--me", "owner/.name"])
def test_a_repository_needs_a_possible_name(model: Publication, hub: FakeHub, repo: str) -> None:
    with pytest.raises(CheckpointError, match=r"owner/name|no name for a repository"):
        publish(model, repo, TOKEN)
    assert not hub.seen("POST", "repos/create")
