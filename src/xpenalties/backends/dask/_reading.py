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
from dask.blockwise import Blockwise
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

__all__ = ["read_again"]


def read_again(x: Any, passes_left: int) -> Any:
    """Return `x` for a pass over the data that has `passes_left` others after it.

    The last pass uses `x` itself. Passes with the same number share their tasks, so several penalties of a report read
    the data only as often as the one that needs the most passes.
    """
    if passes_left == 0 or x.npartitions == 1:
        return x
    graph, seed = x.dask, f"xpenalties, {passes_left} passes before the last"
    keys = {key: clone_key(key, seed) for key in graph.get_all_external_keys()}
    layers = {clone_key(name, seed): _copied(layer, keys, seed) for name, layer in graph.layers.items()}
    names = {clone_key(name, seed): {clone_key(x, seed) for x in graph.dependencies[name]} for name in graph.layers}
    return da.Array(HighLevelGraph(layers, names), clone_key(x.name, seed), x.chunks, meta=x._meta)


def _copied(layer: Any, keys: dict[Any, Any], seed: str) -> Any:
    """Return a layer of a graph under other keys. Dask's own `clone` (2026.8) keeps the dependencies of tasks."""
    if isinstance(layer, Blockwise):  # which Dask fuses with what comes after it
        return layer.clone(set(keys), seed)[0]
    tasks = convert_legacy_graph(dict(layer), all_keys=set(keys))
    return MaterializedLayer({keys[key]: task.substitute(keys, key=keys[key]) for key, task in tasks.items()})
