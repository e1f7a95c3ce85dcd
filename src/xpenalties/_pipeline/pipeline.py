"""The class `Pipeline`: a named, weighted sum of penalties."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Literal, Never

from .._core.hash_key import HasStaticKey
from .._core.hidden_parameters import hide_parameters
from .._core.pytrees import register
from .._core.shown import listed, shorten, shown
from .._core.suggestions import did_you_mean
from .._penalties.parameters import HasParameters, Parameters
from .._reports.report import Report
from ..backends import register_loaded
from .computation import Computation
from .hashing import Static
from .penalty import Penalty
from .penalty_inputs import callables_in, names_in
from .penalty_roles import constants_of
from .pipeline_arguments import checked_members, refuse_arguments
from .pipeline_table import as_html, as_text, title_of
from .settings import Settings

__all__ = ["Pipeline"]


@register
@dataclass(frozen=True, init=False, eq=False, repr=False)
class Pipeline(HasStaticKey, HasParameters):
    """A named, weighted sum of penalties: sum of weight_i * penalty_i.

    A pipeline is immutable: methods that change it return a new one. On JAX it is a pytree whose leaves are the
    weights. A jitted function can take it as an argument, and does not recompile when a weight changes.

    Parameters
    ----------
    penalties : mapping of str to weight, or iterable of Penalty
        The keys of a mapping are names of penalties, as for `Penalty`.
    name : str, default "pipeline"
        Shown in messages, reports and events.

    Raises
    ------
    TypeError, ValueError
        As for `Penalty`. Also if a name occurs twice.

    Examples
    --------
    >>> pipe = Pipeline({"l1": 0.5, "l2": 2.0})
    >>> x = np.asarray([1.0, -2.0])
    >>> float(pipe(x))
    11.5
    >>> total, report = pipe.compute(x)
    >>> print(report)
    penalty  value  weight  contribution   share
    --------------------------------------------
    l1           3     0.5           1.5  13.0 %
    l2           5     2            10    87.0 %
    total                           11.5
    """

    # PyTorch 2.12 asks a pipeline that is made in a traced function for its hash and length, before __init__
    penalties: tuple[Penalty, ...] = ()
    name: str = "pipeline"

    def __init__(
        self,
        penalties: Mapping[str, Any] | Iterable[Penalty] = (),
        *positional: Never,
        name: str = "pipeline",
        **keywords: Never,
    ) -> None:
        register_loaded()  # if JAX is loaded, make this class a pytree
        if positional or keywords:
            refuse_arguments(penalties, positional, keywords)
        if isinstance(penalties, Mapping):
            penalties = [Penalty(fn, weight=weight) for fn, weight in penalties.items()]
        members = checked_members(penalties)
        if not isinstance(name, str):
            raise TypeError(f"Pipeline: `name` must be a string, got {shown(name)}. Give one.")
        object.__setattr__(self, "penalties", members)
        object.__setattr__(self, "name", name)

    def __call__(self, *inputs: Any, step: Any = None) -> Any:
        """Return the weighted sum, a differentiable 0-d array.

        Parameters
        ----------
        *inputs
            The arguments of the penalties: arrays, or one mapping of names to arrays.
        step : int or 0-d array, optional
            Required if a weight is a schedule, or an `every` is above 1.
        """
        return Computation(self.name, self.penalties, inputs, step, None).total()

    def compute(
        self,
        *inputs: Any,
        step: Any = None,
        track_grad_norms: bool = False,
        wrt: Any = None,
        gradient_conflicts: bool = False,
        execution: Literal["sequential", "threads"] = "sequential",
        max_workers: int | None = None,
        timeout: float | None = None,
        on_error: Literal["raise", "drop"] = "raise",
    ) -> tuple[Any, Report]:
        """Return the weighted sum, which is differentiable, and a `Report` of its parts, from one evaluation.

        Parameters
        ----------
        *inputs, step
            As for a call of the pipeline.
        track_grad_norms : bool, default False
            Report L2 norms of gradients: of each penalty, of its contribution and of the total. This takes one backward
            pass for each penalty. A penalty that does not depend on `wrt` or cannot be differentiated has no norm. It
            still counts in the total, and its report says why.
        wrt : str, int, array, module, or an iterable or tree of them, optional
            What to differentiate with respect to: inputs by name in the mapping or dataclass, or by position; arrays;
            or all parameters of a module. On PyTorch, gradients go through the whole graph, for example through a model
            to its parameters: pass the model, or ``model.parameters()``. Of the tensors, only those that require
            gradients count. On other frameworks, arrays must be among the inputs, and the other inputs are constants.

            Default: all floating-point arrays among the inputs; on PyTorch, only those that require gradients, if any
            do. Each input is then independent of the others, and an array that occurs twice counts once. An input that
            penalties only use as `where`, `weights` or `normalizer` is left out, unless it requires a gradient. In
            eager PyTorch, the total reuses these gradients and needs no other backward pass, unless it depends on
            anything else. If two penalties have no input in common, there is a warning.

            Ignored if gradients are not tracked, so that you can pass it together with
            ``track_grad_norms=history.wants(step)``.
        gradient_conflicts : bool, default False
            Also report the cosines between the penalties' gradients. This turns on `track_grad_norms`.
        execution : {"sequential", "threads"}, default "sequential"
            "threads" runs penalties in parallel. This helps with slow callables that release the GIL, as NumPy does.
            The results are always added up in the order of the penalties.
        max_workers : int, optional
            Maximum number of threads. Default: one for each CPU.
        timeout : float, optional
            Time limit in seconds, on threads, for penalties without their own `timeout`. A thread cannot be stopped: it
            is abandoned.
        on_error : {"raise", "drop"}, default "raise"
            For penalties without their own `on_error`. "drop": a penalty that fails contributes 0, see `Penalty`.

        Returns
        -------
        tuple of array, shape (), and Report

        Raises
        ------
        Exception
            The error of a penalty, with a note that names the penalty.
        TypeError, ValueError
            If an option has a wrong type or value. If gradients are tracked, and the inputs hold no array to
            differentiate with respect to. If threads are used inside jax.jit or torch.compile.
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
        """Compute on an event loop: await coroutines together, and run other callables on threads. See `compute`.

        Built-in penalties do not block, so they run on the loop's thread. If the call is cancelled or a penalty fails,
        coroutines are cancelled and threads are waited for: nothing is left running.

        Parameters
        ----------
        *inputs, step, timeout, on_error
            As for `compute`. A penalty may return an awaitable of its value, or of value and metrics.
        """
        settings = Settings.of(self.name, timeout=timeout, on_error=on_error, asynchronous=True)
        computation = Computation(self.name, self.penalties, inputs, step, settings)
        return await computation.total_and_report_async()

    def with_weights(self, weights: Mapping[str, Any] | None = None, /, **more: Any) -> Pipeline:
        """Return a copy with other weights for the named penalties."""
        if not (weights is None or isinstance(weights, Mapping)):
            raise TypeError(
                f"{self.name}: `weights` must be a mapping of names, got {shown(weights)}. Or use keywords."
            )
        by_name = {**(weights or {}), **more}
        self._check_names(by_name)
        return self._replace(lambda p: replace(p, weight=by_name[p.name]) if p.name in by_name else p)

    def enable(self, *names: str) -> Pipeline:
        """Return a copy with these penalties enabled."""
        self._check_names(names)
        return self._replace(lambda p: replace(p, enabled=True) if p.name in names else p)

    def disable(self, *names: str) -> Pipeline:
        """Return a copy with these penalties disabled: they stay in the pipeline, but are not evaluated."""
        self._check_names(names)
        return self._replace(lambda p: replace(p, enabled=False) if p.name in names else p)

    def add(self, penalty: Penalty) -> Pipeline:
        """Return a copy with one more penalty at the end."""
        return Pipeline((*self.penalties, penalty), name=self.name)

    def __add__(self, other: Pipeline) -> Pipeline:
        """Return a pipeline with the penalties of both, and this one's name. Their names must differ."""
        if not isinstance(other, Pipeline):
            return NotImplemented
        return Pipeline((*self.penalties, *other.penalties), name=self.name)

    __or__ = __add__

    def __eq__(self, other: object) -> bool:
        """Return whether names and penalties are equal, in the same order. See `Penalty`."""
        if not isinstance(other, Pipeline):
            return NotImplemented
        return self is other or (self.name, self.penalties) == (other.name, other.penalties)

    def __hash__(self) -> int:
        return hash((self.name, self.penalties))

    def _static_key(self) -> tuple[Any, ...]:
        """Return a hashable key that is equal for pipelines that compute the same inside another pipeline."""
        return self.name, *((penalty.weight, penalty._static_key()) for penalty in self.penalties)

    def remove(self, *names: str) -> Pipeline:
        """Return a copy without these penalties."""
        self._check_names(names)
        return Pipeline([p for p in self.penalties if p.name not in names], name=self.name)

    def at(self, step: Any) -> Pipeline:
        """Return a copy with each schedule replaced by its value at `step`, a number or an array."""
        return self._replace(lambda p: replace(p, weight=p.weight_at(step)) if callable(p.weight) else p)

    @classmethod
    def from_config(cls, source: Mapping[str, Any] | list[Any] | str | PathLike[str], /) -> Pipeline:
        """Make a pipeline from a configuration: data or a file.

        A configuration is ``{"version": 1, "name": ..., "penalties": [...]}``, or only the list of penalties. Each
        penalty is a table of the parameters of `Penalty`. Its key `penalty`, a name, stands for `fn`. All other
        parameters are optional. `penalties` may also be a table: its keys are names, its values weights or tables of
        parameters. You can then leave out `penalty` if it equals the name. `config_schema` describes the whole format
        to editors.

        - `weight`: a number, or the name and the arguments of a schedule in `xpenalties.schedules`:
          ``{"schedule": "warmup", "after": 0.1, "steps": 1000}``. `after` may be another schedule, and `pieces` are
          pairs of step and value.
        - `inputs`: a name or a list of names; ``{"attributes": "batch.images"}``, one or a list, for attributes of the
          pipeline's only argument (operator.attrgetter); ``{"function": name}``; or a table from the function's
          parameters to any of these except lists: ``{"log_p": "teacher", "log_q": "student", "where": "mask"}``.
        - `tree`: ``{"match": ..., "exclude": ...}``, both optional, makes it a penalty over a tree, like `over_tree`.
        - `options`: numbers, strings and booleans. For your own function, also tables and lists. Lists arrive as
          tuples.

        Refer to your own functions and schedules by the names that you gave them with `register`.

        Parameters
        ----------
        source : mapping, list, str or path
            A string is the path of a ``.toml`` or ``.json`` file.

        Raises
        ------
        OSError
            If the file cannot be read.
        TypeError, ValueError
            If the file is not valid TOML or JSON, or the configuration is not valid. The message gives the file, the
            place in it and, for a misspelled name, the nearest one.

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
        from .config.reader import load  # here, because few programs read files

        return load(source, cls)

    def to_config(self, path: str | PathLike[str] | None = None, /) -> dict[str, Any]:
        """Return this pipeline's configuration, for `from_config`, without default parameters.

        It consists of dicts, lists, strings, numbers and booleans. 0-d arrays, such as learned weights, become numbers,
        which moves them off their device.

        Parameters
        ----------
        path : str or path, optional
            File to write it to: ``.json``, or ``.toml`` if tomli-w is installed.

        Raises
        ------
        TypeError
            If no file can hold a value: an array that is not 0-d, or a function that `register` has not named.
        ValueError
            If a number is not finite, or a weight has become negative.

        Examples
        --------
        >>> Pipeline([Penalty("l1", weight=schedules.cosine(0.1, steps=100), every=4)], name="training").to_config()
        {'version': 1, 'name': 'training', 'penalties': [{'penalty': 'l1',
         'weight': {'schedule': 'cosine', 'start': 0.1, 'steps': 100}, 'every': 4}]}
        """
        from .config.writer import save

        return save(self.penalties, self.name, path)

    def __repr__(self) -> str:
        """Return a table of the penalties."""
        return as_text(title_of(self.name), self.penalties)

    def _repr_html_(self) -> str:
        return as_html(title_of(self.name), self.penalties)

    def _call_parameters(self) -> Parameters:
        """Return the names of the inputs that the enabled penalties ask for, and `step`."""
        enabled = [penalty for penalty in self.penalties if penalty.enabled]
        names = tuple(dict.fromkeys(name for penalty in enabled for name in names_in(penalty.inputs)))
        takes_any = any(penalty.inputs is None or callables_in(penalty.inputs) for penalty in enabled)
        constants = tuple(constants_of(enabled))
        return Parameters(names, names, ("step",), takes_any=takes_any, in_mapping=True, constants=constants)

    def _replace(self, change: Callable[[Penalty], Penalty]) -> Pipeline:
        return Pipeline([change(p) for p in self.penalties], name=self.name)

    def _check_names(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self:
                raise ValueError(self._unknown(name))

    def _unknown(self, name: str) -> str:
        names = [p.name for p in self.penalties]
        return (
            f"{shorten(self.name)}: no penalty is named {shown(name)}. The names are {listed(names)}."
            + did_you_mean(name, names)
        )

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

    def _tree_flatten(self) -> tuple[tuple[Any, ...], Static]:
        """Return the leaves, which are the weights that are not schedules, and the rest."""
        return tuple(p.weight for p in self.penalties if not callable(p.weight)), Static(self.penalties, self.name)

    def _tree_keys(self) -> tuple[str, ...]:
        """Return the name of each leaf."""
        return tuple(p.name for p in self.penalties if not callable(p.weight))

    @classmethod
    def _tree_unflatten(cls, static: Static, weights: Iterable[Any]) -> Pipeline:
        """Return a pipeline with other weights, unchecked: JAX also passes tracers and placeholders."""
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


hide_parameters(Pipeline.__init__, "positional", "keywords")
