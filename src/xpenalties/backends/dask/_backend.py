"""The Dask backend: arrays in chunks that are computed later, by NumPy, perhaps on other machines.

A call of a penalty computes nothing. It adds tasks to a graph, and each task works on one chunk. What counts is how
often the graph reads the data, and that no chunk waits in memory for a result that needs all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import array_api_compat.dask.array
import array_api_compat.numpy
import dask
import dask.array as da
import numpy as np

from .._random import from_numpy
from ..base import Backend, Exchange, Random
from ._chunks import eigh_of_chunk, norm_of_chunk, not_finite_in_chunk, slogdet_of_chunk
from ._evaluation import DaskEvaluation, of_first_pass
from ._parts import KNOWN as _PARTS

__all__ = ["KNOWN", "find"]


class DaskBackend(Backend):
    lazy = True

    def to_floats(self, scalars: Sequence[Any]) -> list[float]:
        """Compute all scalars in one graph, so that each chunk is read once for all of them."""
        return [float(x) for x in dask.compute(*scalars)]

    def require_sizes(self, function: str, name: str, x: Any) -> None:
        _require_sizes(function, name, x)

    def in_chunks(self, x: Any, chunks: tuple[Any, ...]) -> Any:
        return x if x.chunks == chunks else x.rechunk(chunks)

    def norm(self, norm: Callable[..., Any], x: Any, axis: Any, *, again: bool = False) -> Any:
        """Return the L2 norm along `axis`, of size 1 there, as the norm of the norms of the chunks.

        `norm` computes it for NumPy arrays. If `again`, the norm will be used together with `x`.
        """
        axes = tuple(range(x.ndim)) if axis is None else tuple(a % x.ndim for a in np.atleast_1d(axis))
        if all(len(x.chunks[a]) == 1 for a in axes):
            return _norms_of_chunks(norm, x, axes)

        def of_whole(x: Any) -> Any:
            return _norms_of_chunks(norm, _norms_of_chunks(norm, x, axes).rechunk(dict.fromkeys(axes, -1)), axes)

        return of_first_pass(of_whole, x, again=again)

    def not_finite(self, x: Any) -> tuple[int, int, tuple[int, ...]] | None:
        """Return the number of NaN and Inf and the index of the first, or None if all are finite. Reads `x` once."""
        found = da.map_blocks(
            not_finite_in_chunk,
            x[..., None],
            dtype=np.int64,
            chunks=(*((1,) * len(sizes) for sizes in x.chunks), (3,)),
            meta=np.empty((0,) * (x.ndim + 1), np.int64),
        )
        counts = found.compute().reshape(-1, 3)
        nan, inf = counts[:, 0].sum(), counts[:, 1].sum()
        if nan + inf == 0:
            return None
        first = counts[counts[:, 0] + counts[:, 1] > 0, 2].min()
        return int(nan), int(inf), tuple(map(int, np.unravel_index(first, x.shape)))


def _require_sizes(function: str, name: str, x: Any) -> None:
    if any(math.isnan(size) for size in x.shape):
        raise ValueError(
            f"{function}: `{name}` must have chunks of known sizes, got shape {tuple(x.shape)}. Call its method "
            "compute_chunk_sizes() first."
        )


def _norms_of_chunks(norm: Callable[..., Any], x: Any, axes: tuple[int, ...]) -> Any:
    index = tuple(range(x.ndim))
    dtype = norm(np.ones((1,) * x.ndim, x.dtype)).dtype
    return da.blockwise(
        norm_of_chunk,
        index,
        x,
        index,
        norm=norm,
        axes=axes,
        adjust_chunks=dict.fromkeys(axes, 1),
        dtype=dtype,
        meta=np.empty((0,) * x.ndim, dtype),
    )


class Namespace:
    """The functions of the array API standard for Dask, with those replaced that would hold or copy whole arrays."""

    linalg: Any

    def __init__(self) -> None:
        self.linalg = _Linalg()

    def __getattr__(self, name: str) -> Any:
        return getattr(array_api_compat.dask.array, name)

    @property
    def __name__(self) -> str:
        return "dask.array"

    @staticmethod
    def clip(x: Any, min: Any = None, max: Any = None) -> Any:
        """Clip. array-api-compat's clip copies `x`."""
        if min is not None:
            x = da.where(x < min, min, x).astype(x.dtype)
        return x if max is None else da.where(x > max, max, x).astype(x.dtype)

    @staticmethod
    def mean(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
        """Return the mean. It is subtracted from `x` later, so `x` is read twice."""
        mean = partial(array_api_compat.dask.array.mean, axis=axis, keepdims=keepdims)
        return of_first_pass(mean, x, again=True)


class _Linalg:
    def __getattr__(self, name: str) -> Any:
        return getattr(array_api_compat.dask.array.linalg, name)

    @staticmethod
    def eigh(x: Any, /) -> tuple[Any, Any]:
        """Return the eigenvalues and eigenvectors of symmetric matrices, each in one chunk."""
        x = x.rechunk({x.ndim - 2: -1, x.ndim - 1: -1})
        index = tuple(range(x.ndim))
        both = da.blockwise(
            eigh_of_chunk,
            index,
            x,
            index,
            adjust_chunks={x.ndim - 2: x.shape[-1] + 1},
            dtype=x.dtype,
            meta=np.empty((0,) * x.ndim, x.dtype),
        )
        return both[..., 0, :], both[..., 1:, :]

    @staticmethod
    def slogdet(x: Any, /) -> tuple[Any, Any]:
        """Return the signs of determinants and the logarithms of their magnitudes. Each matrix is in one chunk."""
        axes = [x.ndim - 2, x.ndim - 1]
        x = x.rechunk(dict.fromkeys(axes, -1))
        meta = np.empty((0,) * (x.ndim - 2), x.dtype)
        sign, logarithm = (x.map_blocks(slogdet_of_chunk, part, drop_axis=axes, meta=meta) for part in (0, 1))
        return sign, logarithm


class DaskRandom(Random):
    """Random numbers that each chunk draws for itself, from a seed that the user's generator draws."""

    def normal(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        _require_sizes(caller, "updates", like)
        chunks = like.chunks if shape == like.shape else -1
        return self._generator(caller, rng).standard_normal(shape, chunks=chunks).astype(like.dtype)

    def _generator(self, caller: str, rng: Any) -> Any:
        return da.random.default_rng(int(from_numpy(caller, rng).integers(2**63)))


_DASK = DaskBackend("dask", Namespace(), evaluation=DaskEvaluation, random=DaskRandom, exchange=Exchange)
KNOWN: dict[type, Backend] = {da.Array: _DASK, **_PARTS}


def find(cls: type) -> Backend | None:
    return _DASK if issubclass(cls, da.Array) else _PARTS.get(cls)  # a worker may see parts only
