"""Integrations with other packages. Import each module by its name; each needs the package that it is for."""
