"""Training a sub-network, and what is measured while one runs."""
