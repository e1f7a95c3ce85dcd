"""Check that gradients in a loss can be differentiated again. If not, raise an error that says what to do.

PyTorch's own error comes from deep in its backward pass, names neither the penalty nor the function, and offers no
remedy. So a node in each such gradient looks ahead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["OnceDifferentiableCheck", "nodes_from"]


_REMEDIES = {
    "torch::autograd::NotImplemented": "If it is attention, call `fn` under "
    "torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH). If not, write it with other operations, or "
    "penalize `output_magnitude` instead.",
    "torch::autograd::Error": "Remove once_differentiable from its autograd.Function, whose backward must then be made "
    "of torch's own operations.",
    "CompiledFunctionBackwardBackward": "Pass the function before torch.compile, and compile what calls the penalty.",
}


class OnceDifferentiableCheck(torch.autograd.Function):  # type: ignore[misc]
    """The identity. Its backward pass looks ahead for operations that would fail, and raises an error with a remedy."""

    @staticmethod
    def forward(ctx: Any, x: Any, caller: str) -> Any:
        ctx.caller = caller
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        nodes = [node for node, _ in ctx.next_functions]
        for name in (node.name() for node in nodes_from(nodes)):
            if name in _REMEDIES:
                raise NotImplementedError(
                    f"{ctx.caller}: `fn` must be twice differentiable, got an operation that PyTorch differentiates "
                    f"once ({name}). {_REMEDIES[name]}"
                )
        return cotangent, None


def nodes_from(nodes: list[Any]) -> Iterator[Any]:
    """Yield all nodes of an autograd graph that can be reached from `nodes`."""
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            nodes += [following for following, _ in node.next_functions]
