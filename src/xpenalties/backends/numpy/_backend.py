"""NumPy, and HIPS autograd's tracer boxes for its gradients."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

import array_api_compat.numpy
import numpy as np

from .._blocks import Work, keep_pages
from .._fast_path import FastPath, run_fast
from ..base import Backend, DType, OfLeaves, Pull, from_numpy

__all__ = ["KNOWN", "REFUSED", "find"]


class NumpyBackend(Backend):
    lacks = "without autograd, "
    remedy = ", or autograd with `pip install 'xpenalties[numpy]'`"

    def _describe(self, dtype: Any) -> DType:
        if dtype.kind not in "biufc" or dtype.isbuiltin == 2:  # ml_dtypes' bfloat16: no dtype of NumPy's, see isdtype
            return DType("other")
        return super()._describe(dtype)

    def block_elements(self, work: Work) -> int | None:
        return 2**22 if work.matrices else 2**16  # a product of matrices wants more of a row's kind than a sum

    def run(self, formula: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        with np.errstate(all="ignore"):
            return formula(*arrays, **options)

    def evaluate(self, work: Work) -> tuple[Any, Any]:
        if work.kind == "elements":  # such formulas have no guards
            return self.run(work.terms, (work.arrays, work.mask), {}), None
        elements = self.size_of_blocks(work)
        if elements is None:
            return self.run_fast(work.terms, (work.arrays, work.mask), {}), None
        keep_pages(_empty)
        work = work._replace(fast_path=FastPath(_finite))
        return self.run(work.in_blocks, (elements,), {}), None

    def run_fast(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        with np.errstate(all="ignore"):
            return run_fast(_finite, function, arrays, options)

    def abs(self, x: Any) -> Any:
        return self.xp.abs(x)

    def vjp(self, fn: OfLeaves, leaves: list[Any], *, again: bool = True) -> tuple[Any, list[Any], Pull]:
        from ._autograd import vjp

        return vjp(fn, leaves)

    def differentiates(self) -> bool:
        return find_spec("autograd") is not None

    def exported(self, x: Any) -> Any:
        x = np.asarray(x)  # of a scalar
        if x.dtype.kind not in "biufc":
            return None
        whole = all(stride >= 0 and stride % x.itemsize == 0 for stride in x.strides)
        return x if whole and x.dtype.isnative else x.astype(x.dtype.newbyteorder("="), order="C")

    def escaped(self, error: Exception) -> bool:
        return "ArrayBox" in str(error)


class BoxBackend(NumpyBackend):
    """The same for arrays that autograd traces."""

    traces = True

    def block_elements(self, work: Work) -> int | None:
        return None

    def run_fast(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        return self.run(function, arrays, options)  # autograd would record what is thrown away

    def differentiates(self) -> bool:
        return True

    def stop_gradient(self, x: Any) -> Any:
        from autograd.tracer import getval

        return getval(x)

    def uniform(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        return from_numpy(caller, rng).random(shape).astype(like.dtype)

    def normal(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        return from_numpy(caller, rng).standard_normal(shape).astype(like.dtype)


def _empty(size: int) -> Any:
    return np.empty(size, np.uint8)


def _finite(x: Any) -> bool:
    return bool(np.isfinite(x).all())


@cache
def _boxes() -> Backend:
    from ._autograd import Namespace

    return BoxBackend("numpy", Namespace())


_NUMPY = NumpyBackend("numpy", array_api_compat.numpy)
# scalars too: one that turned up later would have torch.compile, which reads the dictionary of types, compile anew
KNOWN: dict[type, Backend] = dict.fromkeys((np.ndarray, *np.sctypeDict.values()), _NUMPY)
REFUSED = (np.ma.MaskedArray, np.matrix)  # the first would lose its mask, the second is never 0-d


def find(cls: type) -> Backend | None:
    """The backend of arrays of type `cls`; NumPy's scalars are arrays, for its reductions return them."""
    if issubclass(cls, (np.ndarray, np.generic)):
        return _NUMPY
    tracer = sys.modules.get("autograd.numpy.numpy_boxes")
    if tracer is None or not issubclass(cls, tracer.ArrayBox):
        return None
    return _boxes()
