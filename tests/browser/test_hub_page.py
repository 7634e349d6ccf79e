"""A checkpoint that lies on the Hub, met in a real browser."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from browser_makers import Open, write_picture
from checkpoint_makers import change_manifest, make_checkpoint
from fake_hub import FakeHub, Fault, environment
from page_makers import ROOT, serve_page


def published(hub: FakeHub, folder: Path, environ: dict[str, str]) -> None:
    """Publish a checkpoint with the command and leave only its manifest here."""
    checkpoint = make_checkpoint(folder / "checkpoints" / "far", seed=1)
    (checkpoint.folder / "README.md").write_text(
        "---\nlicense: apache-2.0\nlibrary_name: timm\npipeline_tag: image-classification\ntags:"
        " [faces]\n---\n# Far\n",
        "utf-8",
    )
    words = ["checkpoints", "publish", "far", "--repo", "faces/far"]
    run = subprocess.run(
        [sys.executable, "-m", "hsemotion_space", *words], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, **environ, "HF_TOKEN": "hf_canary", "HSEMOTION_CHECKPOINTS": str(folder / "checkpoints")},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "hf_canary" not in run.stdout + run.stderr
    change_manifest(checkpoint.folder, ('bundled = "model.safetensors"\n', ""))
    (checkpoint.folder / "model.safetensors").unlink()


def test_published_checkpoint_is_picked_downloaded_and_used(visit: Open, tmp_path: Path) -> None:
    picture = write_picture(tmp_path, (60, 40))
    with FakeHub(token="hf_canary") as hub:
        environ = environment(hub, tmp_path / "hf")
        published(hub, tmp_path, environ)
        missing = {"X-Error-Code": "EntryNotFound"}
        down = hub.fail(Fault("status", path="resolve", count=None, status=404, headers=missing))
        with serve_page(tmp_path, environ) as url:
            page = visit(url=url)
            page.get_by_label("Backbone").click()
            page.get_by_role("option", name="Test far · download").click()
            page.get_by_text("The weights are downloaded when first used").wait_for()
            page.locator(".media input[type=file]").set_input_files(picture)
            page.locator(
                ".notices:visible",
                has_text="model.safetensors of faces/far on the Hugging Face Hub does not exist",
            ).wait_for()
            page.locator(
                ".card .problem",
                has_text="model.safetensors of faces/far on the Hugging Face Hub does not exist",
            ).wait_for()
            assert down.hits
            hub.clear_faults()
            hub.fail(Fault("hang", path="resolve", method="GET", wait_s=2.0))
            page.get_by_role("button", name="Analyze").first.click()
            page.get_by_text("Downloading the weights").wait_for()
            page.locator(".chip:visible").wait_for()
            page.locator(".card .problem").wait_for(state="detached")
            assert page.get_by_label("Backbone").input_value() == "Test far"
            page.close()
