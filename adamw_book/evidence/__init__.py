"""From a table of runs to a verdict: grids, selection on validation data, paired comparison over seeds.

The path of every chapter: `grid` lists the tuning runs with an equal budget for each arm, `select` picks each arm's
best configuration on validation data, `retrain` lists the winners' runs on fresh seeds, `paired` measures the
difference between two arms on test data, and `verdict` sets it against the smallest effect that would matter, which the
`Claim` names before anything is run.

A table is tidy: one row a measurement, with the columns arm, lr, weight_decay, l2, seed, step, metric, value, and
further columns for conditions (depth, label noise, ...). A configuration is (lr, weight_decay, l2). This package knows
tables, not models.
"""

from .claims import MIN_SEEDS, VERDICTS, Claim, combine, judge, verdict
from .comparison import Effect, paired, scale_of, show
from .grids import ARMS, EdgeWarning, grid, retrain, select, spread, three_arms, without_decay
from .tables import CONFIGURATION

__all__ = [
    "ARMS",
    "CONFIGURATION",
    "MIN_SEEDS",
    "VERDICTS",
    "Claim",
    "EdgeWarning",
    "Effect",
    "combine",
    "grid",
    "judge",
    "paired",
    "retrain",
    "scale_of",
    "select",
    "show",
    "spread",
    "three_arms",
    "verdict",
    "without_decay",
]
