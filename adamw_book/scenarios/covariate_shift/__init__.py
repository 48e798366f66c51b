"""Robustness · covariate shift (tag 3096579): what a shift moves, in numbers, and ridge regression with a core and a
spurious feature (`theory`), disturbed data (`shifts`), the tasks and how they are tuned (`tasks`), decay dose by dose
and the largest weight that it leaves (`dose`), and the chapter's protocol (`study`)."""
