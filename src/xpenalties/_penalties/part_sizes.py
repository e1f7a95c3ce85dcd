"""What devices tell each other about their parts, so that a wrong part is the same error on all of them.

A device that alone raises an error leaves the others waiting for it. So everything that an error depends on is
exchanged first: what is called with which kinds of arrays, and all sizes. In JAX, one program runs on all devices, and
all parts have the same size.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

from .._core.dynamo import in_dynamo
from ..backends import Backend, backend_of
from ..backends._over import Groups
from ..backends.parts._group import Group

__all__ = ["PartSizes"]

_FIRST = 16  # integers of the first message: two, and sizes
_TEXT = 1024  # bytes that describe a call
_PLAIN = (bool, int, float, str, NoneType)
_Table = list[list[list[int]]]  # by device of the batch, by device of the classes: the sizes of its parts


class PartSizes:
    """The sizes of all devices' parts.

    Parameters
    ----------
    arrays : mapping
        This device's parts by name.
    settings : mapping
        What else must be the same on all devices: the values that are numbers, names or None.

    Attributes
    ----------
    arrays : mapping
    """

    def __init__(
        self,
        caller: str,
        backend: Backend,
        groups: Groups,
        arrays: Mapping[str, Any],
        settings: Mapping[str, Any],
    ) -> None:
        self.arrays = arrays
        self._caller = caller
        self._groups = groups
        self._start = {}
        sizes: list[int] = []
        for name, x in arrays.items():
            self._start[name] = len(sizes)
            sizes += x.shape
        is_exchanged = groups.exchange_sizes and backend.library == groups.library
        table = _exchanged(caller, groups, arrays, sizes, settings) if is_exchanged else None
        _check_kind(caller, backend, groups, arrays)
        self._lines: dict[Group, list[list[list[int]]]] = {}
        self._own: dict[Group, list[list[int]]] = {}
        for group in groups.all:
            if table is None:
                self._lines[group] = [[sizes] * group.size]
                self._own[group] = self._lines[group][0]
                continue
            across = group == groups.batch
            self._lines[group] = [list(line) for line in zip(*table, strict=True)] if across else table
            other = groups.classes if across else groups.batch
            self._own[group] = self._lines[group][0 if other is None else other.index]

    def of(self, name: str, group: Group, axis: int) -> tuple[int, ...]:
        """Return the sizes of an array along an axis, on the devices that share it with this one."""
        return tuple(sizes[self._start[name] + axis] for sizes in self._own[group])

    def check_equal(self, name: str, group: Group, *, except_axis: int | None) -> None:
        """Check that the devices of each group have the same sizes along all axes that are not cut over it."""
        what = "batch" if group == self._groups.batch else "classes"
        for axis in range(self.arrays[name].ndim):
            if axis == except_axis:
                continue
            for line in self._lines[group]:
                found = tuple(sizes[self._start[name] + axis] for sizes in line)
                if len(set(found)) > 1:
                    cut = "It is not cut over them" if except_axis is None else f"Only axis {except_axis} is cut"
                    raise ValueError(
                        f"{self._caller}: `{name}` must have the same size along axis {axis} on all devices that share "
                        f"the {what}, got {found}. {cut}."
                    )


def _exchanged(
    caller: str, groups: Groups, arrays: Mapping[str, Any], sizes: Sequence[int], settings: Mapping[str, Any]
) -> _Table:
    """Return the sizes on all devices. Raise an error if they do not make the same call."""
    if in_dynamo():  # pragma: no cover - Dynamo's trace, which no coverage sees
        raise ValueError(f"{caller}: `equal_parts` of `over` must be True in torch.compile, got False. Pass it.")
    like, *_ = arrays.values()
    sizes = [size if type(size) is int else -1 for size in sizes]  # -1: of a tensor that is refused
    text = _described(caller, arrays, settings)
    message = [zlib.crc32(text.encode()), len(sizes), *sizes]
    first = _gathered(groups, (message + [0] * _FIRST)[:_FIRST], like)
    if any(head[:2] != message[:2] for line in first for head in line):
        raise ValueError(_unlike(groups, text, like))
    rest = _gathered(groups, message[_FIRST:], like) if len(message) > _FIRST else None
    table = []
    for i, line in enumerate(first):
        whole = [head if rest is None else head + rest[i][j] for j, head in enumerate(line)]
        table.append([each[2 : len(message)] for each in whole])
    return table


def _described(caller: str, arrays: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    of_arrays = [f"{name}: {type(x).__name__} of {x.dtype} with {x.ndim} axes" for name, x in arrays.items()]
    others = [f"{name}={value!r}" for name, value in sorted(settings.items()) if isinstance(value, _PLAIN)]
    return f"{caller}({', '.join([*of_arrays, *others])})"


def _gathered(groups: Groups, message: list[int], like: Any) -> _Table:
    """Return a message of each device. All have the same length."""
    line = [message] if groups.classes is None else groups.classes.gathered(message, like)
    if groups.batch is None:
        return [line]
    n, lines = len(message), groups.batch.gathered([number for each in line for number in each], like)
    return [[flat[i : i + n] for i in range(0, len(flat), n)] for flat in lines]


def _unlike(groups: Groups, text: str, like: Any) -> str:
    """Return the error for calls that differ: the first one, and another."""
    texts = _gathered(groups, list(text.encode()[:_TEXT].ljust(_TEXT)), like)
    first, *others = (bytes(each).decode(errors="replace").rstrip() for line in texts for each in line)
    other = next(each for each in others if each != first)
    return (
        f"over: all devices must make the same call, got {first} on one and {other} on another. Pass the same options, "
        "and arrays of the same dtypes and numbers of axes."
    )


def _check_kind(caller: str, backend: Backend, groups: Groups, arrays: Mapping[str, Any]) -> None:
    """Check that arrays are plain arrays of the groups' framework, and that the groups exist here."""
    for name, x in arrays.items():
        actual = backend_of(x)
        knows = hasattr(x, "full_tensor")  # a DTensor
        if actual is None or actual.library != groups.library or knows or actual.ragged or actual.traces:
            kind = "PyTorch tensor" if groups.library == "torch" else "JAX array"
            remedy = "It knows itself how it is cut, so call the penalty outside." if knows else "Convert it first."
            raise TypeError(
                f"{caller}: `{name}` must be a plain {kind} inside over({groups.shown}), got "
                f"{type(x).__module__}.{type(x).__qualname__}. {remedy}"
            )
    for argument, group in (("classes", groups.classes), ("batch", groups.batch)):
        if group is not None and not group.is_bound():
            raise ValueError(
                f"{caller}: `{argument}` of `over` must name an axis of the jax.shard_map or jax.vmap around it, got "
                f"{group}. Call it inside the mapped function."
            )
