"""Plotly figures of comparisons and evaluations, the map of an explanation, and the colors of faces."""

from hsemotion_space.figures.compared import comparison, disagreement
from hsemotion_space.figures.saliency import overlay
from hsemotion_space.figures.style import FACE_COLORS, empty, face_color

__all__ = ["FACE_COLORS", "comparison", "disagreement", "empty", "face_color", "overlay"]
