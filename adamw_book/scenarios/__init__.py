"""One module a chapter, by the chapter's own name: its data, its task, its measurements, and its `STUDY`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..ledger import Study

STUDIES = {
    "decoupled_weight_decay": "adamw_book.scenarios.decoupled_weight_decay",
    "overfitting": "adamw_book.scenarios.overfitting.study",
    "vanishing_gradients": "adamw_book.scenarios.vanishing_gradients.study",
    "sparse_gradients": "adamw_book.scenarios.sparse_gradients.study",
    "covariate_shift": "adamw_book.scenarios.covariate_shift.study",
    "class_imbalance": "adamw_book.scenarios.class_imbalance.study",
    "adversarial_robustness": "adamw_book.scenarios.adversarial_robustness.study",
    "transfer_learning": "adamw_book.scenarios.transfer_learning.study",
    "learning_rate_schedules": "adamw_book.scenarios.learning_rate_schedules.study",
    "language_model": "adamw_book.scenarios.language_model.study",
    "federated_learning": "adamw_book.scenarios.federated_learning.study",
    "quantization": "adamw_book.scenarios.quantization.study",
}
ON_DEMAND = {  # that need an extra of the package or a GPU, say so where it is missing, and run where they are named
    "transformer": "adamw_book.scenarios.transfer_learning.transformer",
    "larger_gpt": "adamw_book.scenarios.language_model.larger_gpt",
}


def study(chapter: str) -> Study:
    """The study of a chapter, by the last part of the chapter's name. Its module is imported now, not with the
    package."""
    known = STUDIES | ON_DEMAND
    if chapter not in known:
        raise ValueError(f"chapter is {chapter!r}; expected one of {', '.join(known)}")
    return import_module(known[chapter]).STUDY
