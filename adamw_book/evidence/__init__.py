"""From a table of runs to a verdict: designs, selection on validation data, paired comparison over seeds, judgement.

The path of every chapter: `search` lists the tuning runs, by one law for each arm; `choose` finds each arm's best
configuration on validation data, and the rivals that other tuning seeds might have chosen; `smoothed` measures the
difference between two arms on test data, with an interval that covers both the choice and the evaluation seeds; and
`verdict` sets the claim's primary comparison against the smallest effect that would matter, both named before anything
is run. `pooled` and `surviving` read the map around it.

Doses and maps are run on a `grid`, and compared seed by seed with `paired`.

A table is tidy: one row a measurement, with the columns arm, lr, weight_decay, l2, seed, step, metric, value, and
further columns for conditions (depth, label noise, ...). A configuration is (lr, weight_decay, l2). This package knows
tables, not models.
"""

from .claims import MIN_SEEDS, OUTCOMES, Claim, close_call, comparable, decide, divided, judgements, verdict
from .comparison import Effect, paired, printed, show, unit_of
from .designs import choose, edge_of, picks, resampled_counts, scores_of, search
from .grids import grid, retrain
from .maps import Pooled, holm, pooled, surviving
from .tables import CONFIGURATION
from .tuned import Side, smoothed

__all__ = [
    "CONFIGURATION",
    "Claim",
    "Effect",
    "MIN_SEEDS",
    "OUTCOMES",
    "Pooled",
    "Side",
    "choose",
    "close_call",
    "comparable",
    "decide",
    "divided",
    "edge_of",
    "grid",
    "holm",
    "judgements",
    "paired",
    "picks",
    "pooled",
    "printed",
    "resampled_counts",
    "retrain",
    "scores_of",
    "search",
    "show",
    "smoothed",
    "surviving",
    "unit_of",
    "verdict",
]
