"""``analyze CLIP --render OUT.mp4``: the clip with its faces drawn on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hsemotion_space.cli.console import say
from hsemotion_space.media.formats import MediaError, sniff
from hsemotion_space.settings import Settings

if TYPE_CHECKING:
    from hsemotion_space.types import Analysis


def check_render(paths: Sequence[Path], target: Path) -> None:
    """Raise a MediaError if a video cannot be rendered, before anything is analyzed."""
    if len(paths) != 1:
        raise MediaError(
            "--render takes one clip, got {count} inputs.", code="render_count", count=len(paths)
        )
    if target.suffix.lower() != ".mp4":
        raise MediaError("--render must end in .mp4.", code="render_suffix")
    if not target.parent.is_dir():
        text = "The folder of '{name}' does not exist."
        raise MediaError(text, code="render_folder", name=target)
    if target.exists() and target.samefile(paths[0]):
        raise MediaError("--render would overwrite the clip itself.", code="render_input")
    if sniff(paths[0], Settings.from_env().limits.for_own_files()) != "clip":
        text = "--render takes a clip; '{name}' is a picture."
        raise MediaError(text, code="render_picture", name=paths[0].name)


def render_clip(path: Path, analysis: Analysis, target: Path, report: Callable[[int, int], None]) -> None:
    """Write the video and print where it is, and what a reader has to know.

    Raises:
        MediaError: if the clip cannot be read again or the file cannot be written.
    """
    from hsemotion_space.analysis.overlay import Overlay  # noqa: PLC0415  heavy
    from hsemotion_space.media.render import render  # noqa: PLC0415  heavy

    limits = Settings.from_env().limits.for_own_files()
    for notice in render(path, target, limits, Overlay(analysis).paint, report):
        if notice not in analysis.notices:
            say(f"  note: {notice}")
    say(f"Wrote {target}")
