"""The backend for nested tensors of the layout torch.jagged, and the choice of a backend for a class of tensors.

A jagged tensor holds sequences of different lengths, one after another, in `values()`. In its shape, a symbol stands
for the length. So its `mean`, and any number of elements computed from the shape, would be wrong.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from ..base import Backend
from ._backend import BACKEND, TorchBackend

__all__ = ["REFUSED", "find"]


class JaggedBackend(TorchBackend):
    ragged = True

    def ragged_axis(self, x: Any) -> int:
        return int(x._ragged_idx)

    def are_alike(self, x: Any, y: Any) -> bool:
        if x.lengths() is not None or y.lengths() is not None:  # then there are gaps between the sequences
            return False
        return bool(x.shape[x._ragged_idx] == y.shape[y._ragged_idx])

    def unpacked(self, x: Any, like: Any, axis: int) -> Any:
        return torch.nested.nested_tensor_from_jagged(x, like.offsets(), jagged_dim=axis)


_JAGGED = JaggedBackend()
REFUSED: dict[type, str] = {torch.masked.MaskedTensor: "Pass its get_data(), and its get_mask() as `where`"}


def find(cls: type) -> Backend | None:
    nested = sys.modules.get("torch.nested._internal.nested_tensor")
    if nested is not None and issubclass(cls, nested.NestedTensor):
        return _JAGGED
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is not None and issubclass(cls, distributed.DTensor):
        from ._dtensor import DTENSOR

        return DTENSOR
    return BACKEND if issubclass(cls, torch.Tensor) else None
