"""Pictures that a reader moves, each one call in a cell: closed forms, records, and the audit of a run."""
