"""Check the types of scalars in a configuration, with errors in the words of a file: "without quotes"."""

from __future__ import annotations

from typing import Any

from ..._core.shown import shown
from .annotation_schema import JSONSchema, schema_of

__all__ = ["check_scalar_type"]

_TEXTS = {"boolean": "true or false", "number": "a number", "integer": "an integer"}


def check_scalar_type(place: str, value: Any, hint: Any) -> None:
    """Raise a TypeError if `value` is a string, boolean or number, and the annotation takes none of its kind.

    An option that takes only names, or no scalar at all, is left to the check of the function that it is passed to.
    """
    if not isinstance(value, (str, bool, int, float)):
        return
    own = {"string"} if isinstance(value, str) else {"boolean"} if isinstance(value, bool) else {"number", "integer"}
    accepted = _types(schema_of(hint))
    expected = " or ".join(text for kind, text in _TEXTS.items() if kind in accepted)
    if expected and not accepted & own:
        quotes = ", without quotes" if isinstance(value, str) else ""
        raise TypeError(f"{place}: must be {expected}, got {shown(value)}. Write {expected}{quotes}.")


def _types(schema: JSONSchema) -> set[str]:
    """Return the types of values that a schema accepts. Schemas that are references accept tables."""
    if "anyOf" in schema:
        return set().union(*map(_types, schema["anyOf"]))
    if "enum" in schema:
        return {"string"}
    kinds = schema.get("type", "object")
    return {kinds} if isinstance(kinds, str) else set(kinds)
