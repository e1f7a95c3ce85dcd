"""Sum the gradient of a linear map over blocks in eager PyTorch, in place.

Each block's gradient is as large as the map. To compute it first and then add it would take as much memory again, and
more time than the matrix product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Sum", "gathered"]


#: The sum that gathers the gradient of a leaf. By the leaf's identity, while it lives.
_SUMS = WeakTensorKeyDictionary()


class Sum:
    """The sum of the blocks' gradients with respect to a linear map."""

    def __init__(self) -> None:
        self.value: Any = None

    def add(self, gradient: Any) -> None:
        """Add a gradient, in float32 or wider."""
        if self.value is None:
            self.value = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        else:
            self.value.add_(gradient)

    def add_product(self, a: Any, b: Any) -> None:
        """Add `a @ b`."""
        if self.value is None:
            self.value = a @ b
        else:
            self.value.addmm_(a, b)

    def gathers(self, leaf: Any) -> None:
        """Gather the gradient of `leaf` here if `gathered` uses it uncast. Autograd then returns None for it."""
        if leaf.dtype in (torch.float32, torch.float64):
            _SUMS[leaf] = self


def gathered(hidden: Any, weight: Any) -> Any:
    """Return `hidden @ weight.T` if a `Sum` gathers the gradient with respect to `weight`, else None."""
    total = _SUMS.get(weight)
    return None if total is None else _Linear.apply(hidden, weight, total)


class _Linear(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, total: Sum) -> Any:
        ctx.save_for_backward(hidden, weight)
        ctx.total = total
        return hidden @ weight.mT

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        hidden, weight = ctx.saved_tensors
        ctx.total.add_product(cotangent.flatten(0, -2).mT, hidden.flatten(0, -2))
        return cotangent @ weight if ctx.needs_input_grad[0] else None, None, None
