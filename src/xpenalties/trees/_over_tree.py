"""Penalties over trees of parameters: nests of arrays, some of whose leaves are meant.

A tree is a dict, list, tuple, named tuple or dataclass of arrays or of other trees, a pytree that JAX knows (Flax's and
Equinox's are), a state dict, or a module of PyTorch's, which stands for its parameters by name. Where a leaf is, its
path, is written with dots between keys, fields and indices: ``encoder.layers.0.weight``. Leaves that are no
floating-point arrays are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .._arrays.numerics import total
from .._penalties.calls import checked_options, resolved
from .._penalties.spec import Spec, spec_of
from ..backends import backend_of, is_array
from ._selection import Given, Patterns, Selected, Selection, beside, unique

__all__ = ["OverTree", "Selection", "over_tree"]

_POWERS: dict[str, Callable[[float], tuple[float, float]]] = {
    "l1": lambda l1_ratio: (1.0, 0.0),
    "l2": lambda l1_ratio: (0.0, 1.0),
    "elastic_net": lambda l1_ratio: (l1_ratio, 1 - l1_ratio),
}


def over_tree(
    fn: str | Callable[..., Any],
    *,
    match: Given = None,
    exclude: Given = None,
    options: Mapping[str, Any] | None = None,
) -> OverTree:
    r"""A penalty of trees: the sum of a penalty of arrays over the leaves.

    Parameters
    ----------
    fn : str or callable
        The name of a penalty of this package, or a callable that returns a 0-d array.
    match : str or iterable of str, optional
        Regular expressions, searched for in the paths; a leaf is in where one is found. By default all are.
    exclude : str or iterable of str, optional
        Regular expressions of the paths that are left out, whatever `match` says.
    options : mapping, optional
        Keyword arguments of `fn`, the same for each leaf.

    Returns
    -------
    OverTree
        To be called, and to be the `fn` of a `Penalty`.

    Raises
    ------
    TypeError, ValueError
        For what is no regular expression; for what `Penalty` would not take.

    Examples
    --------
    >>> params = {"dense": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}}
    >>> decay = trees.over_tree("l2", match=r"kernel$|\.weight$")
    >>> float(decay(params))
    6.0
    >>> print(decay.explain(params))
    dense.kernel  selected, (2, 3)
    dense.bias    matches no pattern
    >>> pipe = Pipeline([Penalty(decay, name="decay", weight=0.5, inputs="params")])
    >>> float(pipe({"params": params}))
    3.0
    """
    function = resolved(fn)
    checked = checked_options("over_tree", function, None, {} if options is None else options)
    spec = spec_of(function)
    if spec is not None and spec.functions:
        raise TypeError(
            f"over_tree: `fn` must take arrays, got {spec.name!r}, which takes functions. Call it by itself."
        )
    return OverTree(
        function,
        Patterns.of("over_tree", match, exclude),
        tuple(sorted(checked.items())),
        _factors(spec, checked),
    )


def _factors(spec: Spec | None, options: Mapping[str, Any]) -> tuple[float, float] | None:
    given = dict(options)
    if spec is None or spec.name not in _POWERS:
        return None
    factors = _POWERS[spec.name](given.pop("l1_ratio", 0.5))
    return None if given else factors


@dataclass(frozen=True, eq=False)
class OverTree:
    """What `over_tree` returns."""

    fn: Callable[..., Any]
    patterns: Patterns
    options: tuple[tuple[str, Any], ...]
    factors: tuple[float, float] | None  # of |x| and x^2, where `fn` is a sum of these

    @property
    def __name__(self) -> str:
        return f"{getattr(self.fn, '__name__', type(self.fn).__name__)}_over_tree"

    def __call__(self, tree: Any, /, *others: Any) -> Any:
        """The sum over the leaves.

        Parameters
        ----------
        tree : nest of arrays
            Of one framework, those that are selected. A module's parameters are not inputs to
            ``compute(track_grad_norms=True)``; a dict of them is.
        *others : nests of arrays
            Of the same paths, for an `fn` that takes several arrays: ``over_tree("consistency")(student, teacher)``.

        Returns
        -------
        array, shape ()
            On the device of the first leaf.

        Raises
        ------
        ValueError
            Where a pattern matches nothing, where nothing is selected, and where other trees lack a path.
        TypeError
            For arrays of several frameworks.
        """
        selected, rows = self._rows(tree, others)
        values: list[Any] = []
        places: frozenset[int] = frozenset()
        if self.factors is not None and not others:
            backend = backend_of(selected.leaves[selected.places[0]])
            assert backend is not None
            values, places = backend.evaluation.power_sum(*self.factors, selected.chosen())
        return total(values + [self._value(*row) for i, row in enumerate(rows) if i not in places])

    def static_key(self) -> tuple[Any, ...]:
        """What two that compute the same have in common."""
        return self.fn, self.patterns.match, self.patterns.exclude, self.options

    def by_path(self, tree: Any, /, *others: Any) -> dict[str, Any]:
        """The parts of the sum: 0-d arrays by path."""
        selected, rows = self._rows(tree, others)
        unique("by_path", "tree", [selected.paths[i] for i in selected.places])
        return {path: self._value(path, arrays) for path, arrays in rows}

    def explain(self, tree: Any) -> Selection:
        """Which leaves are selected, which are not and why, and which patterns match nothing."""
        return self.patterns.explain(tree)

    def _rows(self, tree: Any, others: tuple[Any, ...]) -> tuple[Selected, list[tuple[str, tuple[Any, ...]]]]:
        """What is selected, and for each leaf its path and what `fn` takes there."""
        selected = self.patterns.select("over_tree", "tree", tree)
        beside_it = [beside("over_tree", selected, other, f"others[{i}]") for i, other in enumerate(others)]
        paths = [selected.paths[i] for i in selected.places]
        return selected, list(zip(paths, zip(selected.chosen(), *beside_it, strict=True), strict=True))

    def _value(self, path: str, arrays: tuple[Any, ...]) -> Any:
        try:
            value = self.fn(*arrays, **dict(self.options))
            if not is_array(value) or tuple(value.shape) != ():
                got = f"shape {tuple(value.shape)}" if is_array(value) else type(value).__qualname__
                raise TypeError(f"over_tree: `fn` must return a 0-d array, got {got}. Sum it.")
            return value
        except Exception as error:
            error.add_note(f"in {self.__name__}, at {path!r}")
            raise
