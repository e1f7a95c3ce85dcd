"""Matrix products of parts. Only products that are small, and pieces of one part, are communicated."""

from __future__ import annotations

from typing import Any

from ..base import Backend
from ._group import Cut, Group
from ._part import Cuts, Part, aligned

__all__ = ["linear", "matmul", "with_whole_rows"]


def matmul(local: Backend, a: Part, b: Part) -> Part:
    """Return `a @ b`.

    Each device multiplies its parts along the axis that is summed over, and the products are added up. If both other
    axes are cut over the same devices, as in X X^T with rows that are cut, the devices first exchange pieces, so that
    the axis that is summed over is cut instead. It is padded with zeros to pieces of equal size.
    """
    if b.cuts[-2] is None:
        b = _cut_like_columns(b, a.cuts[-1])
    rows, columns = a.cuts[-2], b.cuts[-1]
    exchanged = _groups(rows) & _groups(columns)
    lead = _lead(a, b)
    varies = a.varies | b.varies
    if not exchanged:
        summed = _groups(a.cuts[-1]) | _groups(b.cuts[-2])
        x, y = (aligned(part, part.cuts, varies) for part in (a, b))
        if a.cuts[-1] != b.cuts[-2]:
            raise NotImplementedError("a cut axis must be cut in the same way in both matrices.")
        cuts: Cuts = (*lead, rows, columns)
    else:
        assert rows is not None and columns is not None
        if exchanged != _groups(rows) or exchanged != _groups(columns) or len(rows.groups) > 1:
            raise NotImplementedError("rows and columns must be cut over the same devices.")
        (group,) = rows.groups
        transpose = local.xp.matrix_transpose
        if a.transposed_from is b:
            y = transpose(_with_whole_rows(local, transpose(aligned(b, b.cuts, varies)), columns, group))
            x = transpose(y)
        else:
            x = _with_whole_rows(local, aligned(a, a.cuts, varies), rows, group)
            flipped = None if b.transposed_from is a else transpose(aligned(b, b.cuts, varies))
            y = transpose(x if flipped is None else _with_whole_rows(local, flipped, columns, group))
        summed = exchanged | _groups(a.cuts[-1])
        cuts = (*lead, None, None)
    product = local.matmul(x, y)
    for group in sorted(summed, key=str):
        product = group.sum(product)
    return type(a)(product, cuts, varies - summed)


def linear(local: Backend, hidden: Part, weight: Part) -> Part:
    """Return `hidden @ weight.T`, cut along the classes as the weight is."""
    if hidden.cuts[-1] is not None or weight.cuts[1] is not None:
        raise NotImplementedError("features must be whole.")
    varies = hidden.varies | weight.varies
    cuts: Cuts = (*hidden.cuts[:-1], weight.cuts[0])
    x, w = (aligned(part, part.cuts, varies) for part in (hidden, weight))
    return type(hidden)(local.linear(x, w), cuts, varies)


def _groups(cut: Cut | None) -> frozenset[Group]:
    return frozenset() if cut is None else frozenset(cut.groups)


def _lead(a: Part, b: Part) -> Cuts:
    """Return the cuts of the leading axes, along which matrices are stacked."""
    lead = a.cuts[:-2] if a.ndim >= b.ndim else b.cuts[:-2]
    if b.ndim > 2 and a.ndim > 2 and a.cuts[:-2] != b.cuts[:-2]:
        raise NotImplementedError("stacks of matrices must be cut in the same way.")
    return lead


def _cut_like_columns(b: Part, cut: Cut | None) -> Part:
    """Return this device's part of the rows of `b`, which are whole, for a product with columns that are cut."""
    if cut is None or not cut.sizes:
        return b
    (group,) = cut.groups
    data = b.data if group in b.varies else group.shared(b.data)
    return type(b)(group.sliced(data, b.ndim - 2, cut.sizes), (*b.cuts[:-2], cut, b.cuts[-1]), b.varies)


def with_whole_rows(local: Backend, x: Part) -> Part:
    """Return a matrix whose columns are cut instead of its rows. They are padded with zeros to pieces of equal size."""
    rows, columns = x.cuts
    if rows is None:
        return x
    if columns is not None or len(rows.groups) > 1:
        raise NotImplementedError(
            "features must be whole if samples are cut, to compare all pairs of samples. Use over(batch=...)."
        )
    (group,) = rows.groups
    data = _with_whole_rows(local, x.data, rows, group)
    return type(x)(data, (None, Cut((group,), data.shape[-1] * group.size, (data.shape[-1],) * group.size)), x.varies)


def _with_whole_rows(local: Backend, x: Any, rows: Cut, group: Group) -> Any:
    """Exchange pieces, so that `x` holds all rows, and a part of the columns."""
    xp, columns = local.xp, x.shape[-1]
    missing = -columns % group.size
    if missing or columns == 0:
        missing = missing or group.size
        x = xp.concat([x, xp.zeros((*x.shape[:-1], missing), dtype=x.dtype, device=local.device(x))], axis=-1)
    return group.exchanged(x, cut=x.ndim - 1, joined=x.ndim - 2, sizes=rows.sizes)
