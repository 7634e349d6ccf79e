"""The tab for annotators: a queue of faces, one key per answer, nothing of a prediction before the answer."""

from hsemotion_space.ui.annotate.tab import build_annotate

__all__ = ["build_annotate"]
