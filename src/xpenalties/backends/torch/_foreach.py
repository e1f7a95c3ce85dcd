"""Sum |x| and x^2 over many small tensors at once, forward and backward, with torch._foreach.

For a tensor of a few thousand elements, the call of an operation takes longer than the operation. Here one call serves
all tensors. The derivative is written out, because the second derivative of torch._foreach_norm is 0 if a tensor is
all zeros.
"""

from __future__ import annotations

from typing import Any

import torch

from ._tracing import are_batched

__all__ = ["LARGEST", "power_sum"]

LARGEST = 2**15  # elements of a tensor on the CPU; for 2**22 in float32, PyTorch's norm is off by 1e-4


def power_sum(first: float, second: float, tensors: tuple[Any, ...]) -> Any:
    """Return `first * sum(|x|) + second * sum(x^2)` over tensors of one real dtype and device."""
    return _PowerSum.apply(first, second, *tensors)


class _PowerSum(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, first: float, second: float, *tensors: Any) -> Any:
        ctx.save_for_backward(*tensors)
        ctx.factors = first, second
        value = tensors[0].new_zeros(())
        if first:
            value = value + first * torch.stack(torch._foreach_norm(tensors, 1)).sum()
        if second:
            value = value + second * torch.stack(torch._foreach_norm(tensors, 2)).square().sum()
        return value

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        tensors, (first, second) = ctx.saved_tensors, ctx.factors
        if torch.is_grad_enabled() or are_batched(cotangent):
            # torch._foreach_mul has no derivative with respect to a factor that is a tensor, and no vmap rule
            return None, None, *(_gradient(x, first, second, cotangent) for x in tensors)
        gradients: Any = None
        if second:
            gradients = torch._foreach_mul(tensors, 2 * second * cotangent)
        if first:  # slope 0 at 0
            signs = torch._foreach_mul(torch._foreach_sign(tensors), first * cotangent)
            gradients = signs if gradients is None else torch._foreach_add(gradients, signs)
        return None, None, *gradients


def _gradient(x: Any, first: float, second: float, cotangent: Any) -> Any:
    """Return the gradient of one tensor, by operations that can be differentiated again."""
    if not second:  # 0 times inf would be NaN
        return first * cotangent * x.sign()
    gradient = 2 * second * cotangent * x
    return gradient + first * cotangent * x.sign() if first else gradient
