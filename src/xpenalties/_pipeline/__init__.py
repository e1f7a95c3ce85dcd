"""Weighted sums of penalties, and one computation of them."""
