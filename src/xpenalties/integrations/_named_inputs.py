"""Select the inputs of a pipeline's penalties, by name, from everything that a training loop has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .._penalties.spec import spec_of
from .._pipeline.penalty import Penalty
from .._pipeline.penalty_inputs import callables_in, missing_input, names_in
from ..trees._over_tree import OverTree

__all__ = ["LazyInputs", "check_inputs", "lookup", "select_inputs"]


class LazyInputs(Mapping[str, Any]):
    """A mapping whose values are made when they are first read."""

    def __init__(self, **makers: Callable[[], Any]) -> None:
        self._makers = makers
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = self._makers[name]()
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers  # Mapping.__contains__ would make the value

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def check_inputs(caller: str, penalties: Iterable[Penalty], *, example: str) -> None:
    """Check that each built-in penalty names its inputs. Otherwise it would get all of them, as one mapping."""
    for penalty in penalties:
        fn = penalty.fn
        takes_all = isinstance(fn, OverTree) and not (fn.patterns.match or fn.patterns.exclude)
        if penalty.enabled and penalty.inputs is None and (takes_all or spec_of(fn) is not None):
            raise ValueError(
                f"{caller}: the penalties of `pipe` must name their inputs, got inputs=None for {penalty.name!r}. Pass "
                f"for example Penalty({penalty.name!r}, inputs={example!r})."
            )


def select_inputs(penalties: Iterable[Penalty], *sources: Mapping[str, Any], argument: str = "") -> dict[str, Any]:
    """Return the inputs that the enabled penalties name, each from the first source that has it.

    `argument` is the caller's argument for more inputs, if it has one: errors name it.
    Return all inputs if a penalty takes the whole mapping, or picks its inputs with a callable.
    """
    named: dict[str, Any] = {}
    takes_all = False
    for penalty in penalties:
        if not penalty.enabled:
            continue
        if penalty.inputs is None or callables_in(penalty.inputs):
            takes_all = True
        for name in names_in(penalty.inputs):
            named[name] = lookup(f"penalty {penalty.name!r}", name, *sources, argument=argument)
    if not takes_all:
        return named
    everything: dict[str, Any] = {}
    for source in reversed(sources):
        # a `Capture` has no output of a module that was not called
        everything.update(source.seen() if hasattr(source, "seen") else source)
    return {**everything, **named}


def lookup(user: str, name: str, *sources: Mapping[str, Any], argument: str = "") -> Any:
    """Return the value of `name` from the first source that has it."""
    for source in sources:
        if name in source:
            return source[name]
    raise missing_input(user, name, dict.fromkeys(other for source in sources for other in source), argument)
