"""The command line, `python -m xpenalties`."""
