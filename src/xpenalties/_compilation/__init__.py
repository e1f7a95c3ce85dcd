"""Pipelines, losses and functions compiled by the framework of their arrays."""
