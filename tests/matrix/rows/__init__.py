"""The rows of the matrix, one file for each family."""
