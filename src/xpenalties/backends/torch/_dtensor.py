"""The backend for DTensors: tensors that are cut into parts over the processes of a mesh.

A penalty of a DTensor is that of the whole tensor, on every process, as a plain number. What moves between processes is
rows, Gram matrices and numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from ..base import DType
from ._autograd import TorchAutodiff
from ._backend import BACKEND, TorchBackend, TorchExchange
from ._dtensor_evaluation import DTensorEvaluation
from ._dtensor_exchanges import along_whole
from ._dtensor_matmul import gram, linear, product
from ._dtensor_moves import (
    for_any_loss,
    from_local,
    number,
    plain,
    redistributed,
    replicated,
    to_local,
    uncut,
    without_partials,
)
from ._dtensor_namespace import Namespace, lifted, mesh_of
from ._dtensor_random import DTensorRandom
from ._dtensor_reductions import cumulative_sum, extremum, total
from ._dtensor_singular_values import mapped_singular_values
from ._tracing import TorchTracing

__all__ = ["DTENSOR", "DTensorBackend"]


class DTensorAutodiff(TorchAutodiff):
    def may_be_copied(self, x: Any) -> bool:
        return isinstance(x, DTensor) and isinstance(x, torch.nn.Parameter)

    def squared_norm(self, x: Any) -> Any:
        if not isinstance(x, DTensor):
            return super().squared_norm(x)
        x = redistributed(x, without_partials(x.placements))
        return total(super().squared_norm(to_local(x)), x.device_mesh, x.placements)

    def add_multiple(self, total: Any, x: Any, factor: Any) -> Any:
        if not isinstance(total, DTensor) and not isinstance(x, DTensor):
            return super().add_multiple(total, x, factor)
        return total + factor * x


class DTensorBackend(TorchBackend):
    # PyTorch's gather the classes, and loss_parallel changes their derivatives
    softmax = None  # type: ignore[assignment]
    log_softmax = None  # type: ignore[assignment]
    softmax_classes = 0
    traces = True
    cut = True

    def __init__(self) -> None:
        super(TorchBackend, self).__init__(
            "torch DTensor",
            Namespace(),
            "torch",
            autodiff=DTensorAutodiff,
            evaluation=DTensorEvaluation,
            tracing=TorchTracing,
            random=DTensorRandom,
            exchange=TorchExchange,
        )

    def dtype(self, dtype: Any) -> DType:
        return BACKEND.dtype(dtype)

    def beside(self, x: Any, like: Any) -> Any:
        if isinstance(x, DTensor):
            return redistributed(x, x.placements) if x.requires_grad else x  # its gradient comes in its own layout
        mesh = mesh_of([like])
        return x if mesh is None else lifted(x, mesh)

    def copied(self, x: Any) -> Any:
        return number(x) if isinstance(x, DTensor) else x

    def finished(self, value: Any) -> Any:
        if isinstance(value, DTensor):
            if value.ndim:
                return value  # terms
            value = plain(value)
        return for_any_loss(value)

    def matmul(self, a: Any, b: Any) -> Any:
        return product(a, b)

    def gram(self, x: Any, vectors: tuple[int, ...], along: tuple[int, ...], other: Any = None) -> Any:
        return (gram if isinstance(x, DTensor) else BACKEND.gram)(x, vectors, along, other)

    def linear(self, hidden: Any, weight: Any) -> Any:
        return linear(hidden, weight)

    def cumulative_sum(self, x: Any, axis: int) -> Any:
        return cumulative_sum(x, axis) if isinstance(x, DTensor) else super().cumulative_sum(x, axis)

    def in_order(self, x: Any, axis: int, ranks: Sequence[int] | None = None) -> Any:
        if not isinstance(x, DTensor):
            return super().in_order(x, axis, ranks)
        x = uncut(x, (axis % x.ndim,))
        local = BACKEND.in_order(to_local(x), axis, ranks)
        shape = list(x.shape)
        shape[axis] = local.shape[axis]
        return from_local(local, x.device_mesh, x.placements, shape)

    def by_columns(self, function: Callable[[Any, Any, Any], Any], a: Any, b: Any, of_rows: Any) -> Any:
        return function(*(None if x is None else self.whole_matrices(x) for x in (a, b, of_rows)))  # on each process

    def extrema(self, x: Any) -> tuple[Any, Any]:
        if not isinstance(x, DTensor):
            return super().extrema(x)
        return extremum(x, largest=False), extremum(x, largest=True)

    def device(self, x: Any) -> Any:
        return x.device_mesh if isinstance(x, DTensor) else x.device

    def map_singular_values(self, x: Any, function: Callable[[Any], Any]) -> Any:
        if not isinstance(x, DTensor):
            return super().map_singular_values(x, function)
        return mapped_singular_values(x, function, BACKEND.map_singular_values)

    def uncut(self, x: Any, axes: tuple[int, ...]) -> Any:
        return uncut(x, axes) if isinstance(x, DTensor) else x

    def along_whole(self, fn: Callable[..., Any], axis: int, x: Any, *others: Any) -> Any:
        return (along_whole if isinstance(x, DTensor) else super().along_whole)(fn, axis, x, *others)

    def with_whole_columns(self, x: Any) -> Any:
        is_simple = isinstance(x, DTensor) and x.device_mesh.ndim == 1
        return uncut(x, (1,)) if is_simple else x

    def whole_matrices(self, x: Any) -> Any:
        if not isinstance(x, DTensor):
            return x
        everywhere = replicated(x.device_mesh)
        return to_local(redistributed(x, everywhere), everywhere)

    def cut_like(self, x: Any, like: Any) -> Any:
        return self.laid_out(x, like)

    def zero(self, like: Any, dtype: Any) -> Any:
        return torch.zeros((), dtype=dtype, device=like.device)

    def laid_out(self, x: Any, like: Any) -> Any:
        both = isinstance(x, DTensor) and isinstance(like, DTensor)
        return redistributed(x, without_partials(like.placements)) if both else x

    def stack(self, scalars: Sequence[Any]) -> Any:
        return super().stack([plain(x) if isinstance(x, DTensor) else x for x in scalars])

    def snapshot(self, x: Any) -> Any:
        return x.detach().clone()

    def to_floats(self, scalars: Sequence[Any]) -> list[float]:
        return super().to_floats([plain(x.detach()) if isinstance(x, DTensor) else x for x in scalars])


DTENSOR = DTensorBackend()
