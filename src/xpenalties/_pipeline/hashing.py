"""The static part of a pipeline, which is all but the weights, compared by value if that is safe.

JAX recompiles a function if the static part of a pytree among its arguments has changed.
"""

from __future__ import annotations

from .penalty import Penalty

__all__ = ["Static"]


class Static:
    """A pipeline without its weights. Two are equal if a function that is compiled for one can serve the other."""

    def __init__(self, penalties: tuple[Penalty, ...], name: str) -> None:
        self.penalties = penalties
        self.name = name
        self.key = (name, *(penalty._static_key() for penalty in penalties))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"{self.name}: {list(self.penalties)!r}"
