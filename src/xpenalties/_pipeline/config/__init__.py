"""Pipelines as configurations: data, files, and their JSON Schema."""
