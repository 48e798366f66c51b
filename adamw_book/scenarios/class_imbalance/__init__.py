"""Robustness · class imbalance (tag 3096556): imbalanced data, and what is measured on a trained model (`tasks`), two
settings that have a formula, the logit under strong decay and class weights on separable data (`mechanism`), decay as a
dose (`dose`), and the claims and their protocol (`study`)."""
