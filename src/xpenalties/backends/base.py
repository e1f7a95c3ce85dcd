"""What a framework must be able to do for xpenalties: the contract that every file in this package fills in.

The methods here are what the array API standard alone allows, so a namespace without a file of its own
(array-api-strict, dask) is an instance of this very class.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import array_api_compat

from .._core.pytrees import Rebuild, flatten, flatten_with_paths
from ._blocks import AUTOMATIC, BLOCK_SIZE, LEAST, Work

OfLeaves = Callable[[list[Any]], tuple[Any, list[Any]]]
Pull = Callable[[Any], list[Any]]


class DType(NamedTuple):
    """What a penalty needs to know of a dtype."""

    kind: str  # "real", "complex", "bool" or "other"
    working: Any = None  # the dtype to compute in; None: its own
    log_least: float = 0.0  # of the smallest normal number that is computed with


class NoAutodiffError(NotImplementedError):
    """What `lender_of` raises where there is nothing to differentiate with; whoever was called adds its name."""


class Backend:
    """One array namespace and the few operations that the standard lacks."""

    #: `log_softmax(x, axis)` in one pass, where the framework has it: not the standard's operations one by one.
    log_softmax: Callable[[Any, int], Any] | None = None
    #: `program(function, key, arrays)` runs ``function(key, arrays)`` as one compiled program for each key, if the
    #: framework has a compiler that pays off at once. `key` is hashable, `arrays` a tuple of arrays, dicts and None.
    program: Callable[[Callable[..., Any], Any, Any], Any] | None = None
    #: For the error where it has no automatic differentiation.
    lacks: str = "of their own, "
    remedy: str = ""
    #: Its arrays are a tracer's, and its namespace takes the library's plain arrays too.
    traces: bool = False

    def __init__(self, name: str, xp: Any, library: str | None = None) -> None:
        self.name = name
        self.xp = xp
        self.library = library or name  # arrays of one library may meet, whatever namespace computes on them
        self._dtypes: dict[Any, DType] = {}

    def __repr__(self) -> str:
        return f"<{self.name} backend>"

    def dtype(self, dtype: Any) -> DType:
        """Kind and working dtype of `dtype`, looked up once."""
        known = self._dtypes.get(dtype)
        if known is None:
            known = self._dtypes[dtype] = self._describe(dtype)
        return known

    def _describe(self, dtype: Any) -> DType:
        xp = self.xp
        if xp.isdtype(dtype, "real floating"):
            working = xp.float32 if xp.finfo(dtype).bits < 32 else None
            return DType("real", working, math.log(float(xp.finfo(working or dtype).smallest_normal)))
        if xp.isdtype(dtype, "complex floating"):
            return DType("complex")
        return DType("bool" if xp.isdtype(dtype, "bool") else "other")

    def default_float(self) -> Any:
        """The dtype of floats that nothing else decides."""
        return self.xp.__array_namespace_info__().default_dtypes()["real floating"]

    def signed(self, integer: Any) -> Any:
        """`integer` in a dtype that can be compared with large numbers, and subtracted from."""
        return integer if integer.dtype == self.xp.int64 else self.xp.astype(integer, self.xp.int64)

    def block_elements(self, work: Work) -> int | None:
        """How many elements of an input, or of logits, a block of rows has; None: not in blocks."""
        return None

    def size_of_blocks(self, work: Work) -> int | None:
        """Return the same unless `block_size` says otherwise; None if everything is no larger than one block."""
        if work.axis is None or work.arrays[0].ndim == 1:
            return None
        requested = BLOCK_SIZE.get()
        if requested == AUTOMATIC and not work.matrices and math.prod(work.arrays[0].shape) <= LEAST:
            return None  # small for any device
        elements = self.block_elements(work) if requested == AUTOMATIC else requested
        return None if elements is None or work.size() <= elements else elements

    def run(self, formula: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """What a formula returns.

        Quietly, where NumPy does the work: a formula takes -inf - -inf and masks it, as its docstring says, and a
        warning of that would be noise. (Dask does the work later, under the settings of then.)
        """
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return formula(*arrays, **options)
        with numpy.errstate(all="ignore"):
            return formula(*arrays, **options)

    def evaluate(self, work: Work) -> tuple[Any, Any]:
        """Evaluate the terms of a penalty, at once or in blocks.

        Returns them, and the sum that `work` asks for if it was computed on the way, else None.
        """
        elements = self.size_of_blocks(work)
        if elements is not None:
            return self.run(work.in_blocks, (elements,), {}), None
        return self.run_fast(work.terms, (work.arrays, work.mask), {}), None

    def run_fast(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Run a function, without guards first if results can be looked at."""
        return self.run(function, arrays, options)

    def abs(self, x: Any) -> Any:
        """`|x|` with slope 0 at 0, with which unknown namespaces are not trusted."""
        if self.dtype(x.dtype).kind == "real":
            return x * self.stop_gradient(self.xp.sign(x))
        magnitude = self.xp.abs(x)
        return self.xp.where(magnitude == 0, 0.0, magnitude)

    def cumulative_sum(self, x: Any, axis: int) -> Any:
        """The sums of the first elements along `axis`."""
        return self.xp.cumulative_sum(x, axis=axis)

    def extrema(self, x: Any) -> tuple[Any, Any]:
        """The smallest and the largest of `x`."""
        return self.xp.min(x), self.xp.max(x)

    def squared_norm(self, x: Any) -> Any:
        """The sum of squares; not by vecdot, in float32 off by 1e-3 for 1e7 elements on PyTorch and NumPy."""
        return self.xp.sum(x * x)

    def power_sum(self, first: float, second: float, arrays: Sequence[Any]) -> tuple[list[Any], frozenset[int]]:
        """`first * sum(|x|) + second * sum(x^2)` over the arrays that can be summed at once, and where these are."""
        return [], frozenset()

    def add_multiple(self, total: Any, x: Any, factor: Any) -> Any:
        """`total + factor * x`; `total` is not used any more."""
        return total + factor * x

    def with_gradient(self, total: Any, arrays: list[Any], gradient: list[Any]) -> Any:
        """`total`, whose gradient by `arrays` is known: that one, where it is certain to depend on nothing else."""
        return total

    def matmul(self, a: Any, b: Any) -> Any:
        """`a @ b` in the dtype that they have, whatever is switched on to lower it."""
        return a @ b

    def linear(self, hidden: Any, weight: Any) -> Any:
        """`hidden @ weight.T`, by `matmul`."""
        return self.matmul(hidden, self.xp.matrix_transpose(weight))

    def device(self, x: Any) -> Any:
        """Where `x` lives, for the `device=` of new arrays."""
        return array_api_compat.device(x)

    def stop_gradient(self, x: Any) -> Any:
        """`x` as a constant: nothing differentiates through it."""
        return x

    def to_floats(self, scalars: Sequence[Any]) -> list[float]:
        """Python floats of 0-d arrays, moved off their device at once where the framework can."""
        return [float(scalar) for scalar in scalars]

    def flatten(self, nest: Any) -> tuple[list[Any], Rebuild]:
        """The leaves of a nest, and a function that puts as many others in their places."""
        return flatten(nest)

    def flatten_with_paths(self, nest: Any) -> tuple[list[Any], Rebuild, list[str]]:
        """The same, and where each leaf is, with dots between keys, fields and indices."""
        return flatten_with_paths(nest)

    def moved(self, scalar: Any, like: Any) -> Any:
        """A 0-d array on the device of `like`."""
        return scalar

    def stack(self, scalars: Sequence[Any]) -> Any:
        """0-d arrays of one dtype as an array, on the device of the first."""
        return self.xp.stack(scalars)

    def vjp(self, fn: OfLeaves, leaves: list[Any], *, again: bool = True) -> tuple[Any, list[Any], Pull]:
        """Value and auxiliary arrays of a function of a list of real arrays, and what pulls a cotangent of the value.

        One pass forward, and as many back as `pull` is called: it returns a gradient for each leaf, or None where the
        value does not depend on it and the framework can tell. `again`: whether the gradients are differentiated in
        their turn. Nothing that is returned is a tracer of this call's own.
        """
        raise NotImplementedError  # pragma: no cover - no one comes here who has asked `differentiates` first

    def differentiates(self) -> bool:
        """Whether there is a `vjp`; else another backend serves, which takes these arrays by DLPack."""
        return False

    def lending(self) -> AbstractContextManager[Any]:
        """What is set while arrays are lent to this library."""
        return nullcontext()

    def exported(self, x: Any) -> Any:
        """An array of this library as others take it by DLPack, or None if it is none that they could.

        A copy where it lies backwards in memory, or may: PyTorch's from_dlpack ends the process at a negative stride.
        """
        strides = getattr(x, "strides", None)
        return self.xp.asarray(x, copy=True) if strides is None or any(stride < 0 for stride in strides) else x

    def lend(self, x: Any) -> Any:
        """An array of another library as one of this, sharing its memory where the two can."""
        return self.xp.from_dlpack(x)

    def return_to(self, owner: Backend, x: Any, device: Any) -> Any:
        """The way back: an array of this library as one of its owner's, where those that were lent live."""
        found = owner.xp.from_dlpack(x)
        return found if owner.device(found) == device else array_api_compat.to_device(found, device)

    def differentiated_again(self, caller: str, gradient: Any) -> Any:
        """A gradient that goes into a loss: where that cannot be differentiated, the error says what to do."""
        return gradient

    def escaped(self, error: Exception) -> bool:
        """Whether `error` says that a function took an array that is traced out of the framework, for its values."""
        return False

    def requires_grad(self, x: Any) -> bool:
        """Whether its owner wants the gradient by `x`, in a framework where arrays say so."""
        return False

    def when(self, due: Any, compute: Callable[[], list[Any]]) -> list[Any]:
        """The arrays that `compute` returns where `due`, a traced boolean, is true, and otherwise zeros."""
        return [self.xp.where(due, x, self.xp.zeros_like(x)) for x in compute()]

    def carried(self) -> Callable[[], AbstractContextManager[Any]]:
        """What makes the modes of this thread, such as PyTorch's no_grad, those of another."""
        return nullcontext

    def is_tracing(self, x: Any) -> bool:
        """Whether `x` belongs to a program that is being traced, to run later."""
        return False

    def compiles(self) -> bool:
        """Whether there is something to compile with, here and now."""
        return False

    def in_trace(self) -> bool:
        """Whether what is computed now is being traced, of arrays with values too."""
        return False

    def uniform(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        """Numbers from U[0, 1) of the dtype and device of `like`, by the framework's own generator or NumPy's."""
        return self.xp.asarray(from_numpy(caller, rng).random(shape), dtype=like.dtype, device=self.device(like))

    def normal(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        """Numbers from N(0, 1), as `uniform`."""
        drawn = from_numpy(caller, rng).standard_normal(shape)
        return self.xp.asarray(drawn, dtype=like.dtype, device=self.device(like))

    def split(self, caller: str, rng: Any, count: int) -> list[Any]:
        """So many generators to draw from: the same, where drawing changes it."""
        return [rng] * count


def from_numpy(caller: str, rng: Any, *, or_else: str = "") -> Any:
    """NumPy's generator, checked. Its numbers are float64, so that every framework gets the same."""
    import numpy as np

    if rng is None:
        rng = np.random.default_rng()
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"{caller}: `rng` must be a {or_else}numpy.random.Generator, got {type(rng).__qualname__}. "
            "Pass for example numpy.random.default_rng(0)."
        )
    return rng
