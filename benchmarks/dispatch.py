"""The overhead of a call: every array penalty on 4 elements, and the lookup of the backend."""

from __future__ import annotations

from functools import partial

import array_api_compat
from case import Case
from problems import arrays
from table import FOUR, Framework, Goal, Row, Scale

from xpenalties.backends import common_backend

__all__ = ["overheads"]

LIMIT = 5.0  # microseconds


def overheads(framework: Framework, scale: Scale, cases: list[Case]) -> list[Row]:
    """Return a row for each penalty, and one for the lookup."""
    goal = Goal(f"a call on 4 elements, {framework.name}", LIMIT, "by hand", "overhead")
    found = [
        Row(
            f"{case.label}, 4 elements",
            framework,
            partial(arrays, framework, FOUR, *case.kinds),
            case.penalty,
            {"by hand": case.by_hand},
            goals=(goal,),
            number=scale.calls,
        )
        for case in cases
    ]
    look_up = Row(
        "whose array it is",
        framework,
        partial(arrays, framework, FOUR, "logits"),
        lambda x: _nothing(common_backend("l1", ("x",), (x,))),
        {"array_api_compat": lambda x: _nothing(array_api_compat.array_namespace(x))},
        number=40 * scale.calls,
    )
    return [*found, look_up]


def _nothing(found: object) -> int:
    return 0
