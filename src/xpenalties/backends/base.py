"""What a framework must be able to do for xpenalties: the contract that every file in this package fills in.

The methods here are what the array API standard alone allows, so a namespace without a file of its own
(array-api-strict, dask) is an instance of this very class.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import array_api_compat

from .._nests import Rebuild, flatten

OfLeaves = Callable[[list[Any]], tuple[Any, list[Any]]]


class DType(NamedTuple):
    """What a penalty needs to know of a dtype: its kind, and the dtype to compute in (None: its own)."""

    kind: str  # "real", "complex", "bool" or "other"
    working: Any


class NoAutodiffError(NotImplementedError):
    """What `differentiate` raises where there is nothing to do it with; whoever was called adds its name."""


class Backend:
    """One array namespace and the few operations that the standard lacks."""

    #: `abs` has slope 0 at 0. Unknown namespaces are not trusted with it, see `_numerics.abs_`.
    abs_is_flat_at_zero: bool = False
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
            return DType("real", xp.float32 if xp.finfo(dtype).bits < 32 else None)
        if xp.isdtype(dtype, "complex floating"):
            return DType("complex", None)
        return DType("bool" if xp.isdtype(dtype, "bool") else "other", None)

    def evaluate(self, formula: Callable[..., Any], arrays: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """A formula's terms.

        Quietly, where NumPy does the work: a formula takes -inf - -inf and masks it, as its docstring says, and a
        warning of that would be noise. (Dask does the work later, under the settings of then.)
        """
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return formula(*arrays, **options)
        with numpy.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            return formula(*arrays, **options)

    def matmul(self, a: Any, b: Any) -> Any:
        """`a @ b` in the dtype that they have, whatever is switched on to lower it."""
        return a @ b

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

    def differentiate(self, fn: OfLeaves, leaves: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        """Value, auxiliary arrays and gradients of a function of a list of real arrays.

        `fn` returns a scalar and a list of arrays. A leaf that the value does not depend on has gradient zero.
        """
        raise NoAutodiffError(
            f"{self.name} arrays have no automatic differentiation. Convert them to PyTorch, JAX or "
            "NumPy (with autograd installed) arrays first."
        )
