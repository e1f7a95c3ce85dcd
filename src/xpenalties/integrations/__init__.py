"""Bridges to other packages: each module here is imported by its name, and needs a package of its own."""
