"""What AdamW's decoupled weight decay really does: the package behind the book.

Practitioners start from :class:`AdamW`. Chapters start from their own module in :mod:`adamw_book.scenarios`, which
stands on :mod:`adamw_book.ensemble` (train hundreds of models at once), :mod:`adamw_book.evidence` (from runs to
verdicts) and :mod:`adamw_book.ledger` (the records).
"""

from adamw_book.optim import AdamW

__all__ = ["AdamW"]
__version__ = "0.1.0"
