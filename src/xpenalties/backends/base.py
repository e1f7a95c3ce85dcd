"""The interface that every backend implements: what xpenalties needs from a framework.

A `Backend` is an array namespace and the operations that it lacks. Everything else that differs between frameworks is
in five parts: `autodiff`, `evaluation`, `tracing`, `random` and `exchange`. The defaults need only the array API
standard. So array-api-strict has no file here: it uses `Backend` itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import array_api_compat

from .._core.pytrees import Rebuild, flatten, flatten_with_paths
from ._autodiff import Autodiff, NoAutodiffError, OfLeaves, Pull
from ._blocks import PART
from ._evaluation import Evaluation
from ._exchange import Exchange
from ._random import Random
from ._tracing import Tracing

__all__ = [
    "Autodiff",
    "Backend",
    "DType",
    "Evaluation",
    "Exchange",
    "NoAutodiffError",
    "OfLeaves",
    "Pull",
    "Random",
    "Tracing",
]


class DType(NamedTuple):
    """The properties of a dtype that a penalty needs."""

    kind: str  # "real", "complex", "bool" or "other"
    working: Any = None  # the dtype to compute in; None: the dtype itself
    log_least: float = 0.0  # log of the smallest normal number of the dtype to compute in
    underflows: bool = False  # True if the dtype to compute in has far smaller normal numbers, as for float16
    eps: float = 0.0  # of the dtype to compute in: the gap between 1 and the next number


class Backend:
    """An array namespace and the few operations that the standard lacks.

    Parameters
    ----------
    name : str
        The name in errors and reports.
    xp : namespace
        The functions of the array API standard.
    library : str, optional
        Arrays of one library may be mixed, even if their namespaces differ. By default `name`.
    autodiff, evaluation, tracing, random, exchange : type
        The classes of the parts. Each is called with the namespace.
    """

    #: `softmax(x, axis)` and `log_softmax(x, axis)` in one pass, if the framework has them.
    softmax: Callable[[Any, int], Any] | None = None
    log_softmax: Callable[[Any, int], Any] | None = None
    #: The largest number of classes for which both are accurate. 0 if the framework has neither.
    softmax_classes: int = 0
    #: True if the arrays belong to a tracer. The namespace then takes the library's plain arrays too.
    traces: bool = False
    #: True if the arrays are cut into parts over processes. Plain arrays beside them are the same on every process.
    cut: bool = False
    #: True if the arrays are parts of larger arrays, inside `over`.
    in_parts: bool = False
    #: True if the arrays hold sequences of different lengths, packed one after another. See `_penalties/ragged.py`.
    ragged: bool = False
    #: True if arrays are in chunks that are computed later. See the methods from `require_sizes` on.
    lazy: bool = False
    #: True if a linear layer's weight has its output units on the first axis, False if on the last.
    units_first: bool = False

    def __init__(
        self,
        name: str,
        xp: Any,
        library: str | None = None,
        *,
        autodiff: type[Autodiff] = Autodiff,
        evaluation: type[Evaluation] = Evaluation,
        tracing: type[Tracing] = Tracing,
        random: type[Random] = Random,
        exchange: type[Exchange] = Exchange,
    ) -> None:
        self.name = name
        self.xp = xp
        self.library = library or name
        self._dtypes: dict[Any, DType] = {}
        self.autodiff = autodiff(xp)
        self.evaluation = evaluation(xp)
        self.tracing = tracing(xp)
        self.random = random(xp)
        self.exchange = exchange(xp)

    def __repr__(self) -> str:
        return f"<{self.name} backend>"

    def dtype(self, dtype: Any) -> DType:
        """Return the properties of `dtype`, from a cache."""
        described = self._dtypes.get(dtype)
        if described is None:
            described = self._dtypes[dtype] = self._describe(dtype)
        return described

    def _describe(self, dtype: Any) -> DType:
        xp = self.xp
        if xp.isdtype(dtype, "real floating"):
            least = float(xp.finfo(dtype).smallest_normal)
            working = xp.float32 if xp.finfo(dtype).bits < 32 else None
            limits = xp.finfo(working or dtype)
            least_of_working = float(limits.smallest_normal)
            return DType("real", working, math.log(least_of_working), least > 2 * least_of_working, float(limits.eps))
        if xp.isdtype(dtype, "complex floating"):
            return DType("complex")
        return DType("bool" if xp.isdtype(dtype, "bool") else "other")

    def default_float(self) -> Any:
        """Return the default floating-point dtype."""
        return self.xp.__array_namespace_info__().default_dtypes()["real floating"]

    def signed(self, integer: Any) -> Any:
        """Cast an integer array to a wider signed dtype, if there is one."""
        return integer if integer.dtype == self.xp.int64 else self.xp.astype(integer, self.xp.int64)

    def abs(self, x: Any) -> Any:
        """Return `|x|` with slope 0 at 0. `xp.abs` of an unknown namespace may have another slope."""
        if self.dtype(x.dtype).kind == "real":
            return x * self.autodiff.stop_gradient(self.xp.sign(x))
        magnitude = self.xp.abs(x)
        return self.xp.where(magnitude == 0, 0.0, magnitude)

    def cumulative_sum(self, x: Any, axis: int) -> Any:
        """Return the cumulative sum along `axis`."""
        return self.xp.cumulative_sum(x, axis=axis)

    def in_order(self, x: Any, axis: int, ranks: Sequence[int] | None = None) -> Any:
        """Return the elements in ascending order along an axis, by default all, else those of these ranks from 0."""
        # the order of equal elements matters to gradients only
        x = self.xp.sort(self.uncut(x, (axis % x.ndim,)), axis=axis, stable=self.autodiff.differentiates())
        if ranks is None:
            return x
        constant = self.autodiff.stop_gradient(x)
        return self.xp.take(x, self.xp.asarray(ranks, device=self.device(constant)), axis=axis)

    def by_columns(self, function: Callable[[Any, Any, Any], Any], a: Any, b: Any, of_rows: Any) -> Any:
        """Return `function(a, b, of_rows)`: one number for each column of two matrices, which need not see others.

        `of_rows` has a number for each row, or is None.
        """
        return function(*(None if x is None else self.copied(x) for x in (a, b, of_rows)))

    def extrema(self, x: Any) -> tuple[Any, Any]:
        """Return the smallest and the largest element of `x`."""
        return self.xp.min(x), self.xp.max(x)

    #: Whether `sum_of_products` is more than a product and a sum.
    sums_products = False

    def sum_of_products(self, a: Any, b: Any, *, axis: int, keepdims: bool = False) -> Any:
        """Return the sum of `a * b` over an axis, for arrays of the same shape and dtype."""
        return self.xp.sum(a * b, axis=axis, keepdims=keepdims)

    def matmul(self, a: Any, b: Any) -> Any:
        """Return `a @ b` in the dtype of the arrays, even under autocast."""
        return a @ b

    def map_singular_values(self, x: Any, function: Callable[[Any], Any]) -> Any:
        """Return matrices with a function of their singular values, largest first, in place of these."""
        u, values, vh = self.xp.linalg.svd(self.whole_matrices(x), full_matrices=False)
        return self.cut_like(self.matmul(u * self.xp.expand_dims(function(values), axis=-2), vh), x)

    def uncut(self, x: Any, axes: tuple[int, ...]) -> Any:
        """Return `x` with these axes, all >= 0, whole on each device, for operations that cannot take parts."""
        return x

    def along_whole(self, fn: Callable[..., Any], axis: int, x: Any, *others: Any) -> Any:
        """Return `fn(x, *others)` for a function that maps vectors along `axis`, >= 0, to vectors as long.

        The arrays have one shape, and None stays None. `fn` may get parts of them that hold whole vectors.
        """
        whole = self.uncut(x, (axis,))
        others = tuple(None if y is None else self.cut_like(self.uncut(y, (axis,)), whole) for y in others)
        return self.cut_like(fn(whole, *others), x)

    def with_whole_columns(self, x: Any) -> Any:
        """Return a matrix whose rows may be cut, but not its columns, if that takes an exchange of parts. Else `x`."""
        return x

    def whole_matrices(self, x: Any) -> Any:
        """Return `x` with the last two axes whole, for decompositions. It may be a plain copy."""
        return self.uncut(x, (x.ndim - 2, x.ndim - 1))

    def cut_like(self, x: Any, like: Any) -> Any:
        """Return `x` cut over devices as `like`, which it broadcasts to."""
        return x

    def gram(self, x: Any, vectors: tuple[int, ...], along: tuple[int, ...], other: Any = None) -> Any:
        """Return the products of all pairs of a vector of `x` and one of `other`, by default of `x`: [..., n, n].

        The n vectors are counted by the axes `vectors`, and each lies along the axes `along`. Both are in ascending
        order. All other axes come before them, and count matrices. `other` has the shape of `x`, and is cut alike.
        """
        first, second = (vectors, along) if along[-1] == x.ndim - 1 else (along, vectors)
        a = self._matrices(x, first, second)
        b = a if other is None else self._matrices(other, first, second)
        transpose = self.xp.matrix_transpose
        return self.matmul(a, transpose(b)) if first is vectors else self.matmul(transpose(a), b)

    def _matrices(self, x: Any, first: tuple[int, ...], second: tuple[int, ...]) -> Any:
        """Return `x` with one axis in place of `first`, and one in place of `second`, which are its last axes."""
        xp = self.xp
        if len(first) + len(second) > 2:  # only sequences of 3-d arrays are copied
            order = (*first, *second)  # torch.vmap has no rule for moveaxis
            x = x if order == tuple(range(x.ndim)) else xp.permute_dims(x, order)
            x = xp.reshape(x, (math.prod(x.shape[: len(first)]), math.prod(x.shape[len(first) :])))
        return x

    def linear(self, hidden: Any, weight: Any) -> Any:
        """Return `hidden @ weight.T`, summed and returned in float32 or wider."""
        xp = self.xp
        dtype = xp.result_type(hidden.dtype, weight.dtype, xp.float32)
        if hidden.dtype != dtype:
            hidden = xp.astype(hidden, dtype)
        if weight.dtype == dtype:
            return self.matmul(hidden, xp.matrix_transpose(weight))
        classes, features = weight.shape
        step = max(1, PART // features)  # a copy of the whole weight may be larger than the logits of a block
        parts = (xp.astype(weight[start : start + step, :], dtype) for start in range(0, classes, step))
        logits = [self.matmul(hidden, xp.matrix_transpose(part)) for part in parts]
        return logits[0] if len(logits) == 1 else xp.concat(logits, axis=-1)

    def positions(self, x: Any, like: Any) -> Any:
        """Return the indices along the last axis of `x`, with the dtype and the device of `like`."""
        return self.xp.arange(x.shape[-1], dtype=like.dtype, device=self.device(like))

    def device(self, x: Any) -> Any:
        """Return the device of `x`, for the `device=` of new arrays."""
        return array_api_compat.device(x)

    def beside(self, x: Any, like: Any) -> Any:
        """Return `x` as an array that operators combine with `like`, which may be cut into parts."""
        return x

    def copied(self, x: Any) -> Any:
        """Return `x` with a copy on each device, as a Gram matrix has."""
        return x

    def finished(self, value: Any) -> Any:
        """Return the value of a penalty of arrays that are cut into parts, ready to be added to any loss."""
        return value

    def moved(self, scalar: Any, like: Any) -> Any:
        """Move a 0-d array to the device of `like`."""
        return scalar

    def stack(self, scalars: Sequence[Any]) -> Any:
        """Stack 0-d arrays of one dtype, on the device of the first."""
        return self.xp.stack(scalars)

    def identity(self, x: Any) -> Any:
        """Return a key that is equal for two arrays only if they are the same view of the same memory."""
        return id(x)

    def is_sparse(self, x: Any) -> bool:
        """Return True if `x` does not store all of its elements."""
        return False

    def stored(self, x: Any) -> tuple[Any, Callable[[Any], Any]]:
        """Return the stored elements of a sparse array, each once, and a function that replaces them."""
        raise NotImplementedError  # pragma: no cover - no array of this backend is sparse

    def zero(self, like: Any, dtype: Any) -> Any:
        """Return a 0-d array of 0, on the device of `like`. If `like` is traced, so is the result."""
        xp = self.xp
        return xp.sum(xp.zeros_like(xp.reshape(self.packed(like), (-1,))[:0], dtype=dtype))

    def laid_out(self, x: Any, like: Any) -> Any:
        """Return an array cut into parts as another array of its shape is."""
        return x

    def number(self, size: Any, like: Any) -> Any:
        """Return a size as a number to compute with. During an export, a size may be a symbol."""
        return size

    def packed(self, x: Any) -> Any:
        """Return the elements of a ragged array as a plain array, and any other array unchanged."""
        return x

    def ragged_axis(self, x: Any) -> int:
        """Return the axis of a ragged array along which its sequences lie. The sequences are on axis 0."""
        raise NotImplementedError  # pragma: no cover - callers ask `ragged` first

    def are_alike(self, x: Any, y: Any) -> bool:
        """Return True if two ragged arrays have the same lengths, so that their packed elements correspond."""
        raise NotImplementedError  # pragma: no cover - callers ask `ragged` first

    def unpacked(self, x: Any, like: Any, axis: int) -> Any:
        """Return packed elements as a ragged array with the lengths of `like`, along `axis`."""
        raise NotImplementedError  # pragma: no cover - callers ask `ragged` first

    def require_sizes(self, function: str, name: str, x: Any) -> None:
        """Raise an error if a size of `x` is not known before it is computed."""
        raise NotImplementedError  # pragma: no cover - callers ask `lazy` first

    def in_chunks(self, x: Any, chunks: tuple[Any, ...]) -> Any:
        """Return `x` with other chunks."""
        raise NotImplementedError  # pragma: no cover - callers ask `lazy` first

    def norm(self, norm: Callable[..., Any], x: Any, axis: Any, *, again: bool = False) -> Any:
        """Return the L2 norm along `axis`, of size 1 there. `norm` is for arrays of the chunks' framework."""
        raise NotImplementedError  # pragma: no cover - callers ask `lazy` first

    def not_finite(self, x: Any) -> tuple[int, int, tuple[int, ...]] | None:
        """Compute the number of NaN and Inf, and the index of the first, or None if all are finite."""
        raise NotImplementedError  # pragma: no cover - callers ask `lazy` first

    def sum_over(self, arrays: Sequence[Any], fn: Callable[[Sequence[Any]], list[Any]]) -> list[Any]:
        """Add up the arrays that `fn` returns for the first elements of `arrays` along axis 0, the second, and so on.

        There is at least one.
        """
        total = fn([x[0] for x in arrays])
        for i in range(1, arrays[0].shape[0]):
            total = [a + b for a, b in zip(total, fn([x[i] for x in arrays]), strict=True)]
        return total

    def snapshot(self, x: Any) -> Any:
        """Return a constant that does not change if `x` does: a copy, unless arrays are immutable."""
        return self.xp.asarray(self.autodiff.stop_gradient(x), copy=True)

    def to_floats(self, scalars: Sequence[Any]) -> list[float]:
        """Return 0-d arrays as Python floats, with one transfer from the device if possible."""
        return [float(scalar) for scalar in scalars]

    def flatten(self, tree: Any) -> tuple[list[Any], Rebuild]:
        """Return the leaves of a pytree, and a function that rebuilds it with other leaves."""
        return flatten(tree)

    def flatten_with_paths(self, tree: Any) -> tuple[list[Any], Rebuild, list[str]]:
        """Flatten like `flatten`. Also returns the path of each leaf: keys, fields and indices, joined with dots."""
        return flatten_with_paths(tree)
