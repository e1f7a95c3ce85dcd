"""Record what holds for arrays that are cut into parts, for the table of backend_matrix/scale.py.

XPENALTIES_SCALE_RESULTS names the folder; without it nothing is recorded. Each process writes a file of its own, so
several processes and pytest-xdist need no lock. Of several processes that compute the same, one records.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

__all__ = ["record"]

RIGHT = "right"


def record(function: str, engine: str, sharding: str, result: str = RIGHT, *, moved: float | None = None) -> None:
    """Add a result to the table.

    Parameters
    ----------
    function : str
        The name of the penalty or of another feature, without options.
    engine : str
        What cuts the arrays, as in "DTensor", "JAX, automatic", "JAX, explicit", "Dask", "over, JAX".
    sharding : str
        How they are cut, as in "rows", "classes", "rows and classes", "uneven rows".
    result : str
        "right", "wrong", or "refused: ..." with the reason.
    moved : float, optional
        Elements of the largest collective or copy, as a fraction of the input. Kept in the results only.
    """
    folder = os.environ.get("XPENALTIES_SCALE_RESULTS")
    if folder is None:
        return
    if result not in (RIGHT, "wrong") and not result.startswith("refused: "):
        raise ValueError(f"`result` must be 'right', 'wrong' or 'refused: ...', got {result!r}")
    row = {"function": function, "engine": engine, "sharding": sharding, "result": result, "moved": moved}
    path = Path(folder, f"{os.getpid()}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
