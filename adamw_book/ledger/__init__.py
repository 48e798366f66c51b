"""The records of the full protocols: what was run, what came out, and whether both still hold.

`ledger/<claim id>.json` holds one claim with its protocol, effects and verdict; `ledger/<chapter>/<table>.csv.gz` the
tables they come from. `write` makes them, `read` serves them to chapters, and `check` lists what is stale or
contradicted: texts and settings against the chapter's study, effects and verdicts against the tables, and a *probe* (a
few runs of the protocol, recomputed in seconds) against the code as it is now. `stability` makes a chapter's primary
comparisons again under other master seeds (`ledger/stability.csv` keeps what came of it), `again` under the record's
own. `Unfinished` keeps the parts of a run until it is written. This package knows tables and JSON, not models.
"""

from .checks import check
from .files import find_root
from .records import Record, leaves, read, read_all
from .stability import again, kept, master_seeds, read_stability, recorded, stability, write_stability
from .study import PROBE, Study, Unavailable, fingerprint, probe_rows
from .unfinished import Unfinished
from .writing import write

__all__ = [
    "PROBE",
    "Record",
    "Study",
    "Unavailable",
    "Unfinished",
    "again",
    "check",
    "find_root",
    "fingerprint",
    "kept",
    "leaves",
    "master_seeds",
    "probe_rows",
    "read",
    "read_all",
    "read_stability",
    "recorded",
    "stability",
    "write",
    "write_stability",
]
