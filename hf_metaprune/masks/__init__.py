"""Which units are kept: masks and score masks."""
