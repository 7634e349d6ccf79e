"""The camera of the visitor, analyzed frame by frame as long as it is on; nothing of it is kept."""

from hsemotion_space.ui.live.component import build_live

__all__ = ["build_live"]
