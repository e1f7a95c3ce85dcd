"""Parts of tensors on the processes of a group, and differentiable collective operations.

The operations are PyTorch's functional ones, which torch.compile can trace. Their derivatives are defined here, because
PyTorch's own assume another rule: see `Group`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..parts._group import Group
from ..parts._part import Part

__all__ = ["TorchGroup", "TorchPart", "group_of"]

_ops = torch.ops._c10d_functional


class TorchPart(Part):
    __slots__ = ()


class TorchGroup(Group):
    """The processes of a torch.distributed.ProcessGroup."""

    library = "torch"

    def __init__(self, group: Any) -> None:
        self._size: int = group.size()
        self._index: int = group.rank()
        self.name: str = group.group_name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TorchGroup) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return f"group {self.name}"

    @property
    def size(self) -> int:
        return self._size

    @property
    def index(self) -> int:
        return self._index

    def sum(self, x: Any) -> Any:
        return _Sum.apply(x, self.name)

    def max(self, x: Any) -> Any:
        return _Extremum.apply(x.detach(), "max", self.name)

    def min(self, x: Any) -> Any:
        return _Extremum.apply(x.detach(), "min", self.name)

    def shared(self, x: Any) -> Any:
        return _Shared.apply(x, self.name) if x.is_floating_point() else x

    def exchanged(self, x: Any, *, cut: int, joined: int, sizes: tuple[int, ...]) -> Any:
        return _Exchanged.apply(x, cut, joined, sizes, self._index, self.name)

    def gathered(self, numbers: Sequence[int], like: Any) -> list[list[int]]:
        local = torch.tensor(list(numbers), dtype=torch.int64, device=like.device)
        gathered = _ops.wait_tensor(_ops.all_gather_into_tensor(local, self._size, self.name))
        return gathered.reshape(self._size, len(numbers)).tolist()

    def sliced(self, x: Any, axis: int, sizes: tuple[int, ...]) -> Any:
        return x.narrow(axis, sum(sizes[: self._index]), sizes[self._index])


def _all_reduce(x: Any, operation: str, name: str) -> Any:
    return _ops.wait_tensor(_ops.all_reduce(x.contiguous(), operation, name))


class _Sum(torch.autograd.Function):  # type: ignore[misc]
    """The sum over all processes. All of them have the same gradient of it, and each part gets that."""

    @staticmethod
    def forward(x: Any, name: str) -> Any:
        return _all_reduce(x, "sum", name)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, str], output: Any) -> None:
        ctx.name = inputs[1]

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        return _Shared.apply(cotangent, ctx.name), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any, name: str) -> Any:
        return _Sum.apply(x, name), in_dims[0]


class _Extremum(torch.autograd.Function):  # type: ignore[misc]
    """The largest or smallest value on any process, of a constant. A function only for its rule for torch.vmap."""

    @staticmethod
    def forward(x: Any, operation: str, name: str) -> Any:
        return _all_reduce(x, operation, name)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, str, str], output: Any) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        return None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any, operation: str, name: str) -> Any:
        return _Extremum.apply(x, operation, name), in_dims[0]


class _Shared(torch.autograd.Function):  # type: ignore[misc]
    """The identity, for a value that is the same on all processes. The gradients of its uses are added up."""

    @staticmethod
    def forward(x: Any, name: str) -> Any:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, str], output: Any) -> None:
        ctx.name = inputs[1]

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        return _Sum.apply(cotangent, ctx.name), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any, name: str) -> Any:
        return _Shared.apply(x, name), in_dims[0]


class _Exchanged(torch.autograd.Function):  # type: ignore[misc]
    """The exchange of equal pieces of axis `cut`, joined along `joined`, on which the processes have `sizes`."""

    @staticmethod
    def forward(x: Any, cut: int, joined: int, sizes: tuple[int, ...], index: int, name: str) -> Any:
        count = len(sizes)
        pieces = x.unflatten(cut, (count, x.shape[cut] // count)).movedim(cut, 0)  # one for each process
        at = joined + 1 if joined < cut else joined  # the axis to join, after that of the processes
        pieces = pieces.movedim(at, 1).contiguous()
        rest = pieces.shape[2:]
        flat, width = pieces.reshape(-1), rest.numel()
        out = [size * width for size in sizes]
        received = _ops.all_to_all_single(flat, out, [flat.numel() // count] * count, name)
        joined_rows = _ops.wait_tensor(received).reshape(sum(sizes), *rest)
        return joined_rows.movedim(0, joined)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.how = inputs[1:]

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        return _Returned.apply(cotangent, *ctx.how), *[None] * 5


class _Returned(torch.autograd.Function):  # type: ignore[misc]
    """The inverse of `_Exchanged`."""

    @staticmethod
    def forward(x: Any, cut: int, joined: int, sizes: tuple[int, ...], index: int, name: str) -> Any:
        rows = x.movedim(joined, 0).contiguous()
        rest, width = rows.shape[1:], rows.shape[1:].numel()
        count = len(sizes)
        own = sizes[index]
        received = _ops.all_to_all_single(rows.reshape(-1), [own * width] * count, [n * width for n in sizes], name)
        pieces = _ops.wait_tensor(received).reshape(count, own, *rest)
        at = joined + 1 if joined < cut else joined
        return pieces.movedim(1, at).movedim(0, cut).flatten(cut, cut + 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.how = inputs[1:]

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        return _Exchanged.apply(cotangent, *ctx.how), *[None] * 5


def group_of(value: Any) -> TorchGroup | None:
    """Return the group of a ProcessGroup or of a one-dimensional DeviceMesh."""
    if not torch.distributed.is_available():
        return None
    if isinstance(value, torch.distributed.device_mesh.DeviceMesh):
        return TorchGroup(value.get_group()) if value.ndim == 1 else None
    return TorchGroup(value) if isinstance(value, torch.distributed.ProcessGroup) else None
