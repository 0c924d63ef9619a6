"""How much of a data set may be damaged."""

MAX_CORRUPT_SHARE = 0.01
"""The largest share of unreadable images in a data set: up to it they are skipped and listed, above it is an error."""
