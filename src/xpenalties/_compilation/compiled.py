"""A pipeline, a loss or any function, compiled by the framework of the arrays that it is called with.

Both frameworks take what is a Python value for a part of the program, and compile anew for another one. So what a
training loop changes is made an array first, or computed outside of the program: weights, schedules, steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from numbers import Real
from typing import Any, ParamSpec, TypeVar, overload

from .._arrays.interchange import are_lent
from .._core.pytrees import node
from .._pipeline.penalty import Penalty
from .._pipeline.pipeline import Pipeline
from .._pipeline.regularized_loss import RegularizedLoss
from .._reports.report import Report
from ..backends import Backend, backend_of, flatten_of, in_dynamo, register_loaded
from .steps import Target, pipeline_of, remade, settled, with_numbers, with_pipeline

__all__ = ["Compiled", "compile"]

P = ParamSpec("P")
R = TypeVar("R")


@overload
def compile(  # type: ignore[overload-overlap]  # a pipeline is callable too
    target: Pipeline | RegularizedLoss | Compiled,
    /,
    *,
    torch: Mapping[str, Any] | None = None,
    jax: Mapping[str, Any] | None = None,
) -> Compiled: ...
@overload
def compile(
    target: Callable[P, R], /, *, torch: Mapping[str, Any] | None = None, jax: Mapping[str, Any] | None = None
) -> Callable[P, R]: ...
def compile(target: Any, /, *, torch: Mapping[str, Any] | None = None, jax: Mapping[str, Any] | None = None) -> Any:
    """Compile `target` by torch.compile or jax.jit, whichever the arrays of a call ask for.

    Weights, schedules and steps of a pipeline may change without another compilation. Where the arrays are those of
    NumPy, or of another framework that does not compile, `target` is called as it is.

    Parameters
    ----------
    target : Pipeline, RegularizedLoss or callable
        A callable may take pipelines and losses among its arguments, and nests of all it takes.
    torch, jax : mapping, optional
        Options for torch.compile, such as ``{"fullgraph": True}``, and for jax.jit.

    Returns
    -------
    Compiled or callable
        Of a pipeline or a loss a `Compiled`, which is used as they are; of a callable one with the same signature.
        Nothing is compiled before the first call.

    Raises
    ------
    TypeError
        If `target` is not callable or options are no mapping. When called: for arrays of two frameworks, and where JAX
        is to take something that is neither an array nor has a hash.

    Notes
    -----
    To JAX arrays and the weights of pipelines are arguments of the program, and everything else is a part of it: each
    other number, name or function compiles anew, and so does an array among a penalty's options. PyTorch compiles a
    number once more when it changes, and takes it for an argument from then on. So in a function of your own hand
    `pipeline.at(step)` over, or the step as an array, rather than a Python number.

    Under jax.grad and jax.vmap what is compiled stays compiled; inside of torch.compile and torch.func `target` is
    called as it is, and so it is while arrays of NumPy or CuPy are lent to another framework for their gradients.

    Examples
    --------
    >>> pipeline = compile(Pipeline([Penalty("l1", weight=lambda step: 0.1 * step), Penalty("l2")]))
    >>> x = np.asarray([1.0, -2.0])  # JAX's and PyTorch's arrays would compile
    >>> [round(float(pipeline(x, step=step)), 2) for step in range(3)]
    [5.0, 5.3, 5.6]
    >>> float(pipeline.with_weights(l1=1.0)(x))
    8.0
    >>> float(compile(kl_divergence)(np.log([0.5, 0.5]), np.log([0.5, 0.5])))
    0.0
    """
    for name, options in (("torch", torch), ("jax", jax)):
        if not (options is None or isinstance(options, Mapping)):
            raise TypeError(f"compile: `{name}` must be a mapping of options, got {options!r}. Pass a dict.")
    given = {"torch": torch or {}, "jax": jax or {}}
    if isinstance(target, Compiled):
        target = target.target
    if isinstance(target, (Pipeline, RegularizedLoss)):
        name = pipeline_of(target).name
        return Compiled(target, _Programs(name, _total, given), _Programs(name, _reported, given))
    if not callable(target):
        got = type(target).__qualname__
        raise TypeError(f"compile: `target` must be a Pipeline, a RegularizedLoss or a callable, got {got}. Pass one.")
    programs = _Programs(getattr(target, "__name__", type(target).__qualname__), target, given)

    @wraps(target)
    def compiled(*args: Any, **kwargs: Any) -> Any:
        backend = programs.backend((args, kwargs))
        return target(*args, **kwargs) if backend is None else programs.of(backend)(*args, **kwargs)

    return compiled


@node(leaves=("target",), static=("_total", "_reported"))
class Compiled:
    """A pipeline or loss that is compiled, see `compile`: called as it is, and like it immutable.

    Penalties run one after the other, and what they raise is raised: threads, timeouts and event loops are the
    uncompiled `target`'s.

    Attributes
    ----------
    target : Pipeline or RegularizedLoss
        What is compiled.

    Examples
    --------
    >>> pipeline = compile(Pipeline({"l1": 0.5, "l2": 2.0}))
    >>> total, report = pipeline.disable("l2").compute(np.asarray([1.0, -2.0]))
    >>> float(total), report.regularizers["l1"].weight
    (1.5, 0.5)
    """

    def __init__(self, target: Target, total: _Programs, reported: _Programs) -> None:
        self.target = target
        self._total = total
        self._reported = reported

    def __repr__(self) -> str:
        return f"compile({self.target!r})"

    def __call__(self, *inputs: Any, step: Any = None) -> Any:
        """The total, a 0-d array to differentiate.

        Parameters
        ----------
        *inputs, step
            As for `target`. Schedules and `every` are settled before the program for a step that is a number, and
            inside of it for an array of the inputs' framework.
        """
        backend = self._total.backend(self._given(inputs))
        if backend is None:
            return self.target(*inputs, step=step)
        target, step = settled(self.target, step, backend)
        return self._total.of(backend)(target, inputs, step)

    def compute(
        self,
        *inputs: Any,
        step: Any = None,
        track_grad_norms: bool = False,
        wrt: str | int | Iterable[str | int] | None = None,
        gradient_conflicts: bool = False,
    ) -> tuple[Any, Report]:
        """The total, to differentiate, and a `Report` of how it came about.

        Parameters
        ----------
        *inputs, step
            As for a call.
        track_grad_norms, wrt, gradient_conflicts
            As for `Pipeline.compute`.
        """
        backend = self._reported.backend(self._given(inputs))
        if isinstance(wrt, Iterable) and not isinstance(wrt, str):
            wrt = tuple(wrt)  # a set has no hash, and an iterator is another one each time
        how = (track_grad_norms, wrt, gradient_conflicts)
        if backend is None:
            return _reported(self.target, inputs, step, *how)
        target, step = settled(self.target, step, backend)
        total, report = self._reported.of(backend)(target, inputs, step, *how)
        return total, with_numbers(report, pipeline_of(target))

    def with_weights(self, weights: Mapping[str, Any] | None = None, /, **more: Any) -> Compiled:
        """The same with other weights, by name. Nothing compiles anew."""
        return self._with(pipeline_of(self.target).with_weights(weights, **more))

    def enable(self, *names: str) -> Compiled:
        """The same with these penalties taking part."""
        return self._with(pipeline_of(self.target).enable(*names))

    def disable(self, *names: str) -> Compiled:
        """The same with these penalties kept, but taking no part."""
        return self._with(pipeline_of(self.target).disable(*names))

    def add(self, penalty: Penalty) -> Compiled:
        """The same with one more penalty at the end."""
        return self._with(pipeline_of(self.target).add(penalty))

    def remove(self, *names: str) -> Compiled:
        """The same without these penalties."""
        return self._with(pipeline_of(self.target).remove(*names))

    def at(self, step: Any) -> Compiled:
        """The same with each schedule's weight at `step`."""
        return self._with(pipeline_of(self.target).at(step))

    def _given(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """What may be an array."""
        return (*(penalty.weight for penalty in pipeline_of(self.target)), *inputs)

    def _with(self, pipeline: Pipeline) -> Compiled:
        """One that shares what has been compiled."""
        return remade(self, target=with_pipeline(self.target, pipeline))


class _Programs:
    """A function, and what the frameworks have compiled of it."""

    def __init__(self, name: str, fn: Callable[..., Any], options: Mapping[str, Mapping[str, Any]]) -> None:
        self._name = name
        self._fn = fn
        self._options = options
        self._compiled: dict[str, Callable[..., Any]] = {}

    def backend(self, given: Any) -> Backend | None:
        """That of the arrays in what the function is given, where it compiles."""
        if in_dynamo() or are_lent():
            return None
        found: dict[str, Backend] = {}
        for leaf in flatten_of(given)[0]:
            backend = backend_of(leaf)
            if backend is not None and not isinstance(leaf, Real):  # NumPy's scalars are numbers
                found[backend.library] = backend
        if not any(backend.tracing.compiles() for backend in found.values()):
            return None
        if len(found) > 1:
            raise TypeError(
                f"{self._name}: the arrays must be of one framework to be compiled, got {' and '.join(sorted(found))}. "
                "Convert one of them first, with asarray or from_dlpack."
            )
        return next(iter(found.values()))

    def of(self, backend: Backend) -> Callable[..., Any]:
        """The function as `backend` compiles it."""
        if backend.library not in self._compiled:
            register_loaded()  # torch.compile would compile anew when another framework turns up
            self._compiled[backend.library] = _compiler(backend.library)(
                self._name, self._fn, self._options[backend.library]
            )
        return self._compiled[backend.library]


def _total(target: Target, inputs: tuple[Any, ...], step: Any) -> Any:
    return target(*inputs, step=step)


def _reported(
    target: Target, inputs: tuple[Any, ...], step: Any, track: bool, wrt: Any, conflicts: bool
) -> tuple[Any, Report]:
    return target.compute(*inputs, step=step, track_grad_norms=track, wrt=wrt, gradient_conflicts=conflicts)


def _compiler(library: str) -> Callable[..., Any]:
    """What compiles for a framework, imported where there is something to compile."""
    if library == "torch":
        from .torch import compiled
    else:
        from .jax import compiled
    return compiled
