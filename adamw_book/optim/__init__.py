"""AdamW with a decoupled decay and a coupled penalty side by side, and one value a replica for every coefficient that
is tuned.
"""

from .adamw import AdamW

__all__ = ["AdamW"]
