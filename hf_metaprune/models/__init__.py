"""Networks: what can be pruned in them, and the sliced model."""
