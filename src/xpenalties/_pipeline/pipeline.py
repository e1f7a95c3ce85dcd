"""The class `Pipeline`: a named, weighted sum of penalties."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Literal

from .._core.pytrees import register
from .._core.suggestions import did_you_mean
from .._reports.report import Report
from ..backends import register_loaded
from .computation import Computation
from .config.reader import load
from .config.writer import save
from .hashing import Static
from .penalty import Penalty
from .settings import Settings

__all__ = ["Pipeline"]


@register
@dataclass(frozen=True, init=False, eq=False)
class Pipeline:
    """A named, weighted sum of penalties: sum of weight_i * penalty_i.

    A pipeline is immutable: methods that change it return a new one. On JAX it is a pytree whose leaves are the
    weights. A jitted function can take it as an argument, and does not recompile when a weight changes.

    Parameters
    ----------
    penalties : mapping of str to weight, or iterable of Penalty
        The keys of a mapping are names of penalties, as `Penalty` takes them.
    name : str, default "pipeline"
        For messages, reports and events.

    Raises
    ------
    TypeError, ValueError
        Like `Penalty`, and for a name that occurs twice.

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
        members = tuple(penalties)
        names: set[str] = set()
        for penalty in members:
            if not isinstance(penalty, Penalty):
                raise TypeError(
                    f"Pipeline: each of `penalties` must be a Penalty, got {type(penalty).__qualname__}. Wrap it."
                )
            if penalty.name in names:
                raise ValueError(f"Pipeline: names must be unique, got {penalty.name!r} twice. Give one a `name`.")
            names.add(penalty.name)
        object.__setattr__(self, "penalties", members)
        object.__setattr__(self, "name", name)

    def __call__(self, *inputs: Any, step: Any = None) -> Any:
        """Return the weighted sum, a 0-d array to differentiate.

        Parameters
        ----------
        *inputs
            The arguments of the penalties: arrays, or one mapping of names to arrays.
        step : int or 0-d array, optional
            For weights that are schedules, and for `every`.
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
        """Return the weighted sum, to differentiate, and a `Report` of its parts, from the same evaluation.

        Parameters
        ----------
        *inputs, step
            As for a call of the pipeline.
        track_grad_norms : bool, default False
            Whether the report has L2 norms of gradients: of each penalty, of its contribution and of the total. This
            takes one backward pass for each penalty. In eager PyTorch the gradient of the total is then their sum,
            without another pass, unless the total depends on anything else. A penalty that cannot be differentiated is
            reported with the reason, and still counts in the total.
        wrt : str, int or iterable of them, optional
            The inputs to differentiate with respect to: names in the mapping or dataclass, or positions. By default
            all floating-point arrays, on PyTorch only those that require a gradient, if there are any. An array that
            occurs twice counts once.
        gradient_conflicts : bool, default False
            Whether the report also has the cosines between the gradients of the penalties.
        execution : {"sequential", "threads"}, default "sequential"
            "threads" runs penalties at the same time. It helps with slow callables that release Python's lock, like
            NumPy. The order of the sum is that of the penalties in any case.
        max_workers : int, optional
            The largest number of threads, by default one for each CPU.
        timeout : float, optional
            Seconds that a penalty without its own `timeout` may take on a thread. A thread cannot be stopped: it is
            abandoned.
        on_error : {"raise", "drop"}, default "raise"
            For penalties without their own `on_error`: "drop" lets one that fails contribute 0, see `Penalty`.

        Returns
        -------
        tuple of array, shape (), and Report

        Raises
        ------
        Exception
            The error of a penalty, with a note that names it.
        TypeError, ValueError
            For options of a wrong kind or value; for inputs without an array to differentiate with respect to; for
            threads inside jax.jit or torch.compile.
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
        """Do the same as `compute` on an event loop. Coroutines are awaited together, other callables run on threads.

        The penalties of this package do not block: they run on the thread of the loop. If this is cancelled, or a
        penalty fails, coroutines are cancelled and threads are waited for: nothing is left running.

        Parameters
        ----------
        *inputs, step, timeout, on_error
            As for `compute`. A penalty may return an awaitable of its value, or of value and metrics.
        """
        settings = Settings.of(self.name, timeout=timeout, on_error=on_error, asynchronous=True)
        computation = Computation(self.name, self.penalties, inputs, step, settings)
        return await computation.total_and_report_async()

    def with_weights(self, weights: Mapping[str, Any] | None = None, /, **more: Any) -> Pipeline:
        """Return a copy with other weights, by name."""
        if not (weights is None or isinstance(weights, Mapping)):
            raise TypeError(f"{self.name}: `weights` must be a mapping of names, got {weights!r}. Or use keywords.")
        by_name = {**(weights or {}), **more}
        self._check_names(by_name)
        return self._replace(lambda p: replace(p, weight=by_name[p.name]) if p.name in by_name else p)

    def enable(self, *names: str) -> Pipeline:
        """Return a copy with these penalties enabled."""
        self._check_names(names)
        return self._replace(lambda p: replace(p, enabled=True) if p.name in names else p)

    def disable(self, *names: str) -> Pipeline:
        """Return a copy with these penalties disabled: they stay in it, but are not evaluated."""
        self._check_names(names)
        return self._replace(lambda p: replace(p, enabled=False) if p.name in names else p)

    def add(self, penalty: Penalty) -> Pipeline:
        """Return a copy with one more penalty at the end."""
        return Pipeline((*self.penalties, penalty), name=self.name)

    def remove(self, *names: str) -> Pipeline:
        """Return a copy without these penalties."""
        self._check_names(names)
        return Pipeline([p for p in self.penalties if p.name not in names], name=self.name)

    def at(self, step: Any) -> Pipeline:
        """Return a copy with numbers, or arrays, in place of schedules: their weights at `step`."""
        return self._replace(lambda p: replace(p, weight=p.weight_at(step)) if callable(p.weight) else p)

    @classmethod
    def from_config(cls, source: Mapping[str, Any] | list[Any] | str | PathLike[str], /) -> Pipeline:
        """Make a pipeline from a configuration: from data, or from a file.

        A configuration is ``{"version": 1, "name": ..., "penalties": [...]}``, or only the list of penalties. Each
        penalty is a table of the parameters of `Penalty`, with the name `penalty` in place of `fn`. All other
        parameters are optional. In place of a list, `penalties` may also be a table from names to weights or to tables
        of parameters. `penalty` may then be left out if it is the name itself. `config_schema` describes all of it to
        editors.

        - `weight`: a number, or a schedule with the arguments of that function of `xpenalties.schedules`:
          ``{"schedule": "warmup", "after": 0.1, "steps": 1000}``. `after` may be another schedule, and `pieces` are
          pairs of step and value.
        - `inputs`: a name or a list of names; ``{"attributes": ...}`` of the only argument of the pipeline, such as
          ``"batch.images"`` or a list of them (operator.attrgetter); or ``{"function": name}``.
        - `tree`: ``{"match": ..., "exclude": ...}``, both optional, makes it a penalty over a tree, like `over_tree`.
        - `options`: numbers, strings and booleans. Your own function may also take tables, and lists, which it gets as
          tuples.

        Your own functions and schedules have the names that `register` gave them.

        Parameters
        ----------
        source : mapping, list, str or path
            A string is the path of a ``.toml`` or ``.json`` file.

        Raises
        ------
        OSError
            For a file that cannot be read.
        TypeError, ValueError
            For anything that is not valid in the file's format, in this one, or in `Penalty`. The message has the file,
            the place in it, and the nearest name.

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
        """Return the configuration of this pipeline, for `from_config`, without parameters that are the default.

        It consists of dicts, lists, strings, numbers and booleans. 0-d arrays, such as learned weights, become numbers,
        which moves them off their device.

        Parameters
        ----------
        path : str or path, optional
            A ``.json`` file to write it to, or a ``.toml`` file if tomli-w is installed.

        Raises
        ------
        TypeError
            For what no file can hold: arrays that are not 0-d, and functions without a name. `register` gives one.
        ValueError
            For numbers that are not finite, and for weights that have become negative.

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
        names = [p.name for p in self.penalties]
        listed = ", ".join(map(repr, names)) or "none"
        return f"{self.name}: no penalty is named {name!r}, there are {listed}.{did_you_mean(name, names)}"

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
        """Return the weights that are no schedules, and the rest."""
        return tuple(p.weight for p in self.penalties if not callable(p.weight)), Static(self.penalties, self.name)

    def tree_keys(self) -> tuple[str, ...]:
        """Return the names of these weights."""
        return tuple(p.name for p in self.penalties if not callable(p.weight))

    @classmethod
    def tree_unflatten(cls, static: Static, weights: Iterable[Any]) -> Pipeline:
        """Return a pipeline with other weights, which may be anything: JAX puts tracers and placeholders there."""
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
