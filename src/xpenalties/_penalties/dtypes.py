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
    kind, working = backend.dtype(first_dtype)[:2]
    if kind != "real":
        _check_kind(spec, spec.arrays[0], first, kind)
    differ = working is not None and not spec.functions
    for i in range(1, len(arrays)):
        x = arrays[i]
        if x.dtype != first_dtype:
            _check_kind(spec, spec.arrays[i], x, backend.dtype(x.dtype).kind)
            differ = True
        if spec.same_shape and not spec.matrices and x.shape != first.shape:
            raise _shapes_differ(spec, arrays)
    if not differ or spec.matrices:  # a linear map computes in its own dtype, and the formula widens the result
        return None
    return backend.xp.result_type(
        *[x.dtype if spec.functions else backend.dtype(x.dtype).working or x.dtype for x in arrays]
    )


def _shapes_differ(spec: Spec, arrays: tuple[Any, ...]) -> ValueError:
    """Return the error for different shapes. Logits over two vocabularies get a remedy of their own."""
    listed = " and ".join(f"`{name}`" for name in spec.arrays)
    shapes = [tuple(x.shape) for x in arrays]
    remedy = "Broadcast them explicitly."
    if "log_p" in spec.arrays and spec.terms == "rows" and all(shapes) and shapes[0][:-1] == shapes[1][:-1]:
        fewer, more = sorted((0, 1), key=lambda i: shapes[i][-1])
        if shapes[fewer][-1] > 1:
            remedy = (
                f"If the last classes of `{spec.arrays[more]}` are padding, cut them off: "
                f"{spec.arrays[more]}[..., :{shapes[fewer][-1]}]. Models with different tokenizers have no classes in "
                "common."
            )
    return ValueError(f"{spec.name}: {listed} must have the same shape, got {' and '.join(map(str, shapes))}. {remedy}")


def _check_kind(spec: Spec, name: str, x: Any, kind: str) -> None:
    if kind != "real" and not (kind == "complex" and spec.complex):
        required = "real or complex floating point" if spec.complex else "real floating point"
        hint = "Take its real part or size" if kind == "complex" else "Cast it first, for example to float32"
        if kind == "other" and getattr(x.dtype, "kind", "") in ("f", "c") and x.dtype.itemsize > 8:  # long doubles
            required, hint = f"{required} of at most 64 bits for each number", "Cast it first, for example to float64"
        raise TypeError(f"{spec.name}: `{name}` must be {required}, got {x.dtype}. {hint}.")
