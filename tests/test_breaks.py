"""One deliberate fault per room of the package: the tests named beside it must notice it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BREAKS = {
    "metrics.py": ("return float(2 * ((x", "return float(1 * ((x", "test_metrics.py"),
    "media/images.py": ("if width * height > limit_pixels:", "if False:", "test_media_image_safety.py"),
    "vision/tracking.py": ("overlaps[row, column] >= MIN_OVERLAP", "True", "test_tracking.py"),
    "inference/temporal.py": ("np.searchsorted(times, times - reach),", "np.searchsorted(times, times),",
                              "test_temporal.py"),
    "analysis/export.py": ("""return f"'{text}" if text""", "return text if text", "test_export.py"),
    "hub/source.py": ('self.sha256 in ("", hashlib.sha256(content).hexdigest())', "True", "test_download.py"),
    "jobs/table.py": ("if len(mine) >= MAX_OF_CLIENT[lane]:", "if False:", "jobs/test_jobs_fair.py"),
    "feedback/consent.py": ("if adult_and_permitted is not True:", "if False:", "test_feedback_consent.py"),
    "figures/lines.py": ("values[part].argmax()", "0", "test_figures_lines.py"),
    "training/losses.py": ("(1 - 2 * covariance / spread", "(1 - covariance / spread", "test_learn_losses.py"),
    "ui/uploads.py": ("not PurePosixPath(name).is_relative_to(self.folder)", "False", "test_uploads.py"),
    "cli/__init__.py": ("return 1 if failed else 0", "return 0", "test_cli.py"),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("file", BREAKS)
def test_suite_notices_break(file: str, tmp_path: Path) -> None:
    before, after, tests = BREAKS[file]
    for name in ("hsemotion_space", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("checkpoints", "examples", "docs", "README.md", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    broken = tmp_path / "hsemotion_space" / file
    source = broken.read_text("utf-8")
    assert before in source, "the line to break has changed; name another one"
    broken.write_text(source.replace(before, after), "utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"tests/{tests}"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == 1, run.stdout[-2000:]
    assert "FAILED" in run.stdout
