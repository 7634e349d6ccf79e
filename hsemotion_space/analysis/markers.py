"""Markers as a table."""

from __future__ import annotations

import csv
from pathlib import Path

from hsemotion_space.analysis.by_hand import describe_markers
from hsemotion_space.analysis.export import safe_cell
from hsemotion_space.types import Analysis


def write_markers(analysis: Analysis, path: Path) -> Path:
    """Write the markers of an analysis as CSV: digest of the media, kind, start and end in s, label."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["media_sha256", "kind", "start_s", "end_s", "label"])
        writer.writeheader()
        for row in describe_markers(analysis.edits):
            label = safe_cell(str(row["label"]))
            writer.writerow({"media_sha256": analysis.media.sha256} | row | {"label": label})
    return path
