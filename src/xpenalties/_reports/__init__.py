"""Reports of computations, their tables and their history."""
