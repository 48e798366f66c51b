"""The book's pictures: one style, one function for each recurring picture.

Each function takes a table (tidy: arm, lr, weight_decay, l2, seed, step, metric, value) or effects, and optional axes,
and returns the axes. Figures are dark ink on white; on dark pages the stylesheet inverts their lightness (invert(.92)
hue-rotate(180deg)). The colours are from Okabe and Ito's colour-blind-safe palette (the blue darkened), chosen so that
the arms stay apart under that filter, in grey-scale and to colour-blind readers; marker and line style differ too.
"""

from .curves import dose_response, trajectories
from .forest import OUTCOME_STYLE, claim_forest
from .heat_map import heat_map_pair
from .paired import paired_strip
from .theme import ARM_STYLE, LABELS, WIDTH, label_of, style

__all__ = [
    "ARM_STYLE",
    "LABELS",
    "OUTCOME_STYLE",
    "WIDTH",
    "claim_forest",
    "dose_response",
    "heat_map_pair",
    "label_of",
    "paired_strip",
    "style",
    "trajectories",
]
