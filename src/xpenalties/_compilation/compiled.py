"""Compile a pipeline, a loss or any function with the framework of the arrays that it is called with.

PyTorch and JAX both make Python values a part of the program: another value needs another compilation. So values that a
training loop changes (weights, schedules, steps) are converted to arrays, or computed outside the program.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from .._arrays.borrowed_autodiff import arrays_are_borrowed
from .._core.pytrees import node
from .._core.shown import shown
from .._penalties.parameters import HasParameters, Parameters
from .._pipeline.pipeline import Pipeline
from .._pipeline.regularized_loss import RegularizedLoss
from .._pipeline.wrt import checked_wrt, needs_graph
from .._reports.report import Report
from ..backends import Backend, backend_of, flatten_of, in_dynamo, is_numpy_number, register_loaded
from .schedules import HasTarget, Target, pipeline_of, replace_unchecked, resolve_at, with_numbers, with_pipeline

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
    """Compile `target` with torch.compile or jax.jit, depending on the arrays of a call.

    A pipeline's weights, schedules and steps may change without recompilation. If the arrays are NumPy's, or of another
    framework that does not compile, `target` is called as it is.

    Parameters
    ----------
    target : Pipeline, RegularizedLoss or callable
        The arguments of a callable may be pipelines, losses, arrays and trees of them.
    torch, jax : mapping, optional
        Options for torch.compile, such as ``{"fullgraph": True}``, and for jax.jit.

    Returns
    -------
    Compiled or callable
        For a pipeline or a loss, a `Compiled`, which you use in the same way. For a callable, a callable with the same
        signature. Nothing is compiled before the first call.

    Raises
    ------
    TypeError
        If `target` is not callable, or options are not a mapping. When called: if the arrays are of two frameworks or,
        on JAX, an argument is neither an array nor hashable.

    Notes
    -----
    On JAX, arrays and pipelines' weights are arguments of the program. Everything else is a part of it: a different
    number, name or function recompiles it, and so does a different array among a penalty's options. PyTorch recompiles
    once when a number changes, and treats it as an argument from then on. So pass `pipeline.at(step)` to your own
    function, or the step as an array, not as a Python number.

    Programs also run under jax.grad and jax.vmap. `target` is called as it is inside torch.compile and torch.func, and
    while another framework borrows arrays of NumPy or CuPy for their gradients.

    Examples
    --------
    >>> pipeline = xpen.compile(Pipeline([Penalty("l1", weight=lambda step: 0.1 * step), Penalty("l2")]))
    >>> x = np.asarray([1.0, -2.0])  # JAX's and PyTorch's arrays would compile
    >>> [round(float(pipeline(x, step=step)), 2) for step in range(3)]
    [5.0, 5.3, 5.6]
    >>> float(pipeline.with_weights(l1=1.0)(x))
    8.0
    >>> float(xpen.compile(kl_divergence)(np.log([0.5, 0.5]), np.log([0.5, 0.5])))
    0.0
    """
    for name, options in (("torch", torch), ("jax", jax)):
        if not (options is None or isinstance(options, Mapping)):
            raise TypeError(f"compile: `{name}` must be a mapping of options, got {shown(options)}. Pass a dict.")
    options_of = {"torch": torch or {}, "jax": jax or {}}
    if isinstance(target, Compiled):
        target = target.target
    if isinstance(target, (Pipeline, RegularizedLoss)):
        name = pipeline_of(target).name
        return Compiled(target, _Programs(name, _total, options_of), _Programs(name, _reported, options_of))
    if not callable(target):
        got = type(target).__qualname__
        raise TypeError(f"compile: `target` must be a Pipeline, a RegularizedLoss or a callable, got {got}. Pass one.")
    programs = _Programs(getattr(target, "__name__", type(target).__qualname__), target, options_of)

    @wraps(target)
    def compiled(*args: Any, **kwargs: Any) -> Any:
        backend = programs.backend((args, kwargs))
        return target(*args, **kwargs) if backend is None else programs.of(backend)(*args, **kwargs)

    return compiled


def _builder(method: Callable[Concatenate[Pipeline, P], Pipeline]) -> Callable[Concatenate[Compiled, P], Compiled]:
    """Make a method of `Compiled` from a method of `Pipeline` that returns a changed copy."""

    @wraps(method)
    def build(self: Compiled, /, *args: P.args, **kwargs: P.kwargs) -> Compiled:
        pipeline = method(pipeline_of(self.target), *args, **kwargs)
        return replace_unchecked(self, target=with_pipeline(self.target, pipeline))

    build.__signature__ = inspect.signature(method).replace(return_annotation="Compiled")  # type: ignore[attr-defined]
    return build


@node(leaves=("target",), static=("_total", "_reported"))
class Compiled(HasTarget, HasParameters):
    """A compiled pipeline or loss, see `compile`. You call it in the same way. It is immutable too.

    Penalties run one after another, and their errors are raised. For threads, timeouts and event loops, use the
    uncompiled `target`. `with_weights`, `enable`, `disable`, `add`, `remove` and `at` work as on `Pipeline`, and their
    results share the compiled programs.

    Attributes
    ----------
    target : Pipeline or RegularizedLoss
        The uncompiled pipeline or loss.

    Examples
    --------
    >>> pipeline = xpen.compile(Pipeline({"l1": 0.5, "l2": 2.0}))
    >>> total, report = pipeline.disable("l2").compute(np.asarray([1.0, -2.0]))
    >>> float(total), report.regularizers["l1"].weight
    (1.5, 0.5)
    """

    def __init__(self, target: Target, total: _Programs, reported: _Programs) -> None:
        self.target = target
        self._total = total
        self._reported = reported

    def __repr__(self) -> str:
        return f"Compiled: {self.target!r}"

    def __call__(self, *inputs: Any, step: Any = None) -> Any:
        """Return the total, a differentiable 0-d array.

        Parameters
        ----------
        *inputs, step
            As for `target`. If the step is a number, schedules and `every` are resolved before the program runs. If it
            is an array of the inputs' framework, they are resolved inside the program.
        """
        backend = self._total.backend(self._arrays(inputs))
        if backend is None:
            return self.target(*inputs, step=step)
        target, step = self._resolved(step, backend)
        return self._total.of(backend)(target, inputs, step)

    def compute(
        self,
        *inputs: Any,
        step: Any = None,
        track_grad_norms: bool = False,
        wrt: Any = None,
        gradient_conflicts: bool = False,
    ) -> tuple[Any, Report]:
        """Return the total, which is differentiable, and a `Report` of its parts.

        Parameters
        ----------
        *inputs, step
            As for a call.
        track_grad_norms, wrt, gradient_conflicts
            As for `Pipeline.compute`. A program is a function of its inputs. So steps that track gradients are not
            compiled if `wrt` holds arrays or a module. On PyTorch, the same holds if `wrt` names inputs, and one of the
            inputs was computed from others.
        """
        backend = self._reported.backend(self._arrays(inputs))
        wrt = checked_wrt(pipeline_of(self.target).name, wrt)  # hashable, and equal on the next call
        tracks = track_grad_norms or gradient_conflicts
        settings = (track_grad_norms, wrt if tracks else None, gradient_conflicts)
        if backend is None or (tracks and needs_graph(inputs, wrt)):
            return _reported(self.target, inputs, step, *settings)
        target, step = self._resolved(step, backend)
        total, report = self._reported.of(backend)(target, inputs, step, *settings)
        return total, with_numbers(report, pipeline_of(target))

    with_weights = _builder(Pipeline.with_weights)
    enable = _builder(Pipeline.enable)
    disable = _builder(Pipeline.disable)
    add = _builder(Pipeline.add)
    remove = _builder(Pipeline.remove)
    at = _builder(Pipeline.at)

    def _call_parameters(self) -> Parameters:
        """Return the parameters of `target`."""
        return self.target._call_parameters()

    def _arrays(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return everything that may hold arrays: weights and inputs."""
        return (*(penalty.weight for penalty in pipeline_of(self.target)), *inputs)

    def _resolved(self, step: Any, backend: Backend) -> tuple[Target, Any]:
        """Return the target and step to pass to the program. Numeric steps are resolved here and become None."""
        step_backend = backend_of(step)
        if step_backend is not None and step_backend.library == backend.library:
            return self.target, step
        return resolve_at(self.target, step), None


