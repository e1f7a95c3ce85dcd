"""Read, write and describe pipelines as configurations: data, files, JSON Schema. fields.py defines each field."""
