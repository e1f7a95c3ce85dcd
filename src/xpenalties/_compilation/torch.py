"""torch.compile of a function of anything, pipelines among it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from numbers import Real
from types import FunctionType
from typing import Any

import torch

from .._pipeline.pipeline import Pipeline
from .._pipeline.regularized_loss import RegularizedLoss
from ..backends import is_array
from .steps import remade

__all__ = ["compiled"]

_NUMBERS = count()


def compiled(name: str, fn: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    """`fn`, compiled, and given weights as tensors: numbers would be constants of the program."""

    def program(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)  # pragma: no cover - Dynamo's trace, which no coverage sees

    # torch.compile counts programs by code object, 8 at most before it gives up, or 256 for all that share one; and it
    # learns by name and line which sizes change. So each function has a code object and a name of its own here.
    code = program.__code__.replace(co_name=f"{name}_{next(_NUMBERS)}")
    own = FunctionType(code, program.__globals__, code.co_name, None, program.__closure__)
    run = torch.compile(own, **{"recompile_limit": 256, **options})

    def call(*args: Any, **kwargs: Any) -> Any:
        return run(*map(_given, args), **{key: _given(value) for key, value in kwargs.items()})

    return call


def _given(x: Any) -> Any:
    """`x` with the weights of pipelines as tensors; containers without any as they are, for `fn` may fill them."""
    if hasattr(x, "target") and hasattr(type(x), "tree_flatten"):  # one that is compiled by itself
        return remade(x, target=_given(x.target))
    if isinstance(x, RegularizedLoss):
        return remade(x, pipeline=_given(x.pipeline))
    if isinstance(x, Pipeline):
        numbers = (remade(p, weight=_tensor(p.weight)) if isinstance(p.weight, float) else p for p in x)
        return remade(x, penalties=tuple(numbers))
    if type(x) in (list, tuple):
        parts = [_given(part) for part in x]
        return x if all(map(_same, parts, x)) else type(x)(parts)
    if type(x) is dict:
        found = {key: _given(value) for key, value in x.items()}
        return x if all(map(_same, found.values(), x.values())) else found
    if isinstance(x, Real) and is_array(x):  # a scalar of NumPy's, which torch.compile would make a tensor
        return x.item()  # type: ignore[attr-defined]
    return x


def _same(a: Any, b: Any) -> bool:
    return a is b


def _tensor(weight: float) -> Any:
    """A Parameter: of another 0-d tensor of float64 torch.compile tries the number, and compiles a second time."""
    return torch.nn.Parameter(torch.full((), weight, dtype=torch.float64, device="cpu"), requires_grad=False)
