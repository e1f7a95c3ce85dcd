"""Pipelines of penalties: weighted sums, and how one call computes them."""
