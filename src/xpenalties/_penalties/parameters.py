"""The parameters of a penalty's function: which of them an input or an option may be passed to, and how."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .._core.shown import listed, shorten, shown
from .._core.suggestions import did_you_mean
from .spec import SHARED, spec_of

__all__ = ["HasParameters", "Parameters", "check_parameters", "call_parameters_of"]


class Parameters(NamedTuple):
    """The parameters of a function.

    positional
        Those that are passed by position, in this order.
    required
        Those that have no default.
    keyword
        Those that are passed by keyword.
    either
        Those among `keyword` that may also be passed by position, after `positional`.
    fixed
        Those among `keyword` that must be options, not inputs.
    takes_any
        Whether the function also takes names that are not listed here.
    in_mapping
        Whether the function takes one mapping, with all parameters except `keyword`.
    constants
        Those that only weight or scale terms.
    """

    positional: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    keyword: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    takes_any: bool = False
    in_mapping: bool = False
    constants: tuple[str, ...] = ()
    either: tuple[str, ...] = ()

    def of_inputs(self) -> tuple[str, ...]:
        """Return the names of the parameters that inputs can be passed to."""
        return tuple(name for name in (*self.positional, *self.keyword) if name not in self.fixed)

    def in_order(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return `inputs` in the order of the parameters, so that equal inputs look the same."""
        ordered = [name for name in self.of_inputs() if name in inputs]
        return {name: inputs[name] for name in dict.fromkeys((*ordered, *inputs))}

    def split(self, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments by position and by keyword that pass `values`, which are by name."""
        if self.in_mapping:
            by_keyword = {name: values.pop(name) for name in self.keyword if name in values}
            return (values,), by_keyword
        by_position = tuple([values.pop(name) for name in self.positional if name in values])
        return by_position, values


class HasParameters(ABC):
    """A callable of this package whose parameters are not those of its signature."""

    @abstractmethod
    def _call_parameters(self) -> Parameters:
        """Return the parameters that inputs can be passed to."""


def call_parameters_of(fn: Callable[..., Any]) -> Parameters:
    """Return the parameters of a penalty's function."""
    spec = spec_of(fn)
    if spec is not None:
        positional = *spec.functions, *spec.arrays
        return Parameters(positional, positional, (*spec.checks, *SHARED), ("reduction",), constants=SHARED)
    if isinstance(fn, HasParameters):
        return fn._call_parameters()
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature: Python checks at the call
        return Parameters(takes_any=True)
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return Parameters(
        positional=tuple(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY),
        required=tuple(p.name for p in named if p.default is p.empty),
        keyword=tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)),
        takes_any=any(p.kind is p.VAR_KEYWORD for p in parameters),
        either=tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD),
    )


def check_parameters(
    name: str, fn: Callable[..., Any], inputs: Mapping[str, Any], options: Mapping[str, Any]
) -> Parameters:
    """Check that `inputs`, by parameter, can be passed to `fn` together with `options`. Returns its parameters."""
    parameters = call_parameters_of(fn)
    function = getattr(fn, "__name__", type(fn).__qualname__)
    valid = parameters.of_inputs()
    for key in inputs:
        if key in options:
            raise TypeError(
                f"penalty {shown(name)}: `{shorten(key)}` must be an input or an option, got both. Drop one of them."
            )
        if not (key in valid or parameters.takes_any):
            raise TypeError(
                f"penalty {shown(name)}: the keys of `inputs` must be parameters of {function}, got {shown(key)}. "
                f"The parameters are {', '.join(valid) or 'none'}. Write parameter: input.{did_you_mean(key, valid)}"
            )
    last = max([-1, *(i for i, key in enumerate(parameters.positional) if key in inputs)])  # Dynamo has no `default=`
    before = () if parameters.in_mapping else parameters.positional[: last + 1]
    for key in dict.fromkeys((*parameters.required, *before)):
        if key not in inputs and (key not in options or key in parameters.positional):
            raise TypeError(
                f"penalty {shown(name)}: `inputs` must have an input for `{shorten(key)}` of {function}, got "
                f"{listed(inputs)}. Add it."
            )
    return parameters
