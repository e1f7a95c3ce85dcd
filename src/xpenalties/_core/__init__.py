"""What knows no array: checks of Python values, nests, names, text, threads."""
