"""Say where an unknown key of a configuration belongs: the end of the error about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._core.registry import PENALTIES, REGISTERED, penalty_names
from ..._core.shown import shorten
from ..._core.suggestions import nearest
from ..._penalties.parameters import call_parameters_of
from ..._penalties.spec import spec_of

__all__ = ["hint_in_document", "hint_in_penalty"]

_Places = dict[str, tuple[str, str]]  # by name: what it is, and what to write

_OF_PENALTY: _Places = {
    "match": ("a key of `tree`", "tree = { match = ... }"),
    "exclude": ("a key of `tree`", "tree = { exclude = ... }"),
    "weight": ("a key of the penalty", "`weight` beside `options`"),
}


def hint_in_document(document: Mapping[str, Any], key: Any, keys: tuple[str, ...]) -> str:
    """Say where a key of the whole configuration belongs, or return an empty string."""
    is_table = isinstance(document[key], Mapping)
    if not isinstance(key, str) or not (key in penalty_names() or (is_table and "penalty" in document[key])):
        return ""
    remedy = f"[penalties.{shorten(key)}]" if is_table else f"`{shorten(key)}` below [penalties]"
    return f" A penalty belongs in `penalties`: write {remedy}."


def hint_in_penalty(penalty: Any, key: Any, keys: tuple[str, ...]) -> str:
    """Say where `key` belongs, which is in the table or the options of the penalty called `penalty`.

    Returns an empty string if `key` belongs nowhere, or is most like one of `keys`, which are valid here.
    """
    places = {name: place for name, place in (_OF_PENALTY | _parameters(penalty)).items() if name not in keys}
    if key in places:
        what, remedy = places[key]
        return f" `{key}` is {what}: write {remedy}."
    near = nearest(key, (*keys, *places))
    return f" Did you mean {places[near][1]}?" if near in places else ""


def _parameters(penalty: Any) -> _Places:
    """Return the place of each option and each input of a penalty."""
    function = (PENALTIES.get(penalty) or REGISTERED.get(penalty)) if isinstance(penalty, str) else None
    if function is None:
        return {}
    spec, parameters = spec_of(function), call_parameters_of(function)
    places: _Places = {}
    for name in (*parameters.positional, *parameters.keyword):
        of_input = ", ".join(f"{each} = ..." for each in dict.fromkeys((*parameters.required, name)))
        option, each_input = f"options = {{ {name} = ... }}", f"inputs = {{ {of_input} }}"
        if name in parameters.positional or (spec and name in ("where", "weights")):
            places[name] = (f"an input of {penalty}", each_input)
        elif spec:
            places[name] = (f"an option of {penalty}", option)
        else:
            places[name] = (f"a parameter of {penalty}", f"{option} or {each_input}")
    return places
