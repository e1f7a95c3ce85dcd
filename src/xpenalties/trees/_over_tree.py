"""`over_tree`: sum a penalty on arrays over the selected leaves of a tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .._arrays.numerics import sum_scalars
from .._core.hash_key import HasStaticKey
from .._core.shown import function_name, shown_function
from .._penalties.lookup import check_call_options, resolve_penalty
from .._penalties.parameters import HasParameters, Parameters, call_parameters_of
from .._penalties.spec import Spec, spec_of
from ..backends import backend_of, is_array
from ._selection import Patterns, PatternsLike, Selected, Selection, check_unique, leaves_at, values_at

__all__ = ["OverTree", "name_inside", "over_tree"]

_POWERS: dict[str, Callable[[float], tuple[float, float]]] = {
    "l1": lambda l1_ratio: (1.0, 0.0),
    "l2": lambda l1_ratio: (0.0, 1.0),
    "elastic_net": lambda l1_ratio: (l1_ratio, 1 - l1_ratio),
}


def over_tree(
    fn: str | Callable[..., Any],
    *,
    match: PatternsLike = None,
    exclude: PatternsLike = None,
    options: Mapping[str, Any] | None = None,
) -> OverTree:
    r"""Turn a penalty on arrays into a penalty on trees: its sum over the leaves.

    Parameters
    ----------
    fn : str or callable
        The name of a built-in or registered penalty, or a callable that returns a 0-d array.
    match : str, Pattern or iterable of these, optional
        Patterns of leaves. A str is a regular expression for paths, used with `re.search`. A leaf is selected if at
        least one pattern matches it. By default, all leaves are selected.
    exclude : str, Pattern or iterable of these, optional
        Patterns of leaves to leave out, even if `match` selects them.
    options : mapping, optional
        Keyword arguments of `fn`, the same for each leaf.

    Returns
    -------
    OverTree
        Call it on a tree, or pass it to `Penalty` as `fn`.

    Raises
    ------
    TypeError, ValueError
        If a pattern is not valid, or if `fn` or `options` are not valid for a `Penalty`.

    Examples
    --------
    >>> params = {"dense": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}}
    >>> decay = trees.over_tree("l2", match=r"kernel$|\.weight$")
    >>> float(decay(params))
    6.0
    >>> print(decay.explain(params))
    dense.kernel  selected, (2, 3)
    dense.bias    matches no pattern
    >>> pipe = Pipeline([Penalty("l2", tree={"match": "kernel$"}, weight=0.5, inputs="params")])
    >>> float(pipe({"params": params}))
    3.0
    >>> old = {"dense": {"kernel": np.zeros((2, 3)), "bias": np.ones(3)}}
    >>> float(trees.over_tree("l2")(params, center=old))
    6.0
    """
    function = resolve_penalty(fn)
    checked = check_call_options("over_tree", function, None, {} if options is None else options)
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
    """Return the factors of sum(|x|) and sum(x^2) if the penalty is their weighted sum, else None."""
    if spec is None or spec.name not in _POWERS or any(name != "l1_ratio" for name in options):
        return None
    return _POWERS[spec.name](options.get("l1_ratio", 0.5))


@dataclass(frozen=True, eq=False, repr=False)
class OverTree(HasStaticKey, HasParameters):
    """A penalty on trees, made by `over_tree`."""

    fn: Callable[..., Any]
    patterns: Patterns
    options: tuple[tuple[str, Any], ...]
    factors: tuple[float, float] | None  # of |x| and x^2, if `fn` is a sum of these
    held: Mapping[str, Any] = field(default_factory=dict)  # trees of options, as `named` of a call

    @property
    def __name__(self) -> str:
        return f"{name_inside(self)}_over_tree"

    def __repr__(self) -> str:
        """Return the call that makes this penalty, without default arguments."""
        spec = spec_of(self.fn)
        arguments = {**self.patterns.arguments(), **({"options": dict(self.options)} if self.options else {})}
        texts = [repr(spec.name) if spec else shown_function(self.fn), *(f"{k}={v!r}" for k, v in arguments.items())]
        texts += [f"{name}=<tree>" for name in self.held]
        return f"over_tree({', '.join(texts)})"

    def __call__(self, tree: Any, /, *others: Any, **named: Any) -> Any:
        """Sum `fn` over the selected leaves.

        Parameters
        ----------
        tree : pytree of arrays
            The selected leaves must be of one framework. For gradient norms with respect to a PyTorch module's
            parameters, pass the module as `wrt`: ``compute(inputs, track_grad_norms=True, wrt=module)``.
        *others : pytrees of arrays
            More trees with the same paths, if `fn` takes several arrays:
            ``over_tree("consistency")(teacher, student)``.
        **named : pytrees of arrays, or single values
            Options of `fn` that change from call to call. A tree has a value for each selected path, such as masks of
            single parameters, ``where=masks``, or the weights to stay near, ``center=old``. An array that is no tree,
            or a number, is the same for each leaf, such as `normalizer`.

        Returns
        -------
        array, shape ()
            On the device of the first leaf. 0 if all patterns of `match` are optional and match nothing.

        Raises
        ------
        ValueError
            If a pattern that is not optional matches nothing, no leaf is selected, or another tree lacks a path.
        TypeError
            If the arrays are of several frameworks, or an option is passed here and to `over_tree`.
        """
        selected, rows = self._rows(tree, others, named)
        if not rows:
            return selected.zero()
        values: list[Any] = []
        fused: frozenset[int] = frozenset()
        if self.factors is not None and not (others or named or self.held):
            arrays = selected.arrays()
            backend = backend_of(arrays[0])
            assert backend is not None
            values, fused = backend.evaluation.power_sum(*self.factors, arrays)
        return sum_scalars(values + [self._value(row) for i, row in enumerate(rows) if i not in fused])

    def _static_key(self) -> tuple[Any, ...]:
        """Return a hashable key that is equal for two penalties that compute the same function."""
        return self.fn, self.patterns.key(), self.options, self.held

    def _call_parameters(self) -> Parameters:
        """Return the parameters of `fn`. Those of arrays take trees, and its options take values or trees."""
        inner = call_parameters_of(self.fn)
        if inner.in_mapping:  # a pipeline, which gets each leaf
            return Parameters(("tree",), ("tree",))
        trees, keyword = inner.positional, inner.keyword
        if not trees:  # `fn` takes its first argument by position, too
            trees, keyword = keyword[:1], keyword[1:]
        own = {**dict(self.options), **self.held}
        required = (name for name in inner.required if name not in own)
        keyword = tuple(key for key in keyword if key not in own)
        return Parameters(trees, tuple(required), keyword, inner.fixed, inner.takes_any, constants=inner.constants)

    def by_path(self, tree: Any, /, *others: Any, **named: Any) -> dict[str, Any]:
        """Return the penalty of each selected leaf, a 0-d array, by path."""
        selected, rows = self._rows(tree, others, named)
        check_unique("by_path", "tree", selected.array_paths())
        return {row.path: self._value(row) for row in rows}

    def explain(self, tree: Any) -> Selection:
        """Describe which leaves are selected, why others are not, and which patterns match nothing."""
        return self.patterns.explain(tree)

    def _rows(self, tree: Any, others: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Selected, list[_Row]]:
        """Return the selection and, for each selected leaf, its path and the arguments of `fn`."""
        twice = next((name for name in named if name in dict(self.options) or name in self.held), None)
        if twice is not None:
            where = "the tree's own values" if twice in self.held else "`options`"
            raise TypeError(f"over_tree: `{twice}` must be passed once, got it in the call and in {where}. Drop one.")
        named = {**self.held, **named}
        selected = self.patterns.select("over_tree", "tree", tree)
        columns = [leaves_at("over_tree", selected, other, f"others[{i}]") for i, other in enumerate(others)]
        options = {name: values_at("over_tree", selected, value, name) for name, value in named.items()}
        paths, arrays = selected.array_paths(), zip(selected.arrays(), *columns, strict=True)
        rows = [
            _Row(path, row, {name: values[i] for name, values in options.items()})
            for i, (path, row) in enumerate(zip(paths, arrays, strict=True))
        ]
        return selected, rows

    def _value(self, row: _Row) -> Any:
        try:
            value = self.fn(*row.arrays, **dict(self.options), **row.named)
            if not is_array(value) or tuple(value.shape) != ():
                got = f"shape {tuple(value.shape)}" if is_array(value) else type(value).__qualname__
                raise TypeError(f"over_tree: `fn` must return a 0-d array, got {got}. Sum it.")
            return value
        except Exception as error:
            error.add_note(f"in {self.__name__}, at {row.path!r}")
            raise


def name_inside(penalty: OverTree) -> str:
    """Return the name of the penalty on arrays that `penalty` sums."""
    return function_name(penalty.fn) or type(penalty.fn).__name__


class _Row(NamedTuple):
    """A selected leaf: its path, and the arguments of the function for it."""

    path: str
    arrays: tuple[Any, ...]
    named: dict[str, Any]
