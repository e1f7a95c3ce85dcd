"""What a penalty costs beyond its arithmetic: the look-up of the backend, and a whole call on 4 elements.

Run `python benchmarks/dispatch.py` where the frameworks to measure are installed. The best of several repeats, in
microseconds, and as a ratio to array_api_compat's look-up and to the obvious expression in the same run.
"""

from __future__ import annotations

import importlib
import timeit
from collections.abc import Callable
from typing import Any

import array_api_compat

import xpenalties as xp
from xpenalties.backends import common_backend


def microseconds(call: Callable[[], Any], number: int = 20_000) -> float:
    """The best of 7 repeats, per call."""
    return min(timeit.repeat(call, number=number, repeat=7)) / number * 1e6


def main() -> None:
    """Measure what is installed."""
    empty = microseconds(lambda: None)
    print(f"{'us a call':10}{'look-up':>9}{'compat':>9}{'ratio':>7}{'l1(x)':>9}{'plain':>9}{'ratio':>7}")
    for name, module in {"numpy": "numpy", "torch": "torch", "jax": "jax.numpy"}.items():
        try:
            framework = importlib.import_module(module)
        except ImportError as error:
            print(f"{name:10}did not run: {error}")
            continue
        x = framework.ones(4)
        ours = microseconds(lambda x=x: common_backend("l1", ("x",), (x,))) - empty
        compat = microseconds(lambda x=x: array_api_compat.array_namespace(x)) - empty
        penalty = microseconds(lambda x=x: xp.l1(x), 2000)
        plain = microseconds(lambda x=x, framework=framework: framework.sum(framework.abs(x)), 2000)
        print(f"{name:10}{ours:9.2f}{compat:9.2f}{ours / compat:7.2f}{penalty:9.1f}{plain:9.1f}{penalty / plain:7.1f}")


if __name__ == "__main__":
    main()
