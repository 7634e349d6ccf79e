"""Plotly figures and the annotated picture, drawn from tasks and values alone."""

from hsemotion_space.figures.compared import comparison, disagreement
from hsemotion_space.figures.over_time import timeline
from hsemotion_space.figures.picture import annotate
from hsemotion_space.figures.saliency import overlay
from hsemotion_space.figures.style import FACE_COLORS, empty, face_color, face_dash
from hsemotion_space.figures.summary import bars, circumplex

__all__ = [
    "FACE_COLORS",
    "annotate",
    "bars",
    "circumplex",
    "comparison",
    "disagreement",
    "empty",
    "face_color",
    "face_dash",
    "overlay",
    "timeline",
]
