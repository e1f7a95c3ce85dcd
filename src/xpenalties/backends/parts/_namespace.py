"""The array API namespace of parts: the functions that formulas use.

A function of elements works on the local arrays. A reduction along a cut axis is completed over its devices, and its
result is not cut there. A function that is not here raises an error, because on local arrays alone it may be wrong.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from ._group import Group
from ._part import Cuts, Part, elementwise
from ._reshape import reshaped

__all__ = ["PartNamespace"]

_ELEMENTWISE = frozenset(
    (
        "abs",
        "astype",
        "clip",
        "cos",
        "exp",
        "expm1",
        "imag",
        "isfinite",
        "isnan",
        "log",
        "log1p",
        "real",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "tanh",
        "where",
    )
)
_PLAIN = frozenset(("finfo", "isdtype"))  # functions of dtypes


class PartNamespace:
    """Functions of parts, with those of the framework's namespace `xp` for local arrays.

    Parameters
    ----------
    xp : namespace
        The framework's.
    cls : type
        The framework's class of parts.
    stop_gradient : callable
        Returns a local array as a constant.
    """

    def __init__(self, xp: Any, cls: type[Part], stop_gradient: Callable[[Any], Any]) -> None:
        self._local = xp
        self._cls = cls
        self._stop = stop_gradient
        self.__name__ = f"{xp.__name__} (parts)"
        self.linalg = _Linalg(xp, cls)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._local, name, None)
        if name in _ELEMENTWISE and callable(value):
            return lambda *args, **options: elementwise(lambda *local: value(*local, **options), *args)
        if name in _PLAIN or (value is not None and not callable(value)) or isinstance(value, type):
            return value
        if _is_dtype(self._local, value):
            return value
        if value is None:
            raise AttributeError(f"{self.__name__} has no {name!r}.")
        raise NotImplementedError(
            f"{name}: is not defined for a part of an array, because on the part alone it may be wrong. Gather the "
            "array first, or use another function."
        )

    # reductions

    def sum(self, x: Part, /, *, axis: Any = None, keepdims: bool = False) -> Part:
        axes = _axes(x, axis)
        data = self._local.sum(x.data, axis=axes, keepdims=keepdims)
        groups = _groups(x, axes)
        for group in groups:
            data = group.sum(data)
        return self._reduced(x, data, axes, keepdims, groups)

    def mean(self, x: Part, /, *, axis: Any = None, keepdims: bool = False) -> Part:
        size = math.prod([x.shape[i] for i in _axes(x, axis)])
        return elementwise(operator.truediv, self.sum(x, axis=axis, keepdims=keepdims), size)

    def max(self, x: Part, /, *, axis: Any = None, keepdims: bool = False) -> Part:
        """Return the maximum, as a constant if an axis is cut. Formulas do not differentiate it."""
        return self._extremum(x, axis, keepdims, largest=True)

    def min(self, x: Part, /, *, axis: Any = None, keepdims: bool = False) -> Part:
        """Return the minimum, as a constant if an axis is cut. Formulas do not differentiate it."""
        return self._extremum(x, axis, keepdims, largest=False)

    def all(self, x: Part, /, *, axis: Any = None, keepdims: bool = False) -> Part:
        smallest = self.min(self._as_integers(x), axis=axis, keepdims=keepdims)
        return smallest.like(smallest.data != 0)

    def any(self, x: Part, /, *, axis: Any = None, keepdims: bool = False) -> Part:
        largest = self.max(self._as_integers(x), axis=axis, keepdims=keepdims)
        return largest.like(largest.data > 0)  # of no elements, it is the smallest integer

    def _as_integers(self, x: Part) -> Part:
        return x.like(self._local.astype(x.data, self._local.int32))

    def _extremum(self, x: Part, axis: Any, keepdims: bool, *, largest: bool) -> Part:
        xp, axes = self._local, _axes(x, axis)
        groups = _groups(x, axes)
        data = self._stop(x.data) if groups else x.data
        reduce, worst = (xp.max, -math.inf) if largest else (xp.min, math.inf)
        if groups and 0 in [data.shape[i] for i in axes]:  # this device has no elements
            reduced = xp.sum(data, axis=axes, keepdims=keepdims)
            info = xp.iinfo(data.dtype) if xp.isdtype(data.dtype, "integral") else None
            if info is not None:
                worst = info.min if largest else info.max
            data = xp.astype(xp.full_like(reduced, worst), data.dtype)
        else:
            data = reduce(data, axis=axes, keepdims=keepdims)
        for group in groups:
            data = group.max(data) if largest else group.min(data)
        return self._reduced(x, data, axes, keepdims, groups)

    def _reduced(self, x: Part, data: Any, axes: tuple[int, ...], keepdims: bool, groups: Sequence[Group]) -> Part:
        if keepdims:
            cuts = tuple(None if i in axes else cut for i, cut in enumerate(x.cuts))
        else:
            cuts = tuple(cut for i, cut in enumerate(x.cuts) if i not in axes)
        return self._cls(data, cuts, x.varies.difference(groups))

    # shapes

    def reshape(self, x: Part, /, shape: Any) -> Part:
        local, cuts = reshaped(x, tuple(shape) if isinstance(shape, Sequence) else (shape,))
        return self._cls(self._local.reshape(x.data, local), cuts, x.varies)

    def expand_dims(self, x: Part, /, *, axis: int) -> Part:
        at = axis % (x.ndim + 1)
        return self._cls(self._local.expand_dims(x.data, axis=at), (*x.cuts[:at], None, *x.cuts[at:]), x.varies)

    def squeeze(self, x: Part, /, *, axis: int) -> Part:
        at = axis % x.ndim
        if x.shape[at] != 1 or x.cuts[at] is not None:
            raise ValueError(f"an axis must have size 1 and be whole to be removed, got {x.shape[at]}.")
        return self._cls(self._local.squeeze(x.data, axis=at), (*x.cuts[:at], *x.cuts[at + 1 :]), x.varies)

    def permute_dims(self, x: Part, /, axes: Sequence[int]) -> Part:
        return self._cls(self._local.permute_dims(x.data, tuple(axes)), tuple(x.cuts[i] for i in axes), x.varies)

    def matrix_transpose(self, x: Part, /) -> Part:
        cuts = (*x.cuts[:-2], x.cuts[-1], x.cuts[-2])
        result = self._cls(self._local.matrix_transpose(x.data), cuts, x.varies)
        result.transposed_from = x
        return result

    def broadcast_to(self, x: Part, /, shape: Any) -> Part:
        cuts: Cuts = (None,) * (len(shape) - x.ndim) + x.cuts
        local = tuple(
            n if cut is None else x.data.shape[i - len(shape) + x.ndim]
            for i, (n, cut) in enumerate(zip(shape, cuts, strict=True))
        )
        return self._cls(self._local.broadcast_to(x.data, local), cuts, x.varies)

    def concat(self, arrays: Sequence[Part], /, *, axis: int = 0) -> Part:
        first, at = arrays[0], axis % arrays[0].ndim
        if any(x.cuts != first.cuts or x.cuts[at] is not None for x in arrays):
            raise NotImplementedError("arrays must be cut in the same way, and not along the axis to join.")
        varies: frozenset[Group] = frozenset().union(*(x.varies for x in arrays))
        return self._cls(self._local.concat([x.data for x in arrays], axis=at), first.cuts, varies)

    def stack(self, arrays: Sequence[Part], /, *, axis: int = 0) -> Part:
        return self.concat([self.expand_dims(x, axis=axis) for x in arrays], axis=axis)

    # new arrays

    def zeros_like(self, x: Part, /, **options: Any) -> Part:
        return x.like(self._local.zeros_like(x.data, **options))

    def ones_like(self, x: Part, /, **options: Any) -> Part:
        return x.like(self._local.ones_like(x.data, **options))

    def asarray(self, value: Any, /, **options: Any) -> Part:
        return self._whole(self._local.asarray(value, **options))

    def eye(self, n: int, /, **options: Any) -> Part:
        return self._whole(self._local.eye(n, **options))

    def _whole(self, x: Any) -> Part:
        return self._cls(x, (None,) * x.ndim)

    def result_type(self, *args: Any) -> Any:
        return self._local.result_type(*(x.dtype if isinstance(x, Part) else x for x in args))


class _Linalg:
    def __init__(self, xp: Any, cls: type[Part]) -> None:
        self._local = xp.linalg
        self._cls = cls

    def eigh(self, x: Part, /) -> tuple[Part, Part]:
        if x.cuts[-1] is not None or x.cuts[-2] is not None:
            raise NotImplementedError("eigenvalues need whole matrices.")
        values, vectors = self._local.eigh(x.data)
        return self._cls(values, x.cuts[:-1], x.varies), self._cls(vectors, x.cuts, x.varies)

    def slogdet(self, x: Part, /) -> tuple[Part, Part]:
        if x.cuts[-1] is not None or x.cuts[-2] is not None:
            raise NotImplementedError("determinants need whole matrices.")
        sign, logarithm = self._local.slogdet(x.data)
        return self._cls(sign, x.cuts[:-2], x.varies), self._cls(logarithm, x.cuts[:-2], x.varies)

    def svd(self, x: Part, /, *, full_matrices: bool = True) -> tuple[Part, Part, Part]:
        if x.cuts[-1] is not None or x.cuts[-2] is not None:
            raise NotImplementedError("singular values need whole matrices. Gather the array first.")
        u, values, vh = self._local.svd(x.data, full_matrices=full_matrices)
        u, vh = (self._cls(vectors, x.cuts, x.varies) for vectors in (u, vh))
        return u, self._cls(values, x.cuts[:-1], x.varies), vh


def _axes(x: Part, axis: Any) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    return tuple(i % x.ndim for i in ((axis,) if isinstance(axis, int) else axis))


def _groups(x: Part, axes: Sequence[int]) -> list[Group]:
    """Return the groups that these axes are cut over."""
    cuts = [x.cuts[i] for i in axes]
    return list(dict.fromkeys(group for cut in cuts if cut is not None for group in cut.groups))


def _is_dtype(xp: Any, value: Any) -> bool:
    """Return True for a dtype that can be called, as JAX's can."""
    return value is not None and getattr(value, "dtype", None) is not None and not hasattr(value, "__wrapped__")
