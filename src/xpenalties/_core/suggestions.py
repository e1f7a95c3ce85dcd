"""The end of an error about a misspelt name: " Did you mean ...?"."""

from __future__ import annotations

from collections.abc import Iterable

from .dynamo import in_dynamo

__all__ = ["did_you_mean"]


def did_you_mean(value: object, valid: Iterable[object]) -> str:
    """Return " Did you mean ...?" with the nearest valid name, or an empty string if none is near."""
    if in_dynamo():  # pragma: no cover - coverage cannot see what Dynamo traces; test_compiled has these errors
        return ""
    if not isinstance(value, str) or len(value) > 100:  # no name is this long, and the comparison would be slow
        return ""
    from difflib import get_close_matches  # here, because only errors need it

    names = [str(name) for name in valid]
    beginnings = [name for name in names if value and name.startswith(value)]
    close = beginnings or get_close_matches(value, names, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
