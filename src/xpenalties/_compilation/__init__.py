"""Compile pipelines, losses and functions with the framework of their arrays."""
