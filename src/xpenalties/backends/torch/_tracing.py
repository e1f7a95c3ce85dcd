"""Detect if PyTorch is tracing, or runs operations one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from ..base import Tracing

__all__ = ["TENSORS", "TorchTracing", "are_batched", "is_eager", "is_tracing"]

TENSORS = (torch.Tensor, torch.nn.Parameter)


class TorchTracing(Tracing):
    def is_tracing(self, x: Any) -> bool:
        return is_tracing()

    def has_value(self, x: Any) -> bool:
        while torch._C._functorch.is_functorch_wrapped_tensor(x):
            if torch._C._functorch.is_batchedtensor(x):
                return False
            x = torch._C._functorch.get_unwrapped(x)
        return x.device.type != "meta"

    def raise_unless(self, valid: Any, message: str, error: Callable[[], Exception]) -> None:
        if torch.compiler.is_compiling():  # pragma: no cover - coverage cannot see what Dynamo traces
            if not torch._C._functorch.is_batchedtensor(valid):  # the assertion has no batching rule
                torch._assert_async(valid, message)
            return
        if torch._C._is_tracing() or torch._C._len_torch_dispatch_stack() > 0:  # jit.trace, make_fx, fake tensors
            torch._assert_async(valid, message)
            return
        plain = valid
        while torch._C._functorch.is_functorch_wrapped_tensor(plain):
            plain = torch._C._functorch.get_unwrapped(plain)
        if hasattr(plain, "full_tensor"):  # a DTensor, whose bool() would be that of this process alone
            plain = plain.full_tensor()
        if plain is valid and plain.device.type != "meta":
            super().raise_unless(valid, message, error)
        elif plain.device.type != "meta" and not bool(plain.all()):  # `error` could not read its arrays
            raise ValueError(message)

    def compiles(self) -> bool:
        return not is_tracing()  # inside torch.func nothing can be compiled


def is_tracing() -> bool:
    """Return True while torch.compile or torch.func traces."""
    return torch.compiler.is_compiling() or bool(torch._C._are_functorch_transforms_active())


def is_eager(arrays: tuple[Any, ...]) -> bool:
    """Return True if operations run one by one, on plain tensors that have values and no tangents."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():  # `is_tracing` inlined
        return False
    # torch.jit.trace or make_fx would record a decision that depends on values, and apply it to all values
    if torch._C._is_tracing() or (torch._C._len_torch_dispatch_stack() > 0 and get_proxy_mode() is not None):
        return False
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(x).tangent is not None for x in arrays):
        return False
    for x in arrays:  # noqa: SIM110 - a generator would cost as much as the rest
        if type(x) not in TENSORS or x.device.type == "meta":
            return False
    return True


def are_batched(cotangents: Any) -> bool:
    """Return True if the cotangents are batched, by torch.func or by the older ``is_grads_batched``."""
    older: bool = torch._C._functorch.is_legacy_batchedtensor(cotangents)
    return older or bool(torch._C._are_functorch_transforms_active())
