"""Helpers that use no arrays: checks of Python values, pytrees, names, text, threads."""