class _Programs:
    """A function, and its compiled program for each framework."""

    def __init__(self, name: str, fn: Callable[..., Any], options: Mapping[str, Mapping[str, Any]]) -> None:
        self._name = name
        self._fn = fn
        self._options = options
        self._compiled: dict[str, Callable[..., Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_compiled": {}}  # programs cannot be pickled, so another process compiles its own

    def __deepcopy__(self, memo: dict[int, Any]) -> _Programs:
        return self  # a copy in this process uses the same programs

    def backend(self, arguments: Any) -> Backend | None:
        """Return the backend that compiles for these arguments, or None to call the function as it is."""
        if in_dynamo() or arrays_are_borrowed():
            return None
        backends: dict[str, Backend] = {}
        for leaf in flatten_of(arguments)[0]:
            backend = backend_of(leaf)
            if backend is not None and not is_numpy_number(leaf):
                backends[backend.library] = backend
        if not any(backend.tracing.compiles() for backend in backends.values()):
            return None
        if len(backends) > 1:
            raise TypeError(
                f"{self._name}: the arrays must be of one framework to be compiled, got "
                f"{' and '.join(sorted(backends))}. Convert one of them first, with asarray or from_dlpack."
            )
        return next(iter(backends.values()))

    def of(self, backend: Backend) -> Callable[..., Any]:
        """Return the program of a backend, compiled when it is first called."""
        if backend.library not in self._compiled:
            register_loaded()  # or torch.compile recompiles once another framework is registered
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
    """Import and return the compiler of a framework."""
    if library == "torch":
        from .torch import compiled
    else:
        from .jax import compiled
    return compiled
