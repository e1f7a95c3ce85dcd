"""Measure the extra peak memory of the rows of a group, each in a new process: `python benchmarks/memory.py torch`.

Prints a line of JSON for each: bytes above the level at the start of the call, and bytes of the results, such as
gradients. A call on small arrays comes first, to load libraries and start threads.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from dataclasses import replace
from multiprocessing.connection import Connection

from table import FULL, GROUPS, QUICK, TINY, Scale, leaves, rows_of


def measure(send: Connection, group: str, row: int, way: str, scale: Scale) -> None:
    """Send the peak memory of a call, and the size of its results."""
    tiny = rows_of(group, replace(TINY, growth=(TINY.rows,) * len(scale.growth)))[row]
    small = tiny.call(way, tiny.inputs())
    small()
    small()
    found = rows_of(group, scale)[row]
    peak, result = found.framework.peak(found.call(way, found.inputs()))
    send.send({"peak": peak, "returned": sum(getattr(leaf, "nbytes", 0) for leaf in leaves(result))})


def main() -> None:
    """Measure a group."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--quick", action="store_true", help="small shapes")
    given = parser.parse_args()

    scale = QUICK if given.quick else FULL
    # a fork has the framework imported already; JAX has threads from then on
    context = multiprocessing.get_context("spawn" if given.group == "jax" else "fork")
    for i, row in enumerate(rows_of(given.group, scale)):
        for way in row.ways if row.memory else ():
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=measure, args=(send, given.group, i, way, scale))
            process.start()
            send.close()
            process.join()
            found = receive.recv() if process.exitcode == 0 else {"error": f"exit status {process.exitcode}"}
            print(json.dumps({"row": i, "way": way, **found}), flush=True)


if __name__ == "__main__":
    main()
