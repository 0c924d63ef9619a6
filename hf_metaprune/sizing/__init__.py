"""From an order of units to one size, and what that size costs."""
