"""The arguments of a `Penalty` that belong to its function: options as keywords, and the patterns of a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

from .._core.shown import listed, shorten, shown
from .._core.suggestions import did_you_mean
from .._penalties.parameters import call_parameters_of
from ..trees._over_tree import OverTree, over_tree

__all__ = ["check_options_of_tree", "check_positional", "over_tree_with", "with_keywords"]

_TREE = ("match", "exclude")


def check_positional(positional: tuple[Any, ...]) -> None:
    """Refuse arguments of a `Penalty` by position."""
    if not positional:
        return
    first = positional[0]
    is_weight = isinstance(first, Real) and not isinstance(first, bool)
    remedy = f"Pass weight={shown(first)}" if is_weight else "Pass weight=, inputs= or options="
    raise TypeError(f"Penalty: takes one argument by position, `fn`, got {listed(positional)} too. {remedy}.")


def with_keywords(fn: Callable[..., Any], options: Any, keywords: Mapping[str, Any], arguments: Iterable[str]) -> Any:
    """Return the options of `fn`: `options` and the keywords. `arguments` are the names of Penalty's arguments."""
    if not keywords or not isinstance(options, Mapping):
        return options
    parameters = call_parameters_of(fn)
    function = getattr(fn, "__name__", type(fn).__qualname__)
    for key in keywords:
        if key in options:
            raise TypeError(f"Penalty: `{key}` must be passed once, got it as a keyword and in `options`. Drop one.")
        if key not in parameters.keyword:
            if parameters.takes_any:
                raise TypeError(
                    f"Penalty: `{shorten(key)}` is not an argument of Penalty, and {function} takes any keyword. "
                    f"Pass options={{{key!r}: ...}}.{_hint(fn, key, arguments)}"
                )
            raise TypeError(
                f"Penalty: `{shorten(key)}` is neither an argument of Penalty nor an option of {function}. The options "
                f"are {', '.join(parameters.keyword) or 'none'}." + _hint(fn, key, (*parameters.keyword, *arguments))
            )
    return {**options, **keywords}


def _hint(fn: Callable[..., Any], key: str, valid: Iterable[str]) -> str:
    """Say what to write in place of the keyword `key`."""
    if key not in _TREE:
        return did_you_mean(key, valid)
    return " Pass it to over_tree." if isinstance(fn, OverTree) else f" Did you mean tree={{{key!r}: ...}}?"


def check_options_of_tree(name: str, fn: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse options next to a penalty over trees, which has options of its own."""
    if isinstance(fn, OverTree) and options:
        raise TypeError(
            f"penalty {shown(name)}: options must be passed to over_tree, got {listed(options)} next to its result. "
            "Pass over_tree(..., options=...), or Penalty(fn, tree=...) with options."
        )


def over_tree_with(fn: Callable[..., Any], tree: Any, options: Any) -> OverTree:
    """Return `fn` as a penalty over trees, with the patterns in `tree`."""
    if isinstance(fn, OverTree):
        raise TypeError(f"Penalty: `tree` must come with a penalty of arrays, got {fn.__name__}. Drop one of them.")
    if not isinstance(tree, Mapping):
        raise TypeError(f"Penalty: `tree` must be a mapping, got {shown(tree)}. Pass {{'match': pattern}}.")
    for key in tree:
        if key not in _TREE:
            raise TypeError(
                f"Penalty: `tree` must have the keys match and exclude only, got {shown(key)}."
                + did_you_mean(key, _TREE)
            )
    return over_tree(fn, **tree, options=options)
