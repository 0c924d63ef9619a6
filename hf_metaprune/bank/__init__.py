"""Banks: pruned task models of one base model, on disk."""
