"""Change the singular values of matrices that are cut into parts, without gathering them.

The matrices A = U S V^T are tall, or their transposes are, and their rows are cut. A and its triangular factor R have
the same S and V. So has the stack of the factors of the parts, which is small. With a function f of the singular
values, U f(S) V^T = A W, where W = V (f(S) / S) V^T.

W is a function of the Gram matrix G = A^T A, so its derivative is that of a function of a symmetric matrix [1]_. It is
finite if singular values are equal, unlike that of a decomposition.

References
----------
.. [1] Bhatia, "Matrix Analysis", chapter V.3, 1997.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.tensor import Partial, Replicate, Shard

from ._dtensor_moves import assembled, from_local, held, redistributed, to_local, without_partials

__all__ = ["mapped_singular_values"]

Values = Callable[[Any], Any]


def mapped_singular_values(x: Any, function: Values, whole: Callable[[Any, Values], Any]) -> Any:
    """Return the DTensor with a function of its singular values in place of these.

    `whole` does that for plain matrices. `function` takes a DTensor, and treats each element alone.
    """
    mesh, layout, first = x.device_mesh, without_partials(x.placements), x.ndim - 2
    cut = tuple(i for i, p in enumerate(layout) if not p.is_replicate() and p.dim >= first)
    longest = first if x.shape[-2] >= x.shape[-1] else first + 1
    if x.dtype.is_complex:
        to = tuple(Replicate() if i in cut else p for i, p in enumerate(layout))
        cut = ()
    else:
        to = tuple(Shard(longest) if i in cut else p for i, p in enumerate(layout))
    local = to_local(redistributed(x, to))
    of_values = tuple(Replicate() if i in cut else p for i, p in enumerate(to))
    shape = (*x.shape[:-2], min(x.shape[-2:]))

    def of_parts(values: Any) -> Any:
        result = function(from_local(values, mesh, of_values, shape))
        return to_local(redistributed(result, of_values))

    if not cut:
        return from_local(whole(local, of_parts), mesh, to, x.shape)
    tall = local if longest == first else local.mT
    values, vectors = _decomposed(tall.detach(), mesh, to, cut, x.shape[longest])
    with torch.enable_grad():
        inputs = values.requires_grad_()
        slopes = torch.autograd.grad(of_parts(inputs).sum(), inputs, allow_unused=True)[0]
    values = values.detach()
    slopes = torch.zeros_like(values) if slopes is None else slopes
    product = tall.detach().mT @ tall.detach() if not tall.requires_grad else tall.mT @ tall
    summed = tuple(Partial() if i in cut else p for i, p in enumerate(of_values))
    gram_shape = (*shape, shape[-1])
    gram = product
    if tall.requires_grad:
        gram = to_local(redistributed(from_local(product, mesh, summed, gram_shape), of_values))
    factor = _Function.apply(gram, of_parts(values), values, vectors, slopes)
    # each process multiplies its own rows, so the gradients of the factor are summed
    factor = to_local(from_local(factor, mesh, of_values, gram_shape), summed)
    result = tall @ factor
    return from_local(result if longest == first else result.mT, mesh, to, x.shape)


def _decomposed(tall: Any, mesh: Any, layout: Any, cut: tuple[int, ...], rows: int) -> tuple[Any, Any]:
    """Return the singular values of tall matrices, of which this process has some rows, and V^T."""
    columns = tall.shape[-1]
    if tall.shape[-2] > columns:
        tall = torch.linalg.qr(tall, mode="r").R
    for i in cut:
        rows = -(-rows // mesh.size(i))
    rows = min(rows, columns)  # the most that a process has now
    padded = torch.nn.functional.pad(tall, (0, 0, 0, rows - tall.shape[-2]))
    parts = math.prod(mesh.size(i) for i in cut)
    axis = tall.ndim - 2
    stacked = tuple(Shard(axis) if i in cut else Replicate() for i in range(mesh.ndim))
    shape = (*tall.shape[:-2], parts * rows, columns)  # matrices along axes that are cut count as this process's own
    everywhere = (Replicate(),) * mesh.ndim
    whole = held(assembled(padded, mesh, stacked, shape).redistribute(placements=everywhere))
    _, values, vectors = torch.linalg.svd(whole, full_matrices=False)
    return values, vectors


class _Function(torch.autograd.Function):  # type: ignore[misc]
    """V (f(S) / S) V^T, as a function of the Gram matrix and of f(S)."""

    @staticmethod
    def forward(ctx: Any, gram: Any, mapped: Any, values: Any, vectors: Any, slopes: Any) -> Any:
        ratio = torch.where(values > 0, mapped / torch.where(values > 0, values, 1.0), 0.0)
        ctx.save_for_backward(ratio, values, vectors, slopes)
        return (vectors.mT * ratio.unsqueeze(-2)) @ vectors

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Any) -> Any:
        ratio, values, vectors, slopes = ctx.saved_tensors
        rotated = vectors @ cotangent @ vectors.mT
        positive = torch.where(values > 0, values, 1.0)
        squares = values * values
        slope = torch.where(values > 0, (slopes - ratio) / (2 * positive * positive), 0.0)  # of the ratio, by s^2
        gap = squares.unsqueeze(-1) - squares.unsqueeze(-2)
        close = gap.abs() <= 1e-6 * torch.maximum(squares.unsqueeze(-1), squares.unsqueeze(-2))
        quotient = (ratio.unsqueeze(-1) - ratio.unsqueeze(-2)) / torch.where(close, 1.0, gap)
        quotient = torch.where(close, 0.5 * (slope.unsqueeze(-1) + slope.unsqueeze(-2)), quotient)
        of_gram = vectors.mT @ (quotient * rotated) @ vectors
        of_mapped = torch.where(values > 0, rotated.diagonal(dim1=-2, dim2=-1) / positive, 0.0)
        return of_gram, of_mapped, None, None, None
