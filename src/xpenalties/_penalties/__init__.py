"""The penalties, a file for each family, and what they have in common."""
