"""Check the settings of one computation: the options of `compute` and `compute_async`."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._core.checks import POSITIVE, POSITIVE_INTEGER, check_argument, one_of
from .penalty import ON_ERROR
from .wrt import Wrt, checked_wrt

__all__ = ["Settings"]

_EXECUTION = one_of(("sequential", "threads"))


class Settings(NamedTuple):
    """The checked settings of one computation."""

    track: bool = False
    wrt: Wrt = None
    conflicts: bool = False
    threads: bool = False
    max_workers: int | None = None
    timeout: float | None = None
    drop: bool = False

    @classmethod
    def of(
        cls,
        caller: str,
        *,
        track_grad_norms: Any = False,
        wrt: Any = None,
        gradient_conflicts: Any = False,
        timeout: Any = None,
        on_error: Any = "raise",
        execution: Any = "sequential",
        max_workers: Any = None,
        asynchronous: bool = False,
    ) -> Settings:
        """Check a caller's arguments; errors name `caller`."""
        track = bool(track_grad_norms) or bool(gradient_conflicts)
        if wrt is not None:
            wrt = checked_wrt(caller, wrt)
        threads = check_argument(caller, _EXECUTION, "execution", execution) == "threads"
        if max_workers is not None:
            max_workers = check_argument(caller, POSITIVE_INTEGER, "max_workers", max_workers)
        if timeout is not None:
            timeout = check_argument(caller, POSITIVE, "timeout", timeout)
        for option, value in (("max_workers", max_workers), ("timeout", timeout)):
            if value is not None and not (threads or asynchronous):
                raise ValueError(f"{caller}: `{option}` must come with execution='threads', got {value}. Pass it.")
        drop = check_argument(caller, ON_ERROR, "on_error", on_error) == "drop"
        return cls(track, wrt, bool(gradient_conflicts), threads, max_workers, timeout, drop)
