"""Linear layers in eager PyTorch: sum logits in float32, and add gradients up over blocks in place.

Logits that are rounded to half precision are too coarse for the divergence of two close distributions. So operands in
half precision are cast to float32 first. The weight is cast in parts, because a copy of it would be twice as large. A
CUDA device needs no copy: it can multiply in half precision and sum in float32.

Each block's gradient is as large as the weight. To compute it first and then add it would take that much memory again,
and more time than the matrix product. So a `Sum` adds each product in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from .._blocks import PART
from ._autocast import without_autocast
from ._tracing import are_batched, is_eager, is_tracing

__all__ = ["Sum", "linear_in_parts", "product_dtype"]

#: The sum that gathers the gradient of a leaf. By the leaf's identity, while it lives.
_SUMS = WeakTensorKeyDictionary()


class Sum:
    """The sum of the blocks' gradients with respect to a linear map, in float32 or wider."""

    def __init__(self) -> None:
        self.value: Any = None

    def gathers(self, leaf: Any) -> None:
        """Gather the gradient of `leaf` here. Autograd then returns None for it."""
        _SUMS[leaf] = self

    def add_product(self, a: Any, b: Any) -> None:
        """Add `a @ b`, for an `a` in float32 or wider."""
        if self.value is None:
            self.value = a.new_zeros((a.shape[0], b.shape[1]))
        for at in _parts(self.value, as_whole=not _uses_two_products(a, b)):
            _add_product(self.value[at], a[at], b)


def product_dtype(hidden: Any, weight: Any) -> Any:
    """Return the dtype to compute the product in: float32 or wider."""
    return torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)


def linear_in_parts(hidden: Any, weight: Any) -> Any:
    """Return `hidden @ weight.T` in float32 or wider. Return None if it cannot be computed in parts."""
    if is_tracing():
        return None
    total, dtype = _SUMS.get(weight), product_dtype(hidden, weight)
    if total is None:
        if weight.dtype == dtype or not is_eager((hidden, weight)):
            return None
        if not (torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)):
            return _logits(hidden, weight, dtype)
        if hidden.is_inference() or weight.is_inference():  # autograd cannot save them
            return None
    return _Linear.apply(hidden, weight, total, dtype)


class _Linear(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, total: Sum | None, dtype: Any) -> Any:
        ctx.save_for_backward(hidden, weight)
        ctx.total, ctx.dtype = total, dtype
        return _logits(hidden, weight, dtype)

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        hidden, weight = ctx.saved_tensors
        needs_hidden, needs_weight, *_ = ctx.needs_input_grad
        with without_autocast(cotangent.device.type):
            if torch.is_grad_enabled() or are_batched(cotangent):  # differentiated again or batched: cast as a whole
                of_hidden = cotangent @ weight.to(ctx.dtype) if needs_hidden else None
                of_weight = _rows(cotangent).mT @ _rows(hidden).to(ctx.dtype) if needs_weight else None
            else:
                of_hidden = _gradient_of_hidden(cotangent, weight).reshape(hidden.shape) if needs_hidden else None
                of_weight = _gradient_of_weight(cotangent, hidden, ctx.total) if needs_weight else None
        results = ((of_hidden, hidden), (of_weight, weight))
        return *(None if gradient is None else gradient.to(x.dtype) for gradient, x in results), None, None


def _logits(hidden: Any, weight: Any, dtype: Any) -> Any:
    """Return `hidden @ weight.T`, summed in `dtype`."""
    rows = _rows(hidden)
    with without_autocast(hidden.device.type):
        if hidden.dtype == weight.dtype and sums_in_float32(weight):
            logits = torch.mm(rows, weight.mT, out_dtype=dtype)
        elif weight.dtype == dtype:
            logits = rows.to(dtype) @ weight.mT
        else:
            rows = rows.to(dtype)
            logits = rows.new_empty((rows.shape[0], weight.shape[0]))
            for at in _parts(weight):
                torch.mm(rows, weight[at].to(dtype).mT, out=logits[:, at])
    return logits.reshape(*hidden.shape[:-1], weight.shape[0])


def _gradient_of_hidden(cotangent: Any, weight: Any) -> Any:
    """Return `cotangent @ weight`, in the dtype of `cotangent`."""
    rows = _rows(cotangent)
    total = rows.new_zeros((rows.shape[0], weight.shape[1]))
    for at in _parts(weight, as_whole=weight.dtype == rows.dtype or _uses_two_products(rows, weight)):
        _add_product(total, rows[:, at], weight[at])
    return total


def _gradient_of_weight(cotangent: Any, hidden: Any, total: Sum | None) -> Any:
    """Return the gradient with respect to the weight, or None if `total` gathers it."""
    gathered = Sum() if total is None else total
    gathered.add_product(_rows(cotangent).mT, _rows(hidden))
    return gathered.value if total is None else None


def _add_product(total: Any, a: Any, b: Any) -> None:
    """Add `a @ b` to `total`, which has the dtype of `a`."""
    if not _uses_two_products(a, b):
        total.addmm_(a, b.to(a.dtype))
        return
    high = a.to(b.dtype)
    for part in (high, (a - high).to(b.dtype)):
        total.add_(torch.mm(part, b, out_dtype=total.dtype))


def _uses_two_products(a: Any, b: Any) -> bool:
    """Return True if `a @ b` should be two products in bfloat16, which are faster than one in float32.

    `a` becomes a sum of two numbers in bfloat16, which have 16 bits together. Gradients may exceed float16's range.
    """
    return a.dtype == torch.float32 and b.dtype == torch.bfloat16 and sums_in_float32(b)


def sums_in_float32(x: Any) -> bool:
    """Return True if the device of `x` can multiply in half precision and sum in float32."""
    return bool(x.device.type == "cuda" and torch.version.hip is None and x.dtype in (torch.float16, torch.bfloat16))


def _parts(matrix: Any, *, as_whole: bool = False) -> list[slice]:
    """Cut the rows of a matrix into parts of limited size."""
    rows, columns = matrix.shape
    step = max(1, rows if as_whole else PART // columns)
    return [slice(start, start + step) for start in range(0, rows, step)]


def _rows(x: Any) -> Any:
    return x.reshape(x.shape[:-1].numel(), x.shape[-1])  # not -1, because a part of a layer may have no classes
