"""Linear maps whose gradient is a sum over blocks in eager PyTorch: each block's product is added in place.

A gradient is as large as the map, the blocks are many: to have each of them apart, and then to add it, takes as much
memory again, and more time than the product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Sum", "gathered"]


#: The sum that gathers the gradient of a leaf, by the leaf's identity, as long as it lives.
_SUMS = WeakTensorKeyDictionary()


class Sum:
    """The sum of what the blocks' gradients by a linear map are."""

    def __init__(self) -> None:
        self.value: Any = None

    def add(self, gradient: Any) -> None:
        """Of a sum in half precision nothing would be left."""
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
        """Have the gradient by `leaf` added here, and None returned for it, where `gathered` maps by it as it is."""
        if leaf.dtype in (torch.float32, torch.float64):
            _SUMS[leaf] = self


def gathered(hidden: Any, weight: Any) -> Any:
    """`hidden @ weight.T` where a `Sum` gathers the gradient by `weight`, else None."""
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
