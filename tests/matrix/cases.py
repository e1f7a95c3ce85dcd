"""One row for each penalty and set of options, which drives every test of the matrix on every backend.

A row has the function, arrays to call it with, its oracle, and its particulars: points where its slope is stated, laws
that it obeys, and calls that it must refuse. `test_completeness.py` fails for a public penalty without a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import xpenalties as xp
from tests.helpers.harness import Framework
from tests.matrix import oracle
from xpenalties import namespace

__all__ = ["CASES", "KEY", "STATISTICS", "WITH_TERMS", "Case", "arrays_of", "at_once", "options_of"]

_rng = np.random.default_rng(20260101)


def randn(*shape: int) -> np.ndarray:
    return _rng.standard_normal(shape)


def apart(*shape: int, seed: int = 0) -> np.ndarray:
    """Return normal numbers that depend on no other row."""
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def log_probs(*shape: int, axis: int = -1) -> np.ndarray:
    z = 1.5 * randn(*shape)
    return z - np.log(np.exp(z).sum(axis=axis, keepdims=True))


def top_k(k: int, *shape: int) -> np.ndarray:
    return log_probs(*shape)[..., :k]


def curved(x: Any) -> Any:
    """Return x sin x of each element; `oracle.slope` is its derivative."""
    return x * namespace(x).sin(x)


def curved_samples(x: Any) -> Any:
    """Return the sum of `curved` over each sample."""
    return namespace(x).sum(curved(x), axis=tuple(range(1, x.ndim)))


def curved_whole(x: Any) -> Any:
    return namespace(x).sum(curved(x))


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


class Bad:
    """Refused options that several penalties share."""

    temperature = ({"temperature": 0.0}, ValueError, r"`temperature` must be in \(0, inf\), got 0.0")
    axis = ({"axis": 5}, ValueError, r"`axis` must be an axis of `\w+`, got 5 for shape \(\d, \d\)")
    axis_kind = ({"axis": 1.5}, TypeError, r"`axis` must be an integer, got 1.5")
    from_logits = ({"from_logits": 1}, TypeError, r"`from_logits` must be True or False, got 1")
    target_norm = ({"target_norm": -1}, ValueError, r"`target_norm` must be in \[0, inf\), got -1.0")
    one_sided = ({"one_sided": 1}, TypeError, r"`one_sided` must be True or False, got 1")
    rng = ({"rng": 1}, TypeError, r"`rng` must be a .*, got int\. Pass for example \S*random")
    no_axis = ({"axis": 0}, TypeError, r"`axis` is not an option. The options are \w+, ")
    no_logits = ({"from_logits": True}, TypeError, r"`from_logits` is not an option. The options are \w+, ")


# `fn` and its gradient are a handful of operations, and each of them rounds
FUNCTION = {"fn": curved_samples, "rounds_in_half": 4, "lacking": {"dask": "dask has no gradients, and no DLPack"}}

NEIGHBORS = {"dask": "neighbors are in other chunks"}


CASES = [
    Case(
        xp.l1,
        [randn(3, 4)],
        kinks=[(np.zeros((2, 3)), np.zeros((2, 3))), ([-1.0, 0.0, 2.0], [-1.0, 0.0, 1.0])],
        laws=("even", "nonnegative", "homogeneous"),
        bad=[
            ({"axis": 0}, TypeError, r"`axis` is not an option. The options are reduction, where, weights, normalizer"),
            ({"reductoin": "sum"}, TypeError, r"`reductoin` is not an option.*Did you mean 'reduction'\?"),
            ({"reduction": "average"}, ValueError, r"`reduction` must be one of 'sum', 'mean', 'none', got 'average'"),
            ({"normalizer": 0.0}, ValueError, r"`normalizer` must be in \(0, inf\), got 0.0"),
            ({"normalizer": "3"}, TypeError, r"`normalizer` must be a number in \(0, inf\), got str"),
        ],
    ),
    Case(xp.l2, [randn(3, 4)], kinks=[(np.zeros(3), np.zeros(3))], laws=("even", "nonnegative")),
    Case(xp.l2, [randn(3, 4)], {"center": "mean"}, laws=("nonnegative", "shift_invariant")),
    Case(
        xp.l2,
        [randn(3, 4)],
        {"center": 0.3, "clip": 0.75},
        kinks=[([1.05, 1.0, 0.3, -0.45, 2.0], [1.5, 1.4, 0.0, -1.5, 0.0])],
        laws=("nonnegative",),
        bad=[
            ({"clip": -1.0}, ValueError, r"`clip` must be in \(0, inf\), got -1.0"),
            ({"center": "median"}, ValueError, r"`center` must be 'mean', a number or an array, got 'median'"),
            ({"center": True}, TypeError, r"`center` must be a number in \(-inf, inf\), got bool"),
        ],
    ),
    Case(xp.l2, [randn(3, 4)], {"center": randn(4)}, laws=("nonnegative",)),
    Case(xp.l2, [randn(3, 4)], {"center": randn(3, 4), "clip": 1.0}, laws=("nonnegative",)),
    Case(
        xp.elastic_net,
        [randn(3, 4)],
        {"l1_ratio": 0.3},
        kinks=[(np.zeros(4), np.zeros(4)), ([2.0, -1.0], [3.1, -1.7])],
        laws=("even", "nonnegative"),
        bad=[
            ({"l1_ratio": 2.0}, ValueError, r"`l1_ratio` must be in \[0, 1\], got 2.0"),
            ({"l1_ratio": float("nan")}, ValueError, r"`l1_ratio` must be in \[0, 1\], got nan"),
            ({"l1_ratio": "half"}, TypeError, r"`l1_ratio` must be a number in \[0, 1\], got str"),
            ({"l1ratio": 0.5}, TypeError, r"`l1ratio` is not an option.*Did you mean 'l1_ratio'\?"),
        ],
    ),
    Case(xp.elastic_net, [randn(5)], {"l1_ratio": 1.0}, laws=("even", "nonnegative", "homogeneous")),
    Case(
        xp.huber,
        [2 * randn(3, 4)],
        {"delta": 0.7},
        kinks=[([0.0, 0.7, -0.7, 5.0], [0.0, 0.7, -0.7, 0.7])],
        laws=("even", "nonnegative"),
        bad=[({"delta": 0}, ValueError, r"`delta` must be in \(0, inf\), got 0.0")],
    ),
    Case(xp.huber, [3 * randn(7)], laws=("even", "nonnegative")),
    Case(
        xp.group_lasso,
        [randn(3, 4)],
        kinks=[([[0.0, 0.0], [3.0, 4.0]], [[0.0, 0.0], [0.6 * 2**0.5, 0.8 * 2**0.5]])],
        laws=("even", "nonnegative", "homogeneous"),
        bad=[Bad.axis, Bad.axis_kind],
    ),
    Case(xp.group_lasso, [randn(3, 4, 2)], {"axis": 1}, laws=("even", "nonnegative", "homogeneous")),
    Case(
        xp.group_lasso,
        [randn(3, 4, 2)],
        {"axis": (0, -1)},
        laws=("even", "nonnegative", "homogeneous"),
        bad=[
            (
                {"axis": (0, -3)},
                ValueError,
                r"`axis` must have axes of `x`, each once, got \(0, -3\) for",
            ),
            ({"axis": (0, 3)}, ValueError, r"`axis` must have axes of `x`, each once, got \(0, 3\)"),
            ({"axis": ()}, ValueError, r"`axis` must have an axis, got none"),
            ({"axis": (0, 0.5)}, TypeError, r"`axis` must be an integer, got 0\.5"),
        ],
    ),
    Case(
        xp.sparse_group_lasso,
        [randn(3, 4)],
        kinks=[([[0.0, 0.0], [3.0, 4.0]], [[0.0, 0.0], [0.5 + 0.3 * 2**0.5, 0.5 + 0.4 * 2**0.5]])],
        laws=("even", "nonnegative", "homogeneous"),
        bad=[Bad.axis, ({"l1_ratio": 1.5}, ValueError, r"`l1_ratio` must be in \[0, 1\], got 1.5")],
    ),
    Case(xp.sparse_group_lasso, [randn(3, 4, 2)], {"axis": (0, -1), "l1_ratio": 0.8}, laws=("even", "nonnegative")),
    Case(
        xp.l0,
        [apart(3, 4)],
        {"threshold": 0.5},
        kinks=[([0.0, 0.5, -2.0], [0.0, 0.0, 0.0])],
        laws=("even", "nonnegative"),
        bad=[
            ({"kind": "steps"}, ValueError, r"`kind` must be one of .*, got 'steps'. Did you mean 'step'"),
            ({"threshold": -1.0}, ValueError, r"`threshold` must be in \[0, inf\), got -1.0"),
            ({"threshold": "0"}, TypeError, r"`threshold` must be a number in \[0, inf\), got str"),
            ({"through": "x"}, ValueError, r"`through` must be one of 'threshold', 'both', got 'x'"),
            ({"bandwidth": 0.0}, ValueError, r"`bandwidth` must be in \(0, inf\), got 0.0"),
            ({"scale": 0.0}, ValueError, r"`scale` must be in \(0, inf\), got 0.0"),
        ],
    ),
    Case(
        xp.l0,
        [np.asarray([[1.0, -2.0, 0.5], [-0.25, 0.75, 3.0]])],
        {"threshold": np.asarray([0.375, 1.0, 0.625]), "through": "both", "bandwidth": 0.01},
        laws=("even", "nonnegative"),
    ),
    Case(
        xp.l0,
        [apart(3, 4)],
        {"kind": "tanh", "scale": 0.7},
        kinks=[([0.0, 100.0, -100.0], [0.0, 0.0, 0.0])],
        laws=("even", "nonnegative"),
    ),
    Case(
        xp.l0,
        [2 * apart(3, 4)],
        {"kind": "hard_concrete"},
        kinks=[([-1000.0, 1000.0, -2 / 3 * np.log(11)], [0.0, 0.0, 0.25])],
        laws=("nonnegative",),
    ),
    Case(
        xp.mcp,
        [apart(3, 4)],
        {"threshold": 0.8},
        kinks=[([0.0, 0.8, -0.8, 5.0, 0.2], [0.0, 0.0, 0.0, 0.0, 0.75])],
        laws=("even", "nonnegative"),
        bad=[({"threshold": 0.0}, ValueError, r"`threshold` must be in \(0, inf\), got 0.0")],
    ),
    Case(
        xp.scad,
        [2 * apart(3, 4)],
        {"knee": 0.6, "a": 3.0},
        kinks=[([0.0, 0.6, -0.6, 1.8, 1.2, 9.0], [0.0, 1.0, -1.0, 0.0, 0.5, 0.0])],
        laws=("even", "nonnegative"),
        bad=[
            ({"knee": 0.0}, ValueError, r"`knee` must be in \(0, inf\), got 0.0"),
            ({"a": 2.0}, ValueError, r"`a` must be in \(2, inf\), got 2.0"),
        ],
    ),
    Case(
        xp.log_sum,
        [apart(3, 4)],
        {"eps": 0.3},
        kinks=[([0.0, 0.3, -0.3, 1e200], [0.0, 1 / 0.6, -1 / 0.6, 0.0])],
        laws=("even", "nonnegative"),
        bad=[({"eps": 0.0}, ValueError, r"`eps` must be in \(0, inf\), got 0.0")],
    ),
    Case(
        xp.lp,
        [apart(3, 4)],
        {"p": 0.6},
        kinks=[([0.0, 1.0, -1.0], [0.0, 0.6, -0.6])],
        laws=("even", "nonnegative"),
        bad=[
            ({"p": 0.0}, ValueError, r"`p` must be in \(0, 1\], got 0.0"),
            ({"p": 2}, ValueError, r"`p` must be in \(0, 1\], got 2.0"),
        ],
    ),
    Case(xp.lp, [apart(5)], {"p": 1.0}, laws=("even", "nonnegative", "homogeneous")),
    Case(
        xp.hoyer,
        [apart(3, 4)],
        kinks=[(np.zeros(4), np.zeros(4)), ([0.0, 3.0], [0.0, 0.0])],
        laws=("even", "nonnegative", "scale_invariant"),
        bad=[Bad.axis, Bad.axis_kind, ({"squared": 1}, TypeError, r"`squared` must be True or False, got 1")],
    ),
    Case(
        xp.hoyer,
        [apart(3, 4)],
        {"axis": -1, "squared": False},
        kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
        laws=("even", "nonnegative", "scale_invariant"),
    ),
    Case(xp.hoyer, [apart(3, 4, 2)], {"axis": (0, 2)}, laws=("even", "nonnegative", "scale_invariant")),
    Case(
        xp.log_cosh,
        [2 * apart(3, 4)],
        {"scale": 0.5},
        kinks=[(np.zeros(4), np.zeros(4)), ([1000.0, -1000.0], [0.5, -0.5])],
        laws=("even", "nonnegative"),
        bad=[({"scale": 0.0}, ValueError, r"`scale` must be in \(0, inf\), got 0.0")],
    ),
    Case(
        xp.charbonnier,
        [apart(3, 4)],
        {"eps": 0.5},
        kinks=[(np.zeros(4), np.zeros(4)), ([1e200, -1e200, 0.375], [1.0, -1.0, 0.6])],
        laws=("even", "nonnegative"),
        bad=[({"eps": 0.0}, ValueError, r"`eps` must be in \(0, inf\), got 0.0")],
    ),
    Case(
        xp.spectral_norm,
        [apart(3, 5)],
        kinks=[
            (np.zeros((2, 3)), np.zeros((2, 3))),
            ([[3.0, 0.0], [0.0, -1.0]], [[6.0, 0.0], [0.0, 0.0]]),
        ],
        laws=("even", "nonnegative"),
        bad=[Bad.no_axis],
    ),
    Case(xp.spectral_norm, [apart(5, 3)], laws=("even", "nonnegative")),
    Case(xp.spectral_norm, [apart(2, 3, 4)], laws=("even", "nonnegative")),
    Case(
        xp.nuclear_norm,
        [apart(3, 5)],
        kinks=[
            (np.zeros((2, 3)), np.zeros((2, 3))),
            (np.eye(3), np.eye(3)),
            (np.ones((2, 2)), np.ones((2, 2)) / 2),
        ],
        laws=("even", "nonnegative", "homogeneous"),
        bad=[Bad.no_axis],
    ),
    Case(xp.nuclear_norm, [apart(5, 3)], laws=("even", "nonnegative", "homogeneous")),
    Case(xp.nuclear_norm, [apart(2, 3, 4)], laws=("even", "nonnegative", "homogeneous")),
    Case(
        xp.total_variation,
        [apart(3, 4)],
        kinks=[([1.0, 1.0, 3.0, 2.0], [0.0, -1.0, 2.0, -1.0]), (np.zeros((2, 3)), np.zeros((2, 3)))],
        laws=("even", "nonnegative", "homogeneous", "shift_invariant"),
        bad=[
            Bad.axis,
            Bad.axis_kind,
            (
                {"axis": (0, -2)},
                ValueError,
                r"`axis` must have axes of `x`, each once, got \(0, -2\) for shape \(3, 4\)",
            ),
            ({"order": 0}, ValueError, r"`order` must be at least 1, got 0"),
            ({"mode": "isotrope"}, ValueError, r"`mode` must be one of .*got 'isotrope'. Did you mean 'isotropic'"),
        ],
    ),
    Case(
        xp.total_variation,
        [apart(3, 4)],
        {"axis": (0, 1)},
        laws=("even", "nonnegative", "homogeneous", "shift_invariant"),
    ),
    Case(
        xp.total_variation,
        [apart(2, 3, 4)],
        {"axis": (-1, 1), "mode": "isotropic"},
        kinks=[(np.zeros((2, 3, 4)), np.zeros((2, 3, 4)))],
        laws=("even", "nonnegative", "homogeneous", "shift_invariant"),
    ),
    Case(
        xp.total_variation,
        [apart(4, 3)],
        {"axis": 0, "order": 2, "mode": "squared"},
        laws=("even", "nonnegative", "shift_invariant"),
    ),
    Case(
        xp.total_variation,
        [apart(5, 5)],
        {"axis": (0, 1), "order": 2, "mode": "isotropic"},
        laws=("even", "nonnegative", "homogeneous", "shift_invariant"),
    ),
    Case(
        xp.kl_divergence,
        [log_probs(3, 5), log_probs(3, 5)],
        laws=("zero_for_equal", "nonnegative"),
        bad=[
            Bad.temperature,
            Bad.axis,
            Bad.from_logits,
            (
                {"direction": "forwards"},
                ValueError,
                r"`direction` must be one of 'forward', 'reverse', 'symmetric', got 'forwards'. Did you mean",
            ),
            ({"direction": 1}, TypeError, r"`direction` must be one of 'forward', 'reverse', 'symmetric', got 1"),
        ],
    ),
    Case(xp.kl_divergence, [log_probs(3, 5), log_probs(3, 5)], {"direction": "reverse"}, laws=("zero_for_equal",)),
    Case(
        xp.kl_divergence,
        [log_probs(2, 5, 3, axis=1), log_probs(2, 5, 3, axis=1)],
        {"direction": "symmetric", "axis": 1},
        laws=("zero_for_equal", "nonnegative", "symmetric"),
    ),
    Case(
        xp.kl_divergence,
        [3 * randn(2, 3, 5), 3 * randn(2, 3, 5)],
        {"from_logits": True, "temperature": 2.0},
        laws=("zero_for_equal", "nonnegative", "shift_invariant_rows"),
    ),
    Case(xp.kl_divergence, [log_probs(3, 5), log_probs(3, 5)], {"temperature": 0.5}, laws=("zero_for_equal",)),
    *[
        Case(
            xp.kl_divergence,
            [log_probs(5, 3, axis=0), log_probs(5, 3, axis=0)],
            {"direction": direction, "skew": skew, "axis": 0},
            laws=("zero_for_equal", "nonnegative", *(("symmetric",) if direction == "symmetric" else ())),
            bad=[({"skew": 1.5}, ValueError, r"`skew` must be in \[0, 1\], got 1.5")],
        )
        for direction, skew in (("forward", 0.1), ("reverse", 0.1), ("symmetric", 0.7), ("forward", 1.0))
    ],
    *[
        Case(
            xp.kl_divergence,
            [3 * randn(3, 5), 3 * randn(3, 5)],
            {"direction": direction, "skew": 0.1, "from_logits": True},
            laws=("zero_for_equal", "nonnegative", "shift_invariant_rows"),
        )
        for direction in ("forward", "reverse", "symmetric")
    ],
    Case(
        xp.js_divergence,
        [log_probs(3, 5), log_probs(3, 5)],
        laws=("zero_for_equal", "nonnegative", "symmetric", "at_most_log_2"),
        bad=[
            Bad.temperature,
            Bad.axis,
            Bad.from_logits,
            ({"beta": -0.1}, ValueError, r"`beta` must be in \[0, 1\], got -0.1"),
        ],
    ),
    Case(
        xp.js_divergence,
        [log_probs(5, 3, axis=0), log_probs(5, 3, axis=0)],
        {"beta": 0.1, "axis": 0},
        laws=("zero_for_equal", "nonnegative", "at_most_log_2"),
    ),
    Case(xp.js_divergence, [log_probs(3, 5), log_probs(3, 5)], {"beta": 0.0}, laws=("zero_for_equal",)),
    Case(xp.js_divergence, [log_probs(3, 5), log_probs(3, 5)], {"beta": 1.0}, laws=("zero_for_equal",)),
    Case(
        xp.js_divergence,
        [3 * randn(3, 5), 3 * randn(3, 5)],
        {"from_logits": True, "temperature": 0.7},
        laws=("zero_for_equal", "nonnegative", "symmetric", "at_most_log_2", "shift_invariant_rows"),
    ),
    Case(
        xp.entropy,
        [log_probs(3, 5)],
        laws=("nonnegative",),
        bad=[
            Bad.temperature,
            Bad.axis,
            Bad.from_logits,
            (
                {"mode": "bonsu"},
                ValueError,
                r"`mode` must be one of 'penalty', 'bonus', got 'bonsu'. Did you mean 'bonus'",
            ),
            ({"normalize": None}, TypeError, r"`normalize` must be True or False, got None"),
        ],
    ),
    Case(xp.entropy, [log_probs(3, 5, axis=0)], {"mode": "bonus", "normalize": True, "axis": 0}),
    Case(
        xp.entropy,
        [3 * randn(2, 3, 5)],
        {"from_logits": True, "temperature": 3.0},
        laws=("nonnegative", "shift_invariant_rows"),
    ),
    *[
        Case(
            xp.f_divergence,
            [log_probs(3, 5), log_probs(3, 5)],
            {"kind": kind, "alpha": alpha},
            laws=("zero_for_equal", "nonnegative"),
        )
        for kind, powers in (("alpha", (-0.5, 0, 0.3, 1, 3)), ("renyi", (0.3, 1, 2.5)))
        for alpha in powers
    ],
    Case(
        xp.f_divergence,
        [log_probs(3, 5), log_probs(3, 5)],
        kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
        laws=("zero_for_equal", "nonnegative", "symmetric"),
        bad=[
            Bad.temperature,
            Bad.axis,
            Bad.from_logits,
            (
                {"kind": "tvd"},
                ValueError,
                r"`kind` must be one of 'tv', 'hellinger', 'chi2', 'alpha', 'renyi', got",
            ),
            ({"alpha": float("inf")}, ValueError, r"`alpha` must be in \(-inf, inf\), got inf"),
            ({"kind": "renyi", "alpha": 0}, ValueError, r"`alpha` must be > 0 for `kind` 'renyi', got 0.0. Swap P"),
        ],
    ),
    *[
        Case(
            xp.f_divergence,
            [log_probs(4, 3, axis=0), log_probs(4, 3, axis=0)],
            {"kind": kind, "axis": 0},
            laws=("zero_for_equal", "nonnegative", *(("symmetric",) if kind == "hellinger" else ())),
        )
        for kind in ("hellinger", "chi2")
    ],
    *[
        Case(
            xp.f_divergence,
            [3 * randn(3, 5), 3 * randn(3, 5)],
            {"kind": kind, "alpha": 0.7, "from_logits": True, "temperature": 2.0},
            laws=("zero_for_equal", "nonnegative", "shift_invariant_rows"),
        )
        for kind in ("tv", "hellinger", "chi2", "alpha", "renyi")
    ],
    Case(
        xp.topk_kl_divergence,
        [top_k(3, 4, 6), top_k(3, 4, 6)],
        laws=("zero_for_equal", "nonnegative"),
        bad=[
            Bad.axis,
            (
                {"tail": "bukcet"},
                ValueError,
                r"`tail` must be one of 'bucket', 'renormalize', 'truncate', 'included', got 'bukcet'",
            ),
        ],
    ),
    Case(
        xp.topk_kl_divergence,
        [top_k(3, 4, 6), top_k(3, 4, 6)],
        {"tail": "renormalize"},
        laws=("zero_for_equal", "nonnegative", "shift_invariant_rows"),
    ),
    Case(
        xp.topk_kl_divergence,
        [top_k(3, 4, 6).T.copy(), top_k(3, 4, 6).T.copy()],
        {"tail": "truncate", "axis": 0},
        laws=("zero_for_equal",),
    ),
    Case(
        xp.topk_kl_divergence,
        [log_probs(3, 5), log_probs(3, 5)],
        {"tail": "included"},
        laws=("nonnegative", "zero_for_equal"),
    ),
    *[
        Case(
            xp.topk_kl_divergence,
            [top_k(3, 4, 6), top_k(3, 4, 6)],
            {"tail": tail, "direction": direction},
            laws=("zero_for_equal", *(("symmetric",) if direction == "symmetric" else ())),
            bad=[({"direction": "back"}, ValueError, r"`direction` must be one of 'forward', 'reverse', 'symmetric'")],
        )
        for tail, direction in (("bucket", "reverse"), ("bucket", "symmetric"), ("renormalize", "reverse"))
    ],
    Case(
        xp.topk_js_divergence,
        [top_k(3, 4, 6), top_k(3, 4, 6)],
        laws=("zero_for_equal", "nonnegative", "symmetric", "at_most_log_2"),
        bad=[
            Bad.axis,
            ({"beta": -0.1}, ValueError, r"`beta` must be in \[0, 1\], got -0.1"),
            ({"tail": "truncate"}, ValueError, r"`tail` must be one of 'bucket', 'renormalize', got 'truncate'"),
        ],
    ),
    Case(
        xp.topk_js_divergence,
        [top_k(3, 4, 6).T.copy(), top_k(3, 4, 6).T.copy()],
        {"beta": 0.2, "axis": 0},
        laws=("zero_for_equal", "nonnegative", "at_most_log_2"),
    ),
    Case(xp.topk_js_divergence, [top_k(3, 4, 6), top_k(3, 4, 6)], {"beta": 1.0}, laws=("zero_for_equal",)),
    Case(
        xp.topk_js_divergence,
        [top_k(3, 4, 6), top_k(3, 4, 6)],
        {"beta": 0.7, "tail": "renormalize"},
        laws=("zero_for_equal", "nonnegative", "shift_invariant_rows", "at_most_log_2"),
    ),
    *[
        Case(xp.sampled_kl, [log_probs(3, 4), log_probs(3, 4)], {"estimator": estimator}, laws=("zero_for_equal",))
        for estimator in ("k1", "k2", "k3")
    ],
    Case(
        xp.sampled_kl,
        [log_probs(6), log_probs(6)],
        laws=("zero_for_equal", "nonnegative"),
        bad=[
            ({"estimator": "k4"}, ValueError, r"`estimator` must be one of 'k1', 'k2', 'k3', got 'k4'"),
            ({"gradient": "k1"}, ValueError, r"`gradient` must be one of 'value', 'k2', got 'k1'"),
        ],
    ),
    *[
        Case(
            xp.bernoulli_kl,
            [log_probs(3, 4), log_probs(3, 4)],
            {"kind": kind},
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
            laws=("zero_for_equal", "nonnegative", *(("symmetric",) if kind == "tv" else ())),
            bad=[
                ({"kind": "js"}, ValueError, r"`kind` must be one of 'kl', 'tv', got 'js'"),
                Bad.from_logits,
            ],
        )
        for kind in ("kl", "tv")
    ],
    *[
        Case(
            xp.bernoulli_kl,
            [2 * randn(3, 4), 2 * randn(3, 4)],
            {"kind": kind, "from_logits": True},
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
            laws=("zero_for_equal", "nonnegative", "even"),
        )
        for kind in ("kl", "tv")
    ],
    Case(
        xp.gaussian_kl,
        [randn(3, 4), randn(3, 4)],
        kinks=[([-1.0, 0.0, 2.0], [-1.0, 0.0, 2.0])],
        laws=("nonnegative",),
        bad=[
            ({"free_bits": -1.0}, ValueError, r"`free_bits` must be in \[0, inf\), got -1.0"),
            ({"mean_q": True}, TypeError, r"`mean_q` must be a number in \(-inf, inf\), got bool"),
            ({"log_var_q": "same"}, TypeError, r"`log_var_q` must be a number in \(-inf, inf\), got str"),
        ],
    ),
    Case(
        xp.gaussian_kl,
        [randn(3, 4), randn(3, 4)],
        {"mean_q": randn(4), "log_var_q": randn(3, 4)},
        laws=("nonnegative",),
    ),
    Case(xp.gaussian_kl, [randn(3, 4), randn(3, 4)], {"log_var_q": -0.5}, laws=("nonnegative",)),
    Case(xp.gaussian_kl, [randn(5, 4), randn(5, 4)], {"free_bits": 0.9}, laws=("nonnegative",)),
    Case(
        xp.gaussian_kl,
        [randn(5, 2, 2), randn(5, 2, 2)],
        {"free_bits": 0.25, "mean_q": randn(2), "log_var_q": randn(2, 2)},
        laws=("nonnegative",),
    ),
    Case(xp.z_loss, [2 * randn(3, 5)], laws=("nonnegative",), bad=[Bad.axis]),
    Case(xp.z_loss, [2 * randn(5, 3)], {"axis": 0}, laws=("nonnegative",)),
    *[
        Case(
            xp.orthogonality,
            [randn(*shape)],
            {"mode": mode, "normalize": normalize},
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))] if normalize else [],
            laws=("nonnegative", "even", *(("scale_invariant",) if normalize else ())),
        )
        for mode in ("soft", "hard", "spectral")
        for normalize in (True, False)
        for shape in ((3, 5), (5, 3))
    ],
    *[
        Case(
            xp.orthogonality,
            [randn(2, 3, 4)],
            {"axis": axis, "per_sample": per_sample, "mode": mode},
            laws=("even",),
        )
        for axis in ("rows", "sequence", "vocabulary")
        for per_sample, mode in ((False, "soft"), (True, "hard"), (True, "spectral"))
    ],
    Case(
        xp.orthogonality,
        [randn(4, 4)],
        laws=("nonnegative", "even", "scale_invariant"),
        bad=[
            (
                {"mode": "sfot"},
                ValueError,
                r"`mode` must be one of 'soft', 'hard', 'spectral', got 'sfot'. Did you mean",
            ),
            (
                {"axis": "row"},
                ValueError,
                r"`axis` must be one of 'rows', 'sequence', 'vocabulary', got 'row'. Did you mean",
            ),
            ({"per_sample": 1}, TypeError, r"`per_sample` must be True or False, got 1"),
        ],
    ),
    Case(xp.covariance, [randn(6, 3)], laws=("nonnegative", "even", "shift_invariant")),
    Case(xp.covariance, [randn(3, 6)], laws=("nonnegative", "even", "shift_invariant")),
    Case(
        xp.consistency,
        [randn(3, 4), randn(3, 4)],
        kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
        laws=("zero_for_equal", "nonnegative", "symmetric"),
        bad=[({"metric": "mae"}, ValueError, r"`metric` must be one of 'mse', 'l1', 'cosine', 'kl', 'js', got 'mae'")],
    ),
    Case(
        xp.consistency,
        [randn(3, 4), randn(3, 4)],
        {"metric": "l1"},
        kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
        laws=("zero_for_equal", "nonnegative", "symmetric"),
    ),
    Case(
        xp.consistency,
        [randn(3, 4), randn(3, 4)],
        {"metric": "cosine"},
        kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
        laws=("zero_for_equal", "nonnegative", "symmetric", "scale_invariant"),
        bad=[Bad.axis],
    ),
    *[
        Case(
            xp.consistency,
            [log_probs(4, 3, axis=0), log_probs(4, 3, axis=0)],
            {"metric": metric, "axis": 0},
            laws=("zero_for_equal", "nonnegative", "symmetric"),
        )
        for metric in ("kl", "js")
    ],
    Case(
        xp.output_magnitude,
        [randn(3, 4)],
        kinks=[(np.zeros(4), np.zeros(4))],
        laws=("nonnegative", "even"),
        bad=[
            ({"norm": "l1"}, ValueError, r"`norm` must be one of 'rms', 'l2', got 'l1'"),
            ({"target": -1}, ValueError, r"`target` must be in \[0, inf\), got -1.0"),
        ],
    ),
    Case(xp.output_magnitude, [randn(3, 4)], {"target": 2.5, "norm": "l2"}, laws=("nonnegative", "even")),
    Case(
        xp.gradient_penalty,
        [randn(3, 2, 2)],
        kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
        laws=("nonnegative", "even"),
        bad=[
            Bad.target_norm,
            Bad.one_sided,
            ({"per_sample": 1}, TypeError, r"`per_sample` must be True or False, got 1"),
        ],
        **FUNCTION,
    ),
    Case(
        xp.gradient_penalty,
        [0.6 * randn(5, 3)],
        {"target_norm": 0.8, "one_sided": True},
        kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
        laws=("nonnegative", "even"),
        **FUNCTION,
    ),
    Case(
        xp.gradient_penalty,
        [randn(4)],
        {"target_norm": 0},
        kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
        laws=("nonnegative", "even"),
        **FUNCTION,
    ),
    Case(
        xp.gradient_penalty,
        [randn(3, 2)],
        {"per_sample": False},
        kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
        laws=("nonnegative", "even"),
        **{**FUNCTION, "fn": curved_whole},
    ),
    Case(
        xp.interpolated_gradient_penalty,
        [randn(3, 2, 2), randn(3, 2, 2)],
        {"alpha": np.asarray([0.0, 0.3, 0.9])},
        kinks=[(np.zeros((3, 2)), np.zeros((3, 2)))],
        laws=("nonnegative", "even"),
        bad=[Bad.target_norm, Bad.one_sided, Bad.rng],
        **FUNCTION,
    ),
    Case(
        xp.interpolated_gradient_penalty,
        [0.6 * randn(4, 2), 0.6 * randn(4, 2)],
        {"alpha": np.asarray([[0.2], [1.0], [0.7], [0.5]]), "target_norm": 0.9, "one_sided": True},
        laws=("nonnegative", "even"),
        **FUNCTION,
    ),
    Case(
        xp.jacobian_penalty,
        [randn(3, 2, 2)],
        {"projections": 2, "rng": KEY},
        kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
        laws=("nonnegative", "even"),
        bad=[
            Bad.rng,
            ({"projections": 0}, ValueError, r"`projections` must be at least 1, got 0. One is an unbiased"),
            ({"projections": 1.5}, TypeError, r"`projections` must be an integer, got 1.5"),
        ],
        **{**FUNCTION, "fn": curved},
    ),
    Case(
        xp.lipschitz_penalty,
        [apart(3, 2, 2)],
        {"sigma": 0.5, "noise": apart(3, 2, 2, seed=1)},
        laws=("nonnegative",),
        bad=[
            Bad.one_sided,
            ({"target": -1}, ValueError, r"`target` must be in \[0, inf\), got -1.0"),
            ({"sigma": 0}, ValueError, r"`sigma` must be in \(0, inf\), got 0.0"),
            ({"projections": 0}, ValueError, r"`projections` must be at least 1, got 0"),
            ({"projections": 2, "noise": None, "rng": 1}, TypeError, r"`rng` must be a .*, got int\. Pass for example"),
        ],
        # the difference of two rounded values is divided by sigma, and squared
        **{**FUNCTION, "lacking": {}, "rounds_in_half": 40},
    ),
    Case(
        xp.lipschitz_penalty,
        [apart(4, 3)],
        {"noise": apart(4, 3, seed=1), "target": 0.75, "one_sided": True, "sigma": 0.25},
        laws=("nonnegative",),
        **{**FUNCTION, "lacking": {}},
    ),
    Case(
        xp.adversarial_consistency,
        [apart(3, 4)],
        {"xi": 0.5, "epsilon": 0.75, "noise": apart(3, 4, seed=1)},
        laws=("nonnegative",),
        bad=[
            ({"epsilon": 0}, ValueError, r"`epsilon` must be in \(0, inf\), got 0.0"),
            ({"xi": -1.0}, ValueError, r"`xi` must be in \(0, inf\), got -1.0"),
            ({"iterations": 0}, ValueError, r"`iterations` must be at least 1, got 0"),
            ({"metric": "l1"}, ValueError, r"`metric` must be one of 'kl', 'js', 'mse', got 'l1'"),
            ({"axis": 0}, ValueError, r"`axis` must be an axis of the output of `fn` after .*got 0 for shape \(3, 4\)"),
            ({"noise": None, "rng": 1}, TypeError, r"`rng` must be a .*, got int\. Pass for example"),
        ],
        **{**FUNCTION, "fn": curved, "rounds_in_half": 40},
    ),
    Case(
        xp.adversarial_consistency,
        [apart(2, 3, 2)],
        {"metric": "js", "axis": 1, "iterations": 3, "noise": apart(2, 3, 2, seed=1)},
        laws=("nonnegative",),
        **{**FUNCTION, "fn": curved, "rounds_in_half": 40},
    ),
    Case(
        xp.adversarial_consistency,
        [apart(5)],
        {"metric": "mse", "epsilon": 0.5, "xi": 1e-3, "noise": apart(5, seed=1)},
        laws=("nonnegative",),
        **{**FUNCTION, "fn": curved},
    ),
    Case(
        xp.linear_kl_divergence,
        [randn(4, 3), randn(5, 3), randn(4, 3), randn(5, 3)],
        laws=("zero_for_equal", "nonnegative", "shift_invariant_classes"),
        bad=[
            Bad.temperature,
            Bad.no_axis,
            Bad.no_logits,
            (
                {"direction": "forwards"},
                ValueError,
                r"`direction` must be one of 'forward', 'reverse', 'symmetric', got 'forwards'. Did you mean",
            ),
        ],
    ),
    Case(  # a teacher with more features
        xp.linear_kl_divergence,
        [randn(2, 3, 4), randn(5, 4), randn(2, 3, 2), randn(5, 2)],
        {"direction": "reverse", "temperature": 2.0},
        laws=("zero_for_equal", "nonnegative", "shift_invariant_classes"),
    ),
    Case(
        xp.linear_kl_divergence,
        [randn(4, 3), randn(6, 3), randn(4, 3), randn(6, 3)],
        {"direction": "symmetric"},
        laws=("zero_for_equal", "nonnegative", "symmetric", "shift_invariant_classes"),
    ),
    Case(
        xp.linear_kl_divergence,
        [randn(4, 3), randn(5, 3), randn(4, 3), randn(5, 3)],
        {"direction": "reverse", "skew": 0.3},
        laws=("zero_for_equal", "nonnegative", "shift_invariant_classes"),
    ),
    Case(
        xp.linear_js_divergence,
        [randn(4, 3), randn(5, 3), randn(4, 3), randn(5, 3)],
        laws=("zero_for_equal", "nonnegative", "symmetric", "at_most_log_2", "shift_invariant_classes"),
        bad=[
            Bad.temperature,
            Bad.no_axis,
            Bad.no_logits,
            ({"beta": 1.5}, ValueError, r"`beta` must be in \[0, 1\], got 1.5"),
        ],
    ),
    Case(
        xp.linear_js_divergence,
        [randn(2, 2, 3), randn(5, 3), randn(2, 2, 4), randn(5, 4)],
        {"beta": 0.1, "temperature": 0.7},
        laws=("zero_for_equal", "nonnegative", "at_most_log_2", "shift_invariant_classes"),
    ),
    *[
        Case(
            xp.linear_js_divergence,
            [randn(3, 2), randn(4, 2), randn(3, 2), randn(4, 2)],
            {"beta": beta},
            laws=("zero_for_equal",),
        )
        for beta in (0.0, 1.0)
    ],
    Case(
        xp.linear_entropy,
        [randn(4, 3), randn(5, 3)],
        laws=("nonnegative", "shift_invariant_classes"),
        bad=[
            Bad.temperature,
            Bad.no_axis,
            Bad.no_logits,
            (
                {"mode": "bonsu"},
                ValueError,
                r"`mode` must be one of 'penalty', 'bonus', got 'bonsu'. Did you mean 'bonus'",
            ),
            ({"normalize": 1}, TypeError, r"`normalize` must be True or False, got 1"),
        ],
    ),
    Case(
        xp.linear_entropy,
        [randn(2, 3, 4), randn(6, 4)],
        {"mode": "bonus", "normalize": True, "temperature": 3.0},
        laws=("shift_invariant_classes",),
    ),
    Case(
        xp.variance,
        [randn(6, 3)],
        kinks=[(np.ones((3, 2)), np.zeros((3, 2)))],
        laws=("nonnegative", "even", "shift_invariant"),
        bad=[({"target": 0.0}, ValueError, r"`target` must be in \(0, inf\), got 0.0")],
    ),
    Case(xp.variance, [0.5 * randn(4, 5)], {"target": 2.5}, laws=("nonnegative", "even", "shift_invariant")),
    Case(
        xp.cross_correlation,
        [randn(6, 3), randn(6, 3)],
        kinks=[(np.full((3, 2), 0.1), np.zeros((3, 2)))],
        laws=("nonnegative", "symmetric", "even", "shift_invariant_columns", "scale_invariant"),
        bad=[({"off_diagonal": -1.0}, ValueError, r"`off_diagonal` must be in \[0, inf\), got -1.0")],
    ),
    Case(
        xp.cross_correlation,
        [randn(4, 6), randn(4, 6)],
        {"off_diagonal": 0.5},
        laws=("nonnegative", "symmetric", "even", "shift_invariant_columns", "scale_invariant"),
    ),
    Case(
        xp.load_balancing,
        [randn(7, 4)],
        laws=("nonnegative", "shift_invariant_rows"),
        bad=[
            ({"top_k": 0}, ValueError, r"`top_k` must be at least 1, got 0"),
            ({"top_k": 5}, ValueError, r"`top_k` must be at most the number of experts, got 5 for 4"),
            ({"scores": "tanh"}, ValueError, r"`scores` must be one of 'softmax', 'sigmoid', 'probabilities', got"),
            ({"per_sequence": 1}, TypeError, r"`per_sequence` must be True or False, got 1"),
        ],
    ),
    Case(xp.load_balancing, [randn(4, 3, 5)], {"top_k": 2, "scores": "sigmoid"}, laws=("nonnegative",)),
    Case(
        xp.load_balancing,
        [randn(3, 4, 5)],
        {"top_k": 2, "per_sequence": True},
        laws=("nonnegative", "shift_invariant_rows"),
    ),
    Case(xp.load_balancing, [np.exp(log_probs(6, 4))], {"top_k": 3, "scores": "probabilities"}),
    Case(xp.load_balancing, [randn(6, 4)], {"counts": np.asarray([5.0, 0.0, 1.0, 2.0])}, laws=("nonnegative",)),
    Case(
        xp.mutual_information,
        [log_probs(6, 4)],
        bad=[
            Bad.temperature,
            Bad.axis,
            Bad.from_logits,
            ({"diversity": -1.0}, ValueError, r"`diversity` must be in \[0, inf\), got -1.0"),
            ({"mode": "bonsu"}, ValueError, r"`mode` must be one of 'bonus', 'penalty', got 'bonsu'. Did you mean"),
        ],
    ),
    Case(xp.mutual_information, [log_probs(4, 3, 5, axis=1)], {"axis": 1, "mode": "penalty"}, laws=("nonnegative",)),
    Case(
        xp.mutual_information,
        [3 * randn(5, 4)],
        {"from_logits": True, "temperature": 2.0, "diversity": 0.7},
        laws=("shift_invariant_rows",),
    ),
    Case(
        xp.koleo,
        [apart(6, 3)],
        laws=("even", "scale_invariant"),
        bad=[({"floor": -1.0}, ValueError, r"`floor` must be in \[0, inf\), got -1.0")],
        lacking=NEIGHBORS,
    ),
    Case(
        xp.koleo,
        [apart(5, 4)],
        {"floor": 0.9},
        kinks=[(np.zeros((3, 2)), np.zeros((3, 2))), (np.full((3, 2), 0.1), np.zeros((3, 2)))],
        laws=("even", "scale_invariant"),
        lacking=NEIGHBORS,
    ),
    Case(
        xp.uniformity,
        [randn(6, 3)],
        kinks=[(np.zeros((3, 2)), np.zeros((3, 2))), (np.full((3, 2), 0.1), np.zeros((3, 2)))],
        laws=("even", "scale_invariant"),
        bad=[({"t": 0.0}, ValueError, r"`t` must be in \(0, inf\), got 0.0")],
    ),
    Case(xp.uniformity, [randn(4, 5)], {"t": 0.5}, laws=("even", "scale_invariant")),
    Case(  # in one dimension, all directions are the same
        xp.sigreg,
        [randn(6, 1)],
        {"slices": 3, "rng": KEY},
        laws=("nonnegative", "even"),
        bad=[
            Bad.rng,
            ({"slices": 0}, ValueError, r"`slices` must be at least 1, got 0"),
            ({"knots": 1}, ValueError, r"`knots` must be at least 2, got 1"),
        ],
    ),
    *[
        Case(
            xp.mmd,
            [randn(5, 3), randn(5, 3)],
            {"kernel": kernel, "unbiased": unbiased, **({} if kernel == "energy" else {"bandwidths": 1.3})},
            kinks=[(np.zeros((3, 2)), np.zeros((3, 2)))],
            laws=("zero_for_equal", "nonnegative", "symmetric", "even") if not unbiased else ("symmetric", "even"),
        )
        for kernel in ("rbf", "imq", "energy")
        for unbiased in (False, True)
    ],
    Case(
        xp.mmd,
        [randn(5, 3), randn(5, 3)],
        {"bandwidths": (0.5, 2.0)},
        laws=("zero_for_equal", "nonnegative", "symmetric", "even"),
        bad=[
            ({"bandwidths": (1.0, -2.0)}, ValueError, r"`bandwidths` must be in \(0, inf\), got -2.0"),
            ({"bandwidths": ()}, ValueError, r"`bandwidths` must have a number, got none"),
            ({"bandwidths": "1"}, TypeError, r"`bandwidths` must be a number in \(0, inf\), got str"),
            ({"bandwidths": 1.0, "kernel": "energy"}, ValueError, r"`bandwidths` must be None with kernel='energy'"),
            ({"kernel": "laplace"}, ValueError, r"`kernel` must be one of 'rbf', 'imq', 'energy', got 'laplace'"),
            ({"unbiased": 1}, TypeError, r"`unbiased` must be True or False, got 1"),
        ],
    ),
    *[
        Case(
            xp.gram_distance,
            [randn(*shape), randn(*shape)],
            {"normalize": normalize, "centered": centered},
            kinks=[(np.zeros((3, 2)), np.zeros((3, 2)))],
            laws=("zero_for_equal", "nonnegative", "symmetric", "even"),
        )
        for normalize in ("rows", "gram", "none")
        for centered in (False, True)
        for shape in ((6, 3), (3, 5))
    ],
    Case(
        xp.gram_distance,
        [randn(4, 4), randn(4, 4)],
        laws=("zero_for_equal", "nonnegative", "symmetric", "even", "scale_invariant"),
        bad=[
            ({"normalize": True}, TypeError, r"`normalize` must be one of 'rows', 'gram', 'none', got True"),
            ({"centered": 1}, TypeError, r"`centered` must be True or False, got 1"),
        ],
    ),
    *[
        Case(
            xp.coral,
            [apart(*shape), apart(*shape, seed=1)],
            kinks=[(np.zeros((3, 2)), np.zeros((3, 2))), (np.full((3, 2), 0.1), np.zeros((3, 2)))],
            laws=("zero_for_equal", "nonnegative", "symmetric", "even", "shift_invariant_columns"),
        )
        for shape in ((6, 3), (3, 5), (4, 4))
    ],
    Case(
        xp.coding_rate,
        [apart(6, 3, seed=4)],
        kinks=[(np.zeros((3, 2)), np.zeros((3, 2)))],
        laws=("even",),
        bad=[
            ({"eps": 0.0}, ValueError, r"`eps` must be in \(0, inf\), got 0.0"),
            ({"mode": "bonsu"}, ValueError, r"`mode` must be one of 'bonus', 'penalty', got 'bonsu'. Did you mean"),
        ],
    ),
    Case(
        xp.coding_rate,
        [apart(3, 5, seed=4)],
        {"eps": 0.8, "mode": "penalty"},
        kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
        laws=("even", "nonnegative"),
    ),
    *[
        Case(
            xp.cross_orthogonality,
            [apart(*lead, m, d, seed=2), apart(*lead, n, d, seed=3)],
            {"normalize": normalize},
            kinks=[(np.zeros((*lead, m, d)), np.zeros((*lead, m, d)))],
            laws=("even", "nonnegative", "symmetric", *(("scale_invariant",) if normalize else ())),
            bad=[({"normalize": 1}, TypeError, r"`normalize` must be True or False, got 1")],
        )
        for normalize in (True, False)
        for lead, m, n, d in (((), 3, 2, 5), ((2,), 4, 5, 3))
    ],
]

_LABELS = Counter(case.label for case in CASES)
_FIRST = {(case.function, case.kind_of_terms): case for case in reversed(CASES)}
STATISTICS = [case for case in CASES if case.is_statistic]
WITH_TERMS = [case for case in CASES if not case.is_statistic]
