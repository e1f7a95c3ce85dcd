"""What a pipeline found: reports, their tables, their history."""
