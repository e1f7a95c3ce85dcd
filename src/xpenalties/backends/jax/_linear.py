"""Evaluate linear functions, such as pullbacks, and find the results that do not depend on their arguments.

JAX returns zeros for those. In the program of the function, nothing leads from an argument to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Literal, jaxpr_as_fun

__all__ = ["linear_or_none"]

_CALLS = frozenset({"jit", "pjit", "closed_call", "checkpoint", "remat2"})  # they run the program in their "jaxpr"


def linear_or_none(fn: Callable[..., list[Any]], *args: Any) -> list[Any]:
    """Return the results of a function, a list of arrays. A result that does not depend on `args` is None."""
    program = jax.make_jaxpr(fn)(*args)
    depends = _depends(program.jaxpr, [True] * len(program.jaxpr.invars))
    results = jaxpr_as_fun(program)(*args)
    return [result if depend else None for result, depend in zip(results, depends, strict=True)]


def _depends(program: Any, given: list[bool]) -> list[bool]:
    """Return which results depend on those arguments for which `given` is True."""
    depending = {x for x, is_given in zip(program.invars, given, strict=True) if is_given}
    for equation in program.eqns:
        inputs = [not isinstance(x, Literal) and x in depending for x in equation.invars]
        if any(inputs):
            outputs = [True] * len(equation.outvars)
            if equation.primitive.name in _CALLS:
                inner = equation.params["jaxpr"]
                outputs = _depends(getattr(inner, "jaxpr", inner), inputs)
            depending.update(x for x, depend in zip(equation.outvars, outputs, strict=True) if depend)
    return [not isinstance(x, Literal) and x in depending for x in program.outvars]
