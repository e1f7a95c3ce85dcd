"""Read data twice instead of holding all of it.

A chunk stays in memory until every task that needs it has run. So if a task needs a chunk of x and a result that
depends on all chunks of x, all of x stays in memory. If the result is computed from another copy of the graph that
makes x, each chunk is made twice, but never waits.
"""

from __future__ import annotations

from typing import Any

import dask.array as da
from dask._task_spec import convert_legacy_graph
from dask.base import clone_key
from dask.core import flatten

__all__ = ["read_again"]


def read_again(x: Any, passes_left: int) -> Any:
    """Return `x` for a pass over the data that has `passes_left` others after it.

    The last pass uses `x` itself. Passes with the same number share their tasks, so several penalties of a report read
    the data only as often as the one that needs the most passes.
    """
    if passes_left == 0:
        return x
    # dask.graph_manipulation.clone of version 2026.8 leaves the dependencies of most tasks as they are
    tasks = convert_legacy_graph(dict(x.dask.cull(set(flatten(x.__dask_keys__())))))
    keys = {key: clone_key(key, f"xpenalties, {passes_left} passes before the last") for key in tasks}
    copied = {keys[key]: task.substitute(keys, key=keys[key]) for key, task in tasks.items()}
    name = keys[next(iter(flatten(x.__dask_keys__())))][0]
    return da.Array(copied, name, x.chunks, meta=x._meta)
