"""The `inputs` of a penalty: check them, and pick the arguments of its function from those of the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._core.registry import RESERVED
from .._core.shown import listed, shown
from .._core.suggestions import nearest
from .._penalties.spec import spec_of

__all__ = ["Inputs", "Source", "callables_in", "check_count", "checked_inputs", "input_of", "missing_input", "names_in"]

#: The name of an input, or a callable that picks it from the arguments of the pipeline.
Source = str | Callable[..., Any]
Inputs = None | str | tuple[str, ...] | Mapping[str, Source] | Callable[..., Any]


def checked_inputs(name: str, inputs: Any) -> Any:
    """Check the types of a penalty's inputs. Return names as a tuple, and a mapping as a new dict."""
    if inputs is None or isinstance(inputs, str) or (callable(inputs) and not isinstance(inputs, Mapping)):
        return inputs
    if isinstance(inputs, Mapping):
        pairs = dict(inputs)
        if not pairs:
            raise ValueError(f"penalty {shown(name)}: `inputs` must not be an empty mapping. Leave it out.")
        for key, source in pairs.items():
            if not isinstance(key, str) or not (isinstance(source, str) or callable(source)):
                raise TypeError(
                    f"penalty {shown(name)}: `inputs` must map names of parameters to names of inputs or callables, "
                    f"got {shown(key)}: {shown(source)}. Pass strings."
                )
        return pairs
    names = tuple(inputs) if isinstance(inputs, Iterable) else (inputs,)
    if not all(isinstance(key, str) for key in names):
        raise TypeError(
            f"penalty {shown(name)}: `inputs` must be names or a callable, got {shown(inputs)}. Pass strings."
        )
    return names


def names_in(inputs: Inputs) -> tuple[str, ...]:
    """Return the names of inputs, in order."""
    if isinstance(inputs, str):
        return (inputs,)
    if isinstance(inputs, Mapping):
        return tuple(source for source in inputs.values() if isinstance(source, str))
    return inputs if isinstance(inputs, tuple) else ()


def callables_in(inputs: Inputs) -> tuple[Callable[..., Any], ...]:
    """Return the callables that pick inputs."""
    if isinstance(inputs, Mapping):
        return tuple(source for source in inputs.values() if callable(source))
    return (inputs,) if callable(inputs) else ()


def input_of(penalty: str, source: Source, given: tuple[Any, ...]) -> Any:
    """Return one input of the penalty called `penalty`, from `given`, the arguments of the pipeline."""
    if callable(source):
        return source(*given)
    if len(given) != 1 or not isinstance(given[0], Mapping):
        kinds = ", ".join(type(argument).__qualname__ for argument in given)
        raise TypeError(
            f"penalty {shown(penalty)}: named `inputs` need one mapping, got {kinds}. Pass a dict of arrays."
        )
    if source not in given[0]:
        raise missing_input(f"penalty {shown(penalty)}", source, given[0])
    return given[0][source]


def check_count(penalty: str, fn: Any, given: tuple[Any, ...]) -> None:
    """Check that a built-in penalty takes as many inputs as the pipeline got."""
    spec = spec_of(fn)
    if spec is None or len(given) == len(spec.functions) + len(spec.arrays) or penalty in RESERVED:
        return
    takes = (*spec.functions, *spec.arrays)
    if len(given) == 1 and isinstance(given[0], Mapping):
        remedy = f"Name them with inputs=. The names are {listed(given[0])}"
    elif len(given) > len(takes):
        names = [f"x{i}" for i in range(len(given))]
        picked = ", ".join(names[: len(takes)])
        function = f"lambda {', '.join(names)}: {f'({picked})' if takes[1:] else picked}"
        remedy = f"Choose with inputs=, such as inputs={function}"
    else:
        remedy = f"Pass {len(takes)}"
    raise TypeError(
        f"penalty {shown(penalty)}: takes {_inputs(len(takes))} ({', '.join(takes)}), but the pipeline got "
        f"{_inputs(len(given))}. {remedy}."
    )


def _inputs(count: int) -> str:
    return f"{count} input{'s' * (count != 1)}"


def missing_input(user: str, name: str, names: Iterable[object], argument: str = "") -> ValueError:
    """Return the error for an input that is not there. Either name may be misspelled.

    `argument` is the name of the argument that takes a mapping of inputs, if the caller has one.
    """
    names = list(names)
    near = nearest(name, names)
    remedy = f"Pass {argument}={{{shown(name)}: ...}}." if argument else "Pass it."
    if near is not None:
        remedy = f"Rename {near!r} or {shown(name)}."
    return ValueError(f"{user} asks for the input {shown(name)}. The inputs are {listed(names)}. {remedy}")
