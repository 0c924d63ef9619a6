"""Sizes of sub-networks: from an order of units and a ratio or a budget to a mask, and what a mask costs."""
