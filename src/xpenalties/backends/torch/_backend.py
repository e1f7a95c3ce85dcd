"""The PyTorch backend: its dtypes, the operations that array-api-compat lacks, and its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat.torch
import torch

from ..base import Backend, DType, Exchange
from ..parts._backend import PartBackend
from ._autocast import without_autocast
from ._autograd import TorchAutodiff
from ._evaluation import TorchEvaluation
from ._linear import linear_in_parts, product_dtype
from ._parts import TorchPart
from ._random import TorchRandom
from ._tracing import TENSORS, TorchTracing, is_tracing

__all__ = ["BACKEND", "KNOWN", "PARTS", "TorchBackend"]


_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


class TorchBackend(Backend):
    softmax = staticmethod(torch.softmax)
    log_softmax = staticmethod(torch.log_softmax)
    # In float32 on the CPU, torch.log_softmax sums exponentials one after another. For nearly equal logits, errors of
    # the log-probabilities are 1e-5 for 2^15 classes, 6e-5 for 2^17 and 0.005 for 2^23. torch.sum is pairwise.
    softmax_classes = 2**15
    units_first = True  # torch.nn.Linear

    def __init__(self) -> None:
        super().__init__(
            "torch",
            array_api_compat.torch,
            autodiff=TorchAutodiff,
            evaluation=TorchEvaluation,
            tracing=TorchTracing,
            random=TorchRandom,
            exchange=TorchExchange,
        )
        # filled now: a lookup that adds an entry would be a side effect for torch.compile to guard
        dtypes = [value for value in vars(torch).values() if isinstance(value, torch.dtype)]
        self._dtypes = {dtype: self._describe(dtype) for dtype in dtypes}

    def _describe(self, dtype: Any) -> DType:
        if dtype.is_floating_point:
            working = torch.float32 if dtype.itemsize < 4 else None
            limits = torch.finfo(working or dtype)
            return DType("real", working, math.log(limits.smallest_normal), dtype is torch.float16, limits.eps)
        if dtype.is_complex:
            return DType("complex", torch.complex64 if dtype.itemsize < 8 else None)
        return DType("bool" if dtype is torch.bool else "other")

    def default_float(self) -> Any:
        return torch.get_default_dtype()

    def abs(self, x: Any) -> Any:
        return self.xp.abs(x)

    def matmul(self, a: Any, b: Any) -> Any:
        with without_autocast(a.device.type):
            return a @ b

    def linear(self, hidden: Any, weight: Any) -> Any:
        product = linear_in_parts(hidden, weight)
        if product is None:
            dtype = product_dtype(hidden, weight)
            product = self.matmul(hidden.to(dtype), weight.to(dtype).mT)
        return product

    def cumulative_sum(self, x: Any, axis: int) -> Any:
        return torch.cumsum(x, axis)  # array-api-compat's looks up its namespace, which torch.compile cannot trace

    def extrema(self, x: Any) -> tuple[Any, Any]:
        if is_tracing():  # torch.vmap has no rule for aminmax
            return super().extrema(x)
        ends: tuple[Any, Any] = torch.aminmax(x)
        return ends

    def device(self, x: Any) -> Any:
        return x.device  # torch.compile warns of array_api_compat's cached checks

    def moved(self, scalar: Any, like: Any) -> Any:
        return scalar.to(like.device)

    def packed(self, x: Any) -> Any:
        return x.values() if x.is_nested else x

    def stack(self, scalars: Sequence[Any]) -> Any:
        device = scalars[0].device  # a model may be on several devices
        return torch.stack([x.to(device) for x in scalars])

    def identity(self, x: Any) -> Any:
        if is_tracing() or type(x) not in TENSORS:  # no storage to compare
            return id(x)
        return x.untyped_storage()._cdata, x.storage_offset(), tuple(x.shape), x.stride()

    def is_sparse(self, x: Any) -> bool:
        return x.layout in _SPARSE

    def stored(self, x: Any) -> tuple[Any, Callable[[Any], Any]]:
        summed = x.coalesce()
        indices, size = summed.indices(), summed.size()

        def replaced(values: Any) -> Any:  # without check_invariants, PyTorch warns
            return torch.sparse_coo_tensor(indices, values, size, is_coalesced=True, check_invariants=False)

        return summed.values(), replaced

    def to_floats(self, scalars: Sequence[Any]) -> list[float]:
        dtype = torch.float32 if any(x.device.type == "mps" for x in scalars) else torch.float64
        device = next((x.device for x in scalars if x.device.type != "cpu"), "cpu")  # weights may be on the host
        values: list[float] = torch.stack([x.detach().to(device, dtype) for x in scalars]).tolist()
        return values


class TorchExchange(Exchange):
    def exported(self, x: Any) -> Any:
        return x.detach().resolve_conj().resolve_neg()

    def return_to(self, owner: Backend, x: Any, device: Any) -> Any:
        return super().return_to(owner, self.exported(x), device)


BACKEND = TorchBackend()
PARTS = PartBackend(BACKEND, TorchPart)
KNOWN: dict[type, Backend] = {**dict.fromkeys(TENSORS, BACKEND), TorchPart: PARTS}
