"""The dtype that a penalty computes in: half precision is widened to float32."""

from __future__ import annotations

from typing import Any

from ..backends import Backend
from .spec import Spec

__all__ = ["working_dtype"]


def working_dtype(spec: Spec, backend: Backend, arrays: tuple[Any, ...]) -> Any:
    """Check dtypes and shapes. Returns the dtype to compute in, or None for that of the arrays.

    It is float32 or wider, unless a function takes the arrays.
    """
    first = arrays[0]
    first_dtype = first.dtype
    kind, working, _, _ = backend.dtype(first_dtype)
    if kind != "real":
        _check_kind(spec, spec.arrays[0], first, kind)
    differ = working is not None and not spec.functions
    for i in range(1, len(arrays)):
        x = arrays[i]
        if x.dtype != first_dtype:
            _check_kind(spec, spec.arrays[i], x, backend.dtype(x.dtype).kind)
            differ = True
        if x.shape != first.shape and not spec.matrices:
            listed = " and ".join(f"`{n}`" for n in spec.arrays)
            got = " and ".join(str(tuple(y.shape)) for y in arrays)
            raise ValueError(f"{spec.name}: {listed} must have the same shape, got {got}. Broadcast them explicitly.")
    if not differ or spec.matrices:  # a linear map computes in its own dtype, and the formula widens the result
        return None
    return backend.xp.result_type(
        *[x.dtype if spec.functions else backend.dtype(x.dtype).working or x.dtype for x in arrays]
    )


def _check_kind(spec: Spec, name: str, x: Any, kind: str) -> None:
    if kind != "real" and not (kind == "complex" and spec.complex):
        required = "real or complex floating point" if spec.complex else "real floating point"
        hint = "Take its real part or size" if kind == "complex" else "Cast it first, for example to float32"
        raise TypeError(f"{spec.name}: `{name}` must be {required}, got {x.dtype}. {hint}.")
