"""What `python -m xpenalties` does."""
