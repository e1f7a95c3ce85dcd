"""Compile functions with torch.compile. Weights of pipelines among their arguments become tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from numbers import Real
from operator import is_
from types import FunctionType
from typing import Any

import torch

from .._pipeline.pipeline import Pipeline
from .._pipeline.regularized_loss import RegularizedLoss
from ..backends import is_numpy_number
from .schedules import HasTarget, replace_unchecked

__all__ = ["compiled"]

_NUMBERS = count()


def compiled(name: str, fn: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    """Compile `fn`. It gets weights as tensors, because numbers would be constants of the program."""

    def program(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)  # pragma: no cover - Dynamo's trace, which no coverage sees

    # torch.compile counts programs by code object. It gives up after 8, or after 256 if functions share the object. It
    # also remembers by name and line which sizes change. So each function gets its own code object and name here.
    code = program.__code__.replace(co_name=f"{name}_{next(_NUMBERS)}")
    renamed = FunctionType(code, program.__globals__, code.co_name, None, program.__closure__)
    run = torch.compile(renamed, **{"recompile_limit": 256, **options})

    def call(*args: Any, **kwargs: Any) -> Any:
        return run(*map(_with_tensors, args), **{key: _with_tensors(value) for key, value in kwargs.items()})

    return call


def _with_tensors(x: Any) -> Any:
    """Convert weights of pipelines in `x` to tensors. Other containers are not copied, because `fn` may fill them."""
    if isinstance(x, HasTarget):  # compiled by itself
        return replace_unchecked(x, target=_with_tensors(x.target))
    if isinstance(x, RegularizedLoss):
        return replace_unchecked(x, pipeline=_with_tensors(x.pipeline))
    if isinstance(x, Pipeline):
        penalties = (
            replace_unchecked(p, weight=_tensor(float(p.weight)))
            if isinstance(p.weight, float) or is_numpy_number(p.weight)
            else p
            for p in x
        )
        return replace_unchecked(x, penalties=tuple(penalties))
    if type(x) in (list, tuple):
        items = [_with_tensors(item) for item in x]
        return x if all(map(is_, items, x)) else type(x)(items)
    if type(x) is dict:
        values = {key: _with_tensors(value) for key, value in x.items()}
        return x if all(map(is_, values.values(), x.values())) else values
    if isinstance(x, Real) and is_numpy_number(x):  # torch.compile would convert it to a tensor
        return x.item()  # type: ignore[attr-defined]
    return x


def _tensor(weight: float) -> Any:
    """Return a weight as a Parameter. With a plain 0-d tensor, torch.compile first fixes its value, and recompiles."""
    return torch.nn.Parameter(torch.full((), weight, dtype=torch.float64, device="cpu"), requires_grad=False)
