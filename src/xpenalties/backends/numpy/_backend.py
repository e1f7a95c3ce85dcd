"""The NumPy backend, and a backend for the boxes that HIPS autograd traces with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import array_api_compat.numpy
import numpy as np

from ..._core.optional import is_installed
from .._blocks import keep_pages
from .._fast_path import FastPath, run_fast
from .._random import from_numpy
from .._work import Work
from ..base import Autodiff, Backend, DType, Evaluation, Exchange, OfLeaves, Pull, Random

__all__ = ["KNOWN", "REFUSED", "find"]


class NumpyBackend(Backend):
    def _describe(self, dtype: Any) -> DType:
        if dtype.kind not in "biufc" or dtype.isbuiltin == 2:  # such as ml_dtypes' bfloat16; see isdtype
            return DType("other")
        if dtype.itemsize > (16 if dtype.kind == "c" else 8):  # long double; a Python float cannot hold its limits
            return DType("other")
        return super()._describe(dtype)

    def abs(self, x: Any) -> Any:
        return self.xp.abs(x)


class NumpyAutodiff(Autodiff):
    lacks = "without autograd, "
    remedy = ", or autograd with `pip install 'xpenalties[numpy]'`"

    def differentiates(self) -> bool:
        return is_installed("autograd")

    def vjp(self, fn: OfLeaves, leaves: list[Any], *, again: bool = True) -> tuple[Any, list[Any], Pull]:
        from ._hips_autograd import vjp

        return vjp(fn, leaves)

    def escaped(self, error: Exception) -> bool:
        return "ArrayBox" in str(error)


class NumpyEvaluation(Evaluation):
    def evaluate(self, work: Work) -> tuple[Any, Any]:
        if work.kind == "elements":  # such formulas have no guards
            return self.run(work.terms, (work.arrays, work.mask), {}), None
        elements = self.size_of_blocks(work)
        if elements is None:
            return self.run_fast(work.terms, (work.arrays, work.mask), {}), None
        keep_pages(_empty)
        work = work._replace(fast_path=FastPath(_finite))
        return self.run(work.in_blocks, (elements,), {}), None

    def run(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        with np.errstate(all="ignore"):
            return function(*arrays, **options)

    def run_fast(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        with np.errstate(all="ignore"):
            return run_fast(_finite, function, arrays, options)

    def block_elements(self, work: Work) -> int | None:
        return 2**22 if work.matrices else 2**16  # a matrix product needs more rows than a sum to be fast


class NumpyExchange(Exchange):
    def exported(self, x: Any) -> Any:
        x = np.asarray(x)  # it may be a scalar
        if x.dtype.kind not in "biufc":
            return None
        whole = all(stride >= 0 and stride % x.itemsize == 0 for stride in x.strides)
        return x if whole and x.dtype.isnative else x.astype(x.dtype.newbyteorder("="), order="C")


class BoxBackend(NumpyBackend):
    """The backend of arrays that autograd traces."""

    traces = True


class BoxAutodiff(NumpyAutodiff):
    def differentiates(self) -> bool:
        return True

    def weight_mask(self, weights: Any) -> Any:
        from autograd.tracer import isbox

        return None if isbox(weights) else weights != 0

    def stop_gradient(self, x: Any) -> Any:
        from autograd.tracer import getval

        return getval(x)


class BoxEvaluation(NumpyEvaluation):
    def evaluate(self, work: Work) -> tuple[Any, Any]:
        # no blocks: autograd would keep the intermediate results of each, and sum gradients in the arrays' dtype;
        # no fast path: autograd would record the attempt that is discarded
        return self.run(work.terms, (work.arrays, work.mask), {}), None

    def run_fast(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        return self.run(function, arrays, options)


class BoxRandom(Random):
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
    from ._hips_autograd import Namespace

    return BoxBackend(
        "numpy",
        Namespace(),
        autodiff=BoxAutodiff,
        evaluation=BoxEvaluation,
        random=BoxRandom,
        exchange=NumpyExchange,
    )


_NUMPY = NumpyBackend(
    "numpy", array_api_compat.numpy, autodiff=NumpyAutodiff, evaluation=NumpyEvaluation, exchange=NumpyExchange
)
# scalars too: a type added later would make torch.compile, which reads this dictionary, compile again
KNOWN: dict[type, Backend] = dict.fromkeys((np.ndarray, *np.sctypeDict.values()), _NUMPY)
REFUSED: dict[type, str] = {
    np.ma.MaskedArray: "Pass its `data`, and its mask, inverted by ~, as `where`",
    np.matrix: "Pass it through np.asarray, because it is never 0-d",
}


def find(cls: type) -> Backend | None:
    """Return the backend of arrays of type `cls`. NumPy's scalars count as arrays: its reductions return them."""
    if issubclass(cls, (np.ndarray, np.generic)):
        return _NUMPY
    tracer = sys.modules.get("autograd.numpy.numpy_boxes")
    if tracer is None or not issubclass(cls, tracer.ArrayBox):
        return None
    return _boxes()
