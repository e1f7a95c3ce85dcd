"""Read data twice instead of holding all of it.

A chunk stays in memory until every task that needs it has run. So if a task needs a chunk of x and a result that
depends on all chunks of x, all of x stays in memory. If the result is computed from another copy of the graph that
makes x, each chunk is made twice, but never waits.
"""

from __future__ import annotations

from typing import Any

import dask.array as da
from dask._task_spec import DataNode, convert_legacy_graph
from dask.base import clone_key
from dask.blockwise import Blockwise
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

__all__ = ["read_again"]


def read_again(x: Any, passes: int = 1) -> Any:
    """Return `x` for a pass over the data that comes after this number of other passes.

    The first pass uses `x` itself, as penalties with a single pass do: a chunk that also waited for a later pass would
    stay in memory. Passes with the same number share their tasks, so several penalties of a report read the data only
    as often as the one that needs the most passes.
    """
    if passes == 0 or x.npartitions == 1:
        return x
    # not dask.graph_manipulation.clone: that of version 2026.8 leaves the dependencies of most tasks as they are
    graph, seed = x.dask, f"xpenalties, after {passes} passes"
    everything = graph.get_all_external_keys()
    layers = {
        name: layer if isinstance(layer, Blockwise) else convert_legacy_graph(dict(layer), all_keys=everything)
        for name, layer in graph.layers.items()
    }
    tasks = [layer for layer in layers.values() if not isinstance(layer, Blockwise)]
    data = {key for layer in tasks for key, task in layer.items() if isinstance(task, DataNode)}
    keys = {key: clone_key(key, seed) for key in everything - data}  # what is in memory anyway stays where it is
    names = {
        name: clone_key(name, seed) if isinstance(layer, Blockwise) or keys.keys() & layer.keys() else name
        for name, layer in layers.items()
    }
    copies = {names[name]: _copied(layer, keys, seed) for name, layer in layers.items()}
    needed = {names[name]: {names[other] for other in graph.dependencies[name]} for name in layers}
    return da.Array(HighLevelGraph(copies, needed), names[x.name], x.chunks, meta=x._meta)


def _copied(layer: Any, keys: dict[Any, Any], seed: str) -> Any:
    """Return a layer of a graph under other keys."""
    if isinstance(layer, Blockwise):  # which Dask fuses with what comes after it
        return layer.clone(set(keys), seed)[0]
    return MaterializedLayer(
        {keys.get(key, key): task.substitute(keys, key=keys.get(key, key)) for key, task in layer.items()}
    )
