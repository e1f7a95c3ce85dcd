"""Pipelines as configurations: data, files, and their JSON Schema. fields.py has each field, said once."""
