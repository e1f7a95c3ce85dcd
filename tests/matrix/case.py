"""A row of the matrix: a penalty with options, the arrays to call it with, and its particulars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.helpers.harness import Framework
from tests.matrix import oracle

__all__ = ["KEY", "Case", "arrays_of", "at_once", "joined", "options_of"]

_LABELS: Counter[str] = Counter()
_FIRST: dict[tuple[Any, str], Case] = {}


class Key:
    """Stands in a row's options for a source of random numbers, see `Framework.key`."""

    def __str__(self) -> str:
        return "key"


KEY = Key()


@dataclass(frozen=True, eq=False)
class Case:
    """A row of the matrix."""

    function: Callable[..., Any]
    arrays: list[np.ndarray]
    options: dict[str, Any] = field(default_factory=dict)
    #: function of the inputs that returns the terms, in float64 and from the definition; by default that of `oracle.py`
    oracle: Callable[..., Any] | None = None
    #: values of the first array at which the gradient is stated, with that gradient; the other arrays are zeros
    kinks: list[tuple[Any, Any]] = field(default_factory=list)
    #: names of laws in test_laws.py
    laws: tuple[str, ...] = ()
    #: options, exception and message of calls that must be refused
    bad: list[tuple[dict[str, Any], type[Exception], str]] = field(default_factory=list)
    #: backends that lack what this row needs, with the reason
    lacking: dict[str, str] = field(default_factory=dict)
    #: the user's function that a penalty takes before the arrays; it treats samples independently
    fn: Callable[[Any], Any] | None = None
    #: number of times that half precision may round a value of size 1: `fn` computes in it
    rounds_in_half: int = 0

    def __call__(self, *arrays: Any, **options: Any) -> Any:
        return self.function(*([] if self.fn is None else [self.fn]), *arrays, **options)

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def id(self) -> str:
        """Return the function and options, and the shape if that is what rows differ in."""
        return self.label if _LABELS[self.label] == 1 else f"{self.label}-{'x'.join(map(str, self.arrays[0].shape))}"

    @property
    def label(self) -> str:
        shown = ",".join(f"{k}={'array' if isinstance(v, np.ndarray) else v}" for k, v in self.options.items())
        return f"{self.name}({shown})" if shown else self.name

    @property
    def kind_of_terms(self) -> str:
        """Return what a term of this row belongs to: elements, neighborhoods, rows, samples, matrices, or the whole."""
        return self.function.spec.shape_of_terms(self.options)  # type: ignore[attr-defined, no-any-return]

    @property
    def is_statistic(self) -> bool:
        """Whether its only term is a statistic of samples, which `where` and `weights` are then of."""
        return self.function.spec.shape_of_samples(self.options) is not None  # type: ignore[attr-defined]

    @property
    def selected(self) -> str:
        """Return what `where` and `weights` are of: the terms' kind, or that of a statistic's samples."""
        return self.function.spec.selected(self.options)  # type: ignore[attr-defined, no-any-return]

    @property
    def selected_shape(self) -> tuple[int, ...]:
        """Return the shape of `where` and `weights`."""
        if not self.is_statistic:
            return self.terms(*self.arrays).shape
        x, axis = self.arrays[0], self.options.get("axis", -1)
        if self.selected == "rows":
            return np.delete(x.shape, -1 if isinstance(axis, str) else axis).tolist()
        return x.shape if self.selected == "elements" else x.shape[:1]

    @property
    def stands_for_others(self) -> bool:
        """Whether this is the first row of its penalty and kind of terms."""
        return _FIRST[self.function, self.kind_of_terms] is self

    def terms(self, *arrays: np.ndarray, at: np.ndarray | None = None) -> np.ndarray:
        """Return the oracle's terms. What the penalty treats as a constant is taken at `at`, see `has_constants`."""
        constants = {"at": at} if self.has_constants else {}
        return np.asarray(self.definition(*arrays, **self.options, **constants), dtype=np.float64)

    @property
    def definition(self) -> Callable[..., Any]:
        return self.oracle or getattr(oracle, self.name)  # type: ignore[no-any-return]

    @property
    def has_constants(self) -> bool:
        """Whether the penalty treats something that depends on its first array as a constant."""
        return bool(oracle.has_constants(self.definition))

    @property
    def complex(self) -> bool:
        return self.function.spec.complex  # type: ignore[attr-defined, no-any-return]

    @property
    def is_linear(self) -> bool:
        """Whether it takes the weights of linear layers, which all terms share."""
        return bool(self.function.spec.matrices)  # type: ignore[attr-defined]

    def changed(self, change: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
        """Return the arrays, all but the weights of linear layers changed."""
        shared = self.function.spec.matrices  # type: ignore[attr-defined]
        return [x if i in shared else change(x) for i, x in enumerate(self.arrays)]


def arrays_of(case: Case, fw: Framework, dtype: str | None = None) -> list[Any]:
    """Return the row's arrays as arrays of `fw`, in float64 unless `dtype` is set."""
    return [fw.array(x, dtype) for x in case.arrays]


def options_of(case: Case, fw: Framework, dtype: str | None = None) -> dict[str, Any]:
    """Return the row's options, with arrays and keys of `fw`."""
    return {
        k: fw.array(v, dtype) if isinstance(v, np.ndarray) else fw.key(0) if v is KEY else v
        for k, v in case.options.items()
    }


def at_once(case: Case, fw: Framework, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return `fn` as one program, see `Framework.once`; for rows that stand for others as it is, call by call."""
    return fn if case.stands_for_others else fw.once(fn)


def joined(*families: list[Case]) -> list[Case]:
    """Return all rows of the matrix, which then know what sets them apart from the others."""
    rows = [row for family in families for row in family]
    _LABELS.update(row.label for row in rows)
    _FIRST.update({(row.function, row.kind_of_terms): row for row in reversed(rows)})
    return rows
