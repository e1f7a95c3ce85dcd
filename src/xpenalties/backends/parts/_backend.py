"""The backend of parts: the framework's own operations on local arrays, and what crosses devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._work import Work
from ..base import Autodiff, Backend, DType, Evaluation, Random, Tracing
from ._group import Group
from ._namespace import PartNamespace
from ._part import Part, aligned
from ._products import linear, matmul, with_whole_rows

__all__ = ["PartBackend"]


class PartBackend(Backend):
    """The backend of one framework's parts.

    Parameters
    ----------
    local : Backend
        The framework's.
    cls : type
        Its class of parts.
    """

    traces = True  # plain arrays beside a part count as its framework's
    in_parts = True

    def __init__(self, local: Backend, cls: type[Part]) -> None:
        namespace = PartNamespace(local.xp, cls, local.autodiff.stop_gradient)
        super().__init__(local.name, namespace, local.library)
        self.local = local
        self.cls = cls
        self.autodiff = PartAutodiff(namespace, local)
        self.evaluation = PartEvaluation(namespace, local)
        self.tracing = PartTracing(namespace, local)
        self.random = PartRandom(namespace, local)
        cls.backend = self

    def dtype(self, dtype: Any) -> DType:
        return self.local.dtype(dtype)

    def default_float(self) -> Any:
        return self.local.default_float()

    def signed(self, integer: Any) -> Any:
        return integer.like(self.local.signed(integer.data))

    def abs(self, x: Any) -> Any:
        return x.like(self.local.abs(x.data))

    def in_order(self, x: Any, axis: int, ranks: Sequence[int] | None = None) -> Any:
        raise NotImplementedError("rows must be whole to be sorted. Use over(batch=...).")

    def by_columns(self, function: Callable[[Any, Any, Any], Any], a: Any, b: Any, of_rows: Any) -> Any:
        """Exchange pieces, so that each device has some columns. Those that are added to share them evenly are 0."""
        a, b = (self.uncut(x, (0,)) for x in (a, b))
        parts = [a, b] if of_rows is None else [a, b, self.copied(of_rows)]
        varies: frozenset[Group] = frozenset().union(*(x.varies for x in parts))
        local = [aligned(x, x.cuts, varies) for x in parts]
        return self.cls(function(*local, *[None] * (3 - len(local))), a.cuts[1:], varies)

    def extrema(self, x: Any) -> tuple[Any, Any]:
        return self.xp.min(x), self.xp.max(x)

    def matmul(self, a: Any, b: Any) -> Any:
        return matmul(self.local, a, b)

    def linear(self, hidden: Any, weight: Any) -> Any:
        return linear(self.local, hidden, weight)

    def copied(self, x: Any) -> Any:
        (cut,) = x.cuts
        if cut is None:
            return x
        (group,) = cut.groups
        whole = self.local.xp.eye(cut.size, dtype=x.dtype, device=self.local.device(x.data))
        numbers = self.local.matmul(x.data, group.sliced(whole, 0, cut.sizes))  # 0 for the other devices' vectors
        return self.cls(group.sum(numbers), (None,), x.varies - {group})

    def uncut(self, x: Any, axes: tuple[int, ...]) -> Any:
        if any(x.cuts[axis] is not None for axis in axes) and (x.ndim, axes) != (2, (0,)):
            raise NotImplementedError("only the rows of a matrix can be made whole.")
        return with_whole_rows(self.local, x) if axes == (0,) else x

    def whole_matrices(self, x: Any) -> Any:
        return x  # the decomposition refuses parts of a matrix

    def positions(self, x: Any, like: Any) -> Any:
        cut = x.cuts[-1]
        whole = self.local.xp.arange(x.shape[-1], dtype=like.dtype, device=self.local.device(x.data))
        if cut is None:
            return self.cls(whole, (None,))
        (group,) = cut.groups
        return self.cls(group.sliced(whole, 0, cut.sizes), (cut,))

    def device(self, x: Any) -> Any:
        return self.local.device(x.data)

    def number(self, size: Any, like: Any) -> Any:
        return self.local.number(size, like.data)


class PartAutodiff(Autodiff):
    def __init__(self, xp: Any, local: Backend) -> None:
        super().__init__(xp)
        self._local = local

    def stop_gradient(self, x: Any) -> Any:
        return x.like(self._local.autodiff.stop_gradient(x.data))

    def weight_mask(self, weights: Any) -> Any:
        mask = self._local.autodiff.weight_mask(weights.data)
        return None if mask is None else weights.like(mask)


class PartRandom(Random):
    """Random numbers that are the same on all devices: those of the first device."""

    def __init__(self, xp: Any, local: Backend) -> None:
        super().__init__(xp)
        self._local = local

    def normal(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        drawn = self._local.random.normal(caller, rng, shape, like.data)
        for group in sorted(like.varies, key=str):
            drawn = group.sum(drawn * (group.index == 0))
        return type(like)(drawn, (None,) * len(shape))


class PartEvaluation(Evaluation):
    """Evaluates on local arrays if rows are whole, and otherwise in step with the other devices.

    In step, nothing may depend on values, such as the attempt without guards: devices would take different branches,
    and wait for each other.
    """

    def __init__(self, xp: Any, local: Backend) -> None:
        super().__init__(xp)
        self._local = local

    def run(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        return self._local.evaluation.run(function, arrays, options)

    def evaluate(self, work: Work) -> tuple[Any, Any]:
        if work.kind == "rows" and _rows_are_whole(work):
            return self._on_local_rows(work)
        if work.matrices:
            return self._linear_maps(work)
        return self.run(work.terms, (work.arrays, work.mask), {}), None

    def _on_local_rows(self, work: Work) -> tuple[Any, Any]:
        local = _localized(work, self._local, _data_of(work))
        terms, total = self._local.evaluation.evaluate(local)
        return self._results(work, terms, total)

    def _linear_maps(self, work: Work) -> tuple[Any, Any]:
        """Evaluate a linear map whose classes are cut. In a block of rows, all devices compute their own classes."""
        arrays, formula, matrices = work.arrays, work.formula, work.matrices

        def of_block(*local: Any, **options: Any) -> Any:
            parts = []
            for i, (x, whole) in enumerate(zip(local, arrays, strict=True)):
                parts.append(whole.like(x) if i in matrices else type(whole)(x, (None,) * x.ndim, whole.varies))
            return formula(*parts, **options).data

        cut = arrays[matrices[0]].cuts[0]
        local = _localized(work, self._local, _data_of(work))._replace(formula=of_block, classes=max(cut.sizes))
        terms, total = self._local.evaluation.evaluate_in_step(local)
        return self._results(work, terms, total)

    def _results(self, work: Work, terms: Any, total: Any) -> tuple[Any, Any]:
        """Return terms of local rows, and their sum over all devices that have rows."""
        assert work.axis is not None
        first = work.arrays[0]
        cuts = work.outer(first.cuts) + (None,) * len(work.values)
        part = type(first)(terms, cuts)
        if total is not None:
            for group in sorted(part.varies, key=str):
                total = group.sum(total)
            total = type(first)(total, ())
        return part, total


class PartTracing(Tracing):
    def __init__(self, xp: Any, local: Backend) -> None:
        super().__init__(xp)
        self._local = local

    def is_tracing(self, x: Any) -> bool:
        return self._local.tracing.is_tracing(x.data)

    def raise_unless(self, valid: Any, message: str, error: Callable[[], Exception]) -> None:
        self._local.tracing.raise_unless(valid.data, message, lambda: ValueError(message))


def _rows_are_whole(work: Work) -> bool:
    if work.matrices:
        return all(work.arrays[i].cuts[0] is None for i in work.matrices)
    return all(x.cuts[work.axis] is None for x in work.arrays)


def _data_of(work: Work) -> tuple[Any, ...]:
    """Return the local arrays. A linear map meets rows that differ between devices, in each block anew.

    So it is marked once, here, or the gradients of each block would be added up over the devices.
    """
    groups = sorted({group for cut in work.outer(work.arrays[0].cuts) if cut for group in cut.groups}, key=str)
    local = []
    for i, x in enumerate(work.arrays):
        data = x.data
        for group in groups if i in work.matrices else ():
            data = group.shared(data) if group not in x.varies else data
        local.append(data)
    return tuple(local)


def _localized(work: Work, local: Backend, arrays: tuple[Any, ...]) -> Work:
    mask, factors = (None if x is None else x.data for x in (work.mask, work.factors))
    return work._replace(xp=local.xp, arrays=arrays, mask=mask, factors=factors)
