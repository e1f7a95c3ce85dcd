"""The end of an error about a misspelt name: " Did you mean ...?"."""

from __future__ import annotations

from collections.abc import Iterable

from .dynamo import in_dynamo

__all__ = ["did_you_mean", "nearest"]

#: Names that other libraries give to arguments of this one.
_ALIASES = {
    **dict.fromkeys(("mask", "masks", "attention_mask"), "where"),
    **dict.fromkeys(("coef", "coeff", "coefficient", "strength", "lambda", "lambda_", "lam", "lmbda"), "weight"),
}


def did_you_mean(value: object, valid: Iterable[object]) -> str:
    """Return " Did you mean ...?" with the nearest valid name, or an empty string if none is near."""
    name = nearest(value, valid)
    return "" if name is None else f" Did you mean {name!r}?"


def nearest(value: object, valid: Iterable[object]) -> str | None:
    """Return the valid name that means the same as `value` or is most like it, or None if none is near."""
    if in_dynamo():  # pragma: no cover - coverage cannot see what Dynamo traces; test_compiled has these errors
        return None
    if not isinstance(value, str) or len(value) > 100:  # no name is this long, and the comparison would be slow
        return None
    from difflib import get_close_matches  # here, because only errors need it

    names = [str(name) for name in valid]
    if _ALIASES.get(value) in names:
        return _ALIASES[value]
    beginnings = [name for name in names if value and name.startswith(value)]
    close = beginnings or get_close_matches(value, names, n=1, cutoff=0.5)
    return close[0] if close else None
