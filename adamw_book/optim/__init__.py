"""AdamW with a decoupled decay and a coupled penalty side by side, and one value a replica for every coefficient that
is tuned.
"""

from .adamw import AdamW
from .explanation import Explanation

__all__ = ["AdamW", "Explanation"]
