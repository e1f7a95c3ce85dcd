"""Results of one function on one kind of sharded arrays, for a table of all of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

__all__ = ["record"]


def record(function: str, engine: str, sharding: str, result: str, moved: int) -> None:
    """Append a row to a file in the directory XPENALTIES_SCALE_RESULTS, if it is set.

    `result` is "right" or "refused: ...", `moved` the elements of the largest collective.
    """
    directory = os.environ.get("XPENALTIES_SCALE_RESULTS")
    if directory:
        row = {"function": function, "engine": engine, "sharding": sharding, "result": result, "moved": moved}
        with (Path(directory) / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
