"""docs/security.md names a test for every threat, and every one of them exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_threat_has_tests_that_exist() -> None:
    rows = [
        line
        for line in (ROOT / "docs" / "security.md").read_text("utf-8").splitlines()
        if re.match(r"\| (?!Threat|--)", line)
    ]
    tests = "\n".join(file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^def (test_\w+)", tests, re.MULTILINE))
    assert len(rows) >= 10
    for row in rows:
        named = set(re.findall(r"`(test_\w+)`", row.rsplit("|", 2)[1]))
        assert named and named <= defined, row
