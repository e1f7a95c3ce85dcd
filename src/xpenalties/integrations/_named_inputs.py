"""Which of the many things that a training loop has at hand a pipeline's penalties take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .._core.checks import nearest
from .._pipeline.penalty import Penalty

__all__ = ["Lazily", "asked_for", "found_in"]


class Lazily(Mapping[str, Any]):
    """What is made where it is first asked for."""

    def __init__(self, **makers: Callable[[], Any]) -> None:
        self._makers = makers
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers  # Mapping's own would make it

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def asked_for(penalties: Iterable[Penalty], *parts: Mapping[str, Any]) -> dict[str, Any]:
    """What the penalties name in several mappings, the first that has it; all of it where one picks for itself."""
    names: dict[str, Any] = {}
    picks = False
    for penalty in penalties:
        if not penalty.enabled:
            continue
        if penalty.inputs is None or callable(penalty.inputs):
            picks = True
            continue
        for name in (penalty.inputs,) if isinstance(penalty.inputs, str) else penalty.inputs:
            names[name] = found_in(f"penalty {penalty.name!r}", name, *parts)
    if not picks:
        return names
    everything: dict[str, Any] = {}
    for part in reversed(parts):
        everything.update(part.seen() if hasattr(part, "seen") else part)  # of modules what there is of them
    return {**everything, **names}


def found_in(asking: str, name: str, *parts: Mapping[str, Any]) -> Any:
    """What the first of several mappings that has the name has for it."""
    for part in parts:
        if name in part:
            return part[name]
    known = [each for part in parts for each in part]
    raise ValueError(
        f"{asking}: the inputs must have {name!r}, got {', '.join(map(repr, known))}." + nearest(name, known)
    )
