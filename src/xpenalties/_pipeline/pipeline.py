"""Named, weighted sums of penalties."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Literal

from .._core.checks import nearest
from .._core.pytrees import register
from .._reports.report import Report
from ..backends import register_loaded
from .computation import Computation
from .config.reader import load
from .config.writer import save
from .penalty import Penalty
from .settings import Settings
from .static import Static

__all__ = ["Pipeline"]


@register
@dataclass(frozen=True, init=False, eq=False)
class Pipeline:
    """A named, weighted sum of penalties: sum of weight_i * penalty_i.

    Immutable; what changes it returns a new one. To JAX it is a pytree whose leaves are the weights, so that a jitted
    function takes it as an argument and does not recompile when a weight changes.

    Parameters
    ----------
    penalties : mapping of str to weight, or iterable of Penalty
        A mapping names penalties of this package.
    name : str, default "pipeline"
        For messages and reports.

    Raises
    ------
    TypeError, ValueError
        As `Penalty`, and for a name that occurs twice.

    Examples
    --------
    >>> pipe = Pipeline({"l1": 0.5, "l2": 2.0})
    >>> x = np.asarray([1.0, -2.0])
    >>> float(pipe(x))
    11.5
    >>> total, report = pipe.compute(x)
    >>> print(report)
    penalty  value  weight  contribution
    ------------------------------------
    l1           3     0.5           1.5
    l2           5       2            10
    total                           11.5
    """

    penalties: tuple[Penalty, ...]
    name: str

    def __init__(self, penalties: Mapping[str, Any] | Iterable[Penalty] = (), *, name: str = "pipeline") -> None:
        register_loaded()  # JAX knows this class from here on
        if isinstance(penalties, Mapping):
            penalties = [Penalty(fn, weight=weight) for fn, weight in penalties.items()]
        if not isinstance(penalties, Iterable):
            raise TypeError(
                f"Pipeline: `penalties` must be a mapping or an iterable of Penalty, got {penalties!r}. Pass a list."
            )
        if not isinstance(name, str):
            raise TypeError(f"Pipeline: `name` must be a string, got {name!r}. Give one.")
        found = tuple(penalties)
        names: set[str] = set()
        for penalty in found:
            if not isinstance(penalty, Penalty):
                raise TypeError(
                    f"Pipeline: each of `penalties` must be a Penalty, got {type(penalty).__qualname__}. Wrap it."
                )
            if penalty.name in names:
                raise ValueError(f"Pipeline: names must be unique, got {penalty.name!r} twice. Give one a `name`.")
            names.add(penalty.name)
        object.__setattr__(self, "penalties", found)
        object.__setattr__(self, "name", name)

    def __call__(self, *inputs: Any, step: Any = None) -> Any:
        """The weighted sum, a 0-d array to differentiate.

        Parameters
        ----------
        *inputs
            What the penalties take: arrays, or one mapping of names to arrays.
        step : int or 0-d array, optional
            For weights that are schedules, and penalties that count on each k-th step.
        """
        return Computation(self.name, self.penalties, inputs, step, None).total()

    def compute(
        self,
        *inputs: Any,
        step: Any = None,
        track_grad_norms: bool = False,
        wrt: str | int | Iterable[str | int] | None = None,
        gradient_conflicts: bool = False,
        execution: Literal["sequential", "threads"] = "sequential",
        max_workers: int | None = None,
        timeout: float | None = None,
        on_error: Literal["raise", "drop"] = "raise",
    ) -> tuple[Any, Report]:
        """The weighted sum, to differentiate, and a `Report` of how it came about, from the same evaluation.

        Parameters
        ----------
        *inputs, step
            As for a call of the pipeline.
        track_grad_norms : bool, default False
            Whether the report has the L2 norm of each penalty's gradient, of its contribution's and of the total's, by
            one pass back for each penalty. In eager PyTorch the total's own gradient then is their sum, without another
            pass, where it depends on nothing else. A penalty that cannot be differentiated is reported with the reason,
            and the total counts it all the same.
        wrt : str, int or iterable of them, optional
            The inputs to differentiate by: names in the mapping or dataclass, or positions. By default all
            floating-point arrays; of PyTorch's those that require a gradient, if there are any. An array that is given
            twice is one.
        gradient_conflicts : bool, default False
            Whether the report has the cosines between the penalties' gradients too.
        execution : {"sequential", "threads"}, default "sequential"
            "threads" runs penalties side by side: for callables that are slow outside of the framework and let go of
            Python's lock, as NumPy does. The sum is in the penalties' order either way.
        max_workers : int, optional
            At most so many threads; by default one for each CPU.
        timeout : float, optional
            Seconds that a penalty may take on a thread, for those without a `timeout` of their own. A thread cannot be
            stopped: what it is at is abandoned.
        on_error : {"raise", "drop"}, default "raise"
            For penalties without an `on_error` of their own: "drop" lets one that fails contribute 0, see `Penalty`.

        Returns
        -------
        tuple of array, shape (), and Report

        Raises
        ------
        Exception
            What a penalty raises, with a note that names it.
        TypeError, ValueError
            For options of a wrong kind or value; for inputs without an array to differentiate by; for threads inside of
            a trace.
        """
        settings = Settings.of(
            self.name,
            track_grad_norms=track_grad_norms,
            wrt=wrt,
            gradient_conflicts=gradient_conflicts,
            execution=execution,
            max_workers=max_workers,
            timeout=timeout,
            on_error=on_error,
        )
        return Computation(self.name, self.penalties, inputs, step, settings).total_and_report()

    async def compute_async(
        self,
        *inputs: Any,
        step: Any = None,
        timeout: float | None = None,
        on_error: Literal["raise", "drop"] = "raise",
    ) -> tuple[Any, Report]:
        """As `compute`, on an event loop: coroutines are awaited together, and callables that block run on threads.

        This package's penalties, which do not block, run on the loop's own thread. If this is cancelled, or a penalty
        fails, coroutines are cancelled and threads waited for: nothing is left running.

        Parameters
        ----------
        *inputs, step, timeout, on_error
            As for `compute`; a penalty may return an awaitable of what it would return.
        """
        settings = Settings.of(self.name, timeout=timeout, on_error=on_error, asynchronous=True)
        computation = Computation(self.name, self.penalties, inputs, step, settings)
        return await computation.total_and_report_async()

    def with_weights(self, weights: Mapping[str, Any] | None = None, /, **more: Any) -> Pipeline:
        """The same with other weights, by name."""
        if not (weights is None or isinstance(weights, Mapping)):
            raise TypeError(f"{self.name}: `weights` must be a mapping of names, got {weights!r}. Or use keywords.")
        given = {**(weights or {}), **more}
        self._check_names(given)
        return self._replace(lambda p: replace(p, weight=given[p.name]) if p.name in given else p)

    def enable(self, *names: str) -> Pipeline:
        """The same with these penalties taking part."""
        self._check_names(names)
        return self._replace(lambda p: replace(p, enabled=True) if p.name in names else p)

    def disable(self, *names: str) -> Pipeline:
        """The same with these penalties kept, but taking no part."""
        self._check_names(names)
        return self._replace(lambda p: replace(p, enabled=False) if p.name in names else p)

    def add(self, penalty: Penalty) -> Pipeline:
        """The same with one more penalty at the end."""
        return Pipeline((*self.penalties, penalty), name=self.name)

    def remove(self, *names: str) -> Pipeline:
        """The same without these penalties."""
        self._check_names(names)
        return Pipeline([p for p in self.penalties if p.name not in names], name=self.name)

    def at(self, step: Any) -> Pipeline:
        """The same with each schedule's weight at `step`."""
        return self._replace(lambda p: replace(p, weight=p.weight_at(step)) if callable(p.weight) else p)

    @classmethod
    def from_config(cls, source: Mapping[str, Any] | list[Any] | str | PathLike[str], /) -> Pipeline:
        """The pipeline of a configuration, which is data, or a file of it.

        ``{"version": 1, "penalties": [...]}``, and a `name`. A list is the penalties, of the present version. Each is a
        table of `Penalty`'s parameters, but that `fn` is `penalty`, a name; all else may be left out. In place of a
        list, `penalties` may be a table of names: to weights, or tables of parameters, where `penalty` is the name
        itself if it is left out. `config_schema` describes all of it to editors.

        - `weight`: a number, or a schedule: ``{"schedule": "warmup", "after": 0.1, "steps": 1000}``, with the arguments
          of the function of `xpenalties.schedules`. `after` may be another schedule, and `pieces` are pairs of step and
          value.
        - `inputs`: a name or a list of names, ``{"attributes": ...}`` of the pipeline's one argument, such as
          ``"batch.images"`` or a list of them (operator.attrgetter), or ``{"function": name}``.
        - `tree`: ``{"match": ..., "exclude": ...}``, both optional, makes it a penalty of a tree, as `over_tree` does.
        - `options`: numbers, strings and booleans; of a function of one's own also lists, which it gets as tuples, and
          tables.

        Functions and schedules of one's own have the names that `register` gave them.

        Parameters
        ----------
        source : mapping, list, str or path
            A string is the path of a file that ends in ``.toml`` or ``.json``.

        Raises
        ------
        OSError
            For a file that cannot be read.
        TypeError, ValueError
            For what a file's format, this one, or `Penalty` does not allow; with file, place, and the nearest name.

        Examples
        --------
        >>> pipe = Pipeline.from_config(
        ...     [
        ...         {"penalty": "l1", "weight": {"schedule": "linear", "start": 0.0, "end": 0.1, "steps": 100}},
        ...         {"penalty": "huber", "name": "robust", "inputs": "residual", "options": {"delta": 0.5}},
        ...     ]
        ... )
        >>> pipe["robust"]
        Penalty('huber', name='robust', inputs='residual', options={'delta': 0.5})
        >>> pipe["l1"].weight(50)
        0.05
        """
        return load(source, cls)

    def to_config(self, path: str | PathLike[str] | None = None, /) -> dict[str, Any]:
        """What `from_config` makes this pipeline of: dicts, lists, strings, numbers and booleans, without defaults.

        0-d arrays, as learned weights, become numbers, which moves them off their device.

        Parameters
        ----------
        path : str or path, optional
            A file to write it to, that ends in ``.json`` or, where tomli-w is installed, ``.toml``.

        Raises
        ------
        TypeError
            For what no file can hold, such as functions without a name, which `register` gives, and larger arrays.
        ValueError
            For numbers that are not finite, and weights that have become negative.

        Examples
        --------
        >>> Pipeline([Penalty("l1", weight=schedules.cosine(0.1, steps=100), every=4)], name="training").to_config()
        {'version': 1, 'name': 'training', 'penalties': [{'penalty': 'l1',
         'weight': {'schedule': 'cosine', 'start': 0.1, 'steps': 100}, 'every': 4}]}
        """
        return save(self.penalties, self.name, path)

    def _replace(self, change: Callable[[Penalty], Penalty]) -> Pipeline:
        return Pipeline([change(p) for p in self.penalties], name=self.name)

    def _check_names(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self:
                raise ValueError(self._unknown(name))

    def _unknown(self, name: str) -> str:
        known = [p.name for p in self.penalties]
        listed = ", ".join(map(repr, known)) or "none"
        return f"{self.name}: no penalty is named {name!r}, there are {listed}.{nearest(name, known)}"

    def __len__(self) -> int:
        return len(self.penalties)

    def __iter__(self) -> Iterator[Penalty]:
        return iter(self.penalties)

    def __contains__(self, name: object) -> bool:
        return any(p.name == name for p in self.penalties)

    def __getitem__(self, name: str) -> Penalty:
        for penalty in self.penalties:
            if penalty.name == name:
                return penalty
        raise KeyError(self._unknown(name))

    def tree_flatten(self) -> tuple[tuple[Any, ...], Static]:
        """Weights that are no schedules, and the rest: how JAX sees a pipeline."""
        return tuple(p.weight for p in self.penalties if not callable(p.weight)), Static(self.penalties, self.name)

    def tree_keys(self) -> tuple[str, ...]:
        """The names of what `tree_flatten` returns first."""
        return tuple(p.name for p in self.penalties if not callable(p.weight))

    @classmethod
    def tree_unflatten(cls, static: Static, weights: Iterable[Any]) -> Pipeline:
        """The inverse of `tree_flatten`. Takes anything as a weight, for JAX puts tracers and placeholders there."""
        new = iter(weights)
        pipeline = object.__new__(cls)
        penalties = []
        for old in static.penalties:
            penalty = object.__new__(Penalty)
            penalty.__dict__.update(old.__dict__)
            if not callable(old.weight):
                penalty.__dict__["weight"] = next(new)
            penalties.append(penalty)
        object.__setattr__(pipeline, "penalties", tuple(penalties))
        object.__setattr__(pipeline, "name", static.name)
        return pipeline
