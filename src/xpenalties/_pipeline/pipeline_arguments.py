"""Refuse wrong arguments of a `Pipeline`. The errors say how to write what was meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._core.registry import penalty_names
from .._core.shown import shorten, shown
from .._core.suggestions import nearest
from .penalty import Penalty

__all__ = ["checked_members", "refuse_arguments"]

_OPTIONS_OF_COMPUTE = ("track_grad_norms", "wrt", "gradient_conflicts", "execution", "max_workers")


def refuse_arguments(penalties: Any, positional: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
    """Refuse arguments that a Pipeline does not have."""
    if positional:
        raise TypeError(
            f"Pipeline: takes one argument by position, `penalties`, got {1 + len(positional)}. "
            f"{_remedy_for_positional(penalties, positional)}."
        )
    for key in keywords:
        raise TypeError(
            f"Pipeline: `{shorten(key)}` is not an argument of Pipeline. {_remedy_for_keyword(key, keywords)}"
        )


def _remedy_for_positional(penalties: Any, positional: tuple[Any, ...]) -> str:
    if isinstance(penalties, str):
        return f"Pass a dict: Pipeline({{{shown(penalties)}: weight}})"
    if not isinstance(penalties, Penalty) and isinstance(positional[0], str):
        return f"Pass name={shown(positional[0])}"
    return "Pass a list: Pipeline([Penalty(...), ...])"


def _remedy_for_keyword(key: str, keywords: Mapping[str, Any]) -> str:
    if key in _OPTIONS_OF_COMPUTE:
        return f"It is an option of `compute`: pipeline.compute(..., {key}={shown(keywords[key])})."
    names = penalty_names()
    if key in names:
        weights = {name: weight for name, weight in keywords.items() if name in names}
        return f"Pass a dict: Pipeline({shown(weights)})."
    near = nearest(key, ("penalties", "name"))
    if near is not None:
        return f"Did you mean {near!r}?"
    return f"Options belong in a penalty: Penalty(..., {shorten(key)}={shown(keywords[key])})."


def checked_members(penalties: Any) -> tuple[Penalty, ...]:
    """Return the penalties of a Pipeline, from an iterable of them."""
    if not isinstance(penalties, Iterable) or isinstance(penalties, (str, bytes)):
        raise TypeError(
            f"Pipeline: `penalties` must be a mapping or an iterable of Penalty, got {shown(penalties)}. "
            f"{_remedy_for_penalties(penalties)}."
        )
    members = tuple(penalties)
    names: set[str] = set()
    for penalty in members:
        if not isinstance(penalty, Penalty):
            got = shown(penalty) if isinstance(penalty, str) else type(penalty).__qualname__
            raise TypeError(
                f"Pipeline: each of `penalties` must be a Penalty, got {got}. {_remedy_for_member(penalty)}."
            )
        if penalty.name in names:
            raise ValueError(f"Pipeline: names must be unique, got {shown(penalty.name)} twice. Give one a `name`.")
        names.add(penalty.name)
    return members


def _remedy_for_penalties(penalties: Any) -> str:
    if isinstance(penalties, str):
        if penalties.endswith((".toml", ".json")):
            return f"Pass Pipeline.from_config({shown(penalties)})"
        return f"Pass Pipeline({{{shown(penalties)}: weight}})"
    return "Pass a list: Pipeline([penalty])" if isinstance(penalties, Penalty) else "Pass a list"


def _remedy_for_member(member: Any) -> str:
    if isinstance(member, str):
        return f"Pass Pipeline({{{shown(member)}: weight}})"
    if isinstance(member, Mapping):
        return "Pass Pipeline.from_config([...])"
    return "Pass Penalty(...)"
