"""The penalties, one file for each family, and the code that they share."""
