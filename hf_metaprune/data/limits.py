"""How much of a data set may be damaged, and how much it may hold."""

MAX_CORRUPT_SHARE = 0.01
"""Largest share of unreadable images in a data set; up to it they are skipped and listed, above it is an error."""
MAX_UNREADABLE = 1000
"""Most unreadable images of a data set, however large it is."""
MAX_ROWS = 2_000_000
"""Most rows of a data set."""
