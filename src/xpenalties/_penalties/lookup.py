"""Look up penalties by name, and check the options for calls of a penalty or any callable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from .._core.checks import POSITIVE, one_of
from .._core.registry import PENALTIES, REGISTERED, penalty_names
from .._core.shown import shorten, shown, shown_function
from .._core.suggestions import did_you_mean
from ..backends import common_backend, is_array
from .parameters import call_parameters_of
from .spec import SHARED, spec_of

__all__ = ["check_call_options", "resolve_penalty"]


def resolve_penalty(fn: Any) -> Callable[..., Any]:
    """Return the penalty that `fn` names, or `fn` itself if it is callable."""
    if isinstance(fn, str):
        penalty = PENALTIES.get(fn) or REGISTERED.get(fn)
        if penalty is None:
            names = penalty_names()
            raise ValueError(
                f"Penalty: `fn` must be a callable or one of {', '.join(names)}, got {shown(fn)}."
                + did_you_mean(fn, names)
            )
        return penalty
    if not callable(fn):
        raise TypeError(f"Penalty: `fn` must be a name or a callable, got {type(fn).__qualname__}. Pass one.")
    return fn


def check_call_options(name: str, fn: Callable[..., Any], inputs: Any, options: Any) -> dict[str, Any]:
    """Check the options for `fn` when a `Penalty` is made. `inputs` are a mapping, or take the first arguments."""
    if not isinstance(options, Mapping):
        raise TypeError(f"penalty {shown(name)}: `options` must be a mapping, got {shown(options)}. Pass a dict.")
    options = dict(options)
    spec = spec_of(fn)
    if spec is not None:
        shared: dict[str, Any] = {key: options[key] for key in SHARED if key in options}
        if "reduction" in shared:
            spec.check("reduction", shared["reduction"], one_of(("sum", "mean")))  # "none" returns no scalar
        for key in SHARED[1:]:
            if isinstance(shared.get(key), str):
                takes = ", ".join(f"{name!r}: ..." for name in (*spec.functions, *spec.arrays))
                raise TypeError(
                    f"{spec.name}: `{key}` must be an array, got {shown(shared[key])}. If that is the name of an "
                    f"input, pass inputs={{{takes}, {key!r}: {shown(shared[key])}}}."
                )
        if isinstance(shared.get("weights"), Real) and not is_array(shared["weights"]):
            raise TypeError(
                f"{spec.name}: `weights` must be an array, got {shown(shared['weights'])}. They are the terms' "
                "factors. The weight of a Penalty is `weight`."
            )
        for key in ("where", "weights"):
            if shared.get(key) is not None:
                common_backend(spec.name, [key], [shared[key]])
        if not (shared.get("normalizer") is None or is_array(shared["normalizer"])):
            shared["normalizer"] = spec.check("normalizer", shared["normalizer"], POSITIVE)
        formula_options = {key: value for key, value in options.items() if key not in shared}
        return {**spec.check_options(formula_options), **shared}
    parameters = call_parameters_of(fn)
    if parameters.takes_any and not parameters.in_mapping:
        return options
    arrays = 0 if isinstance(inputs, dict) else len(inputs) if isinstance(inputs, tuple) else 1
    taken = (*parameters.positional, *parameters.either)[:arrays]
    valid = [key for key in parameters.keyword if key not in taken]
    for key in options:
        if key not in valid:
            raise TypeError(
                f"penalty {shown(name)}: `{shorten(key)}` is not an option of {shown_function(fn)}. "
                f"The options are {', '.join(valid) or 'none'}." + did_you_mean(key, valid)
            )
    return options
