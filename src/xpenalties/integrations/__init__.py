"""Integrations with other packages. Import the one that you need by its name. It needs the package that it is for."""
