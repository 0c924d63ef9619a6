"""One file per family of networks, and what the families share."""
