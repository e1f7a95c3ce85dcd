"""PyTorch: detach, one device-to-host copy for many scalars, and torch.func for gradients that compose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import array_api_compat.torch
import torch

from .base import Backend, DType, OfLeaves

__all__ = ["KNOWN", "find"]


class TorchBackend(Backend):
    abs_is_flat_at_zero = True

    def __init__(self) -> None:
        super().__init__("torch", array_api_compat.torch)
        # whole from the start: a look-up that adds an entry would be a side effect for torch.compile to guard
        dtypes = [found for found in vars(torch).values() if isinstance(found, torch.dtype)]
        self._dtypes = {dtype: self._describe(dtype) for dtype in dtypes}

    def _describe(self, dtype: Any) -> DType:
        if dtype.is_floating_point:
            return DType("real", torch.float32 if dtype.itemsize < 4 else None)
        if dtype.is_complex:
            return DType("complex", torch.complex64 if dtype.itemsize < 8 else None)
        return DType("bool" if dtype is torch.bool else "other", None)

    def evaluate(self, formula: Callable[..., Any], arrays: Sequence[Any], options: Mapping[str, Any]) -> Any:
        return formula(*arrays, **options)

    def matmul(self, a: Any, b: Any) -> Any:
        kind = a.device.type
        if kind == "meta" or not torch.is_autocast_enabled(kind):
            return a @ b
        with torch.autocast(kind, enabled=False):
            return a @ b

    def device(self, x: Any) -> Any:
        return x.device  # torch.compile warns of array_api_compat's cached checks

    def stop_gradient(self, x: Any) -> Any:
        return x.detach()

    def to_floats(self, scalars: Sequence[Any]) -> list[float]:
        dtype = torch.float32 if any(x.device.type == "mps" for x in scalars) else torch.float64
        device = next((x.device for x in scalars if x.device.type != "cpu"), "cpu")  # weights may be on the host
        values: list[float] = torch.stack([x.detach().to(device, dtype) for x in scalars]).tolist()
        return values

    def differentiate(self, fn: OfLeaves, leaves: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        gradients, (value, aux) = torch.func.grad_and_value(fn, has_aux=True)(leaves)
        return value, aux, [_materialized(gradient) for gradient in gradients]


def _materialized(gradient: Any) -> Any:
    """torch.func marks some zeros by a tensor without storage, which `numpy()` refuses."""
    if torch.compiler.is_compiling() or not gradient._is_zerotensor():
        return gradient
    return gradient.clone()


_TORCH = TorchBackend()
KNOWN: dict[type, Backend] = {torch.Tensor: _TORCH, torch.nn.Parameter: _TORCH}


def find(cls: type) -> Backend | None:
    return _TORCH if issubclass(cls, torch.Tensor) else None
