"""Find the parameters of modules of a type, by path."""

from __future__ import annotations

import re
from typing import Any

from .._core.shown import shown
from ..backends import instances_in, parameters_of

__all__ = ["paths_within"]


def paths_within(model: Any, types: type | tuple[type, ...]) -> str:
    """Return a regular expression for the paths of all parameters within modules of a type.

    Pass it as `match` or `exclude` to a penalty over trees or a transform, or as the `path` of a `Pattern`.

    Parameters
    ----------
    model : module or pytree
        A PyTorch module, a Flax nnx module, an Equinox module, or a tree of dataclasses. Parameters of Flax Linen do
        not work: they are dicts, which do not contain the modules.
    types : type or tuple of type
        Classes of modules, such as ``torch.nn.LayerNorm``. Parameters of modules inside these count too.

    Returns
    -------
    str

    Raises
    ------
    TypeError
        If `types` is not a class or a tuple of classes.
    ValueError
        If `model` has no such module, or the modules have no parameters.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    >>> norms = trees.paths_within(model, torch.nn.LayerNorm)
    >>> decay = trees.over_tree("l2", exclude=norms)
    >>> list(decay.explain(model).selected)
    ['0.weight', '0.bias']
    """
    classes = types if isinstance(types, tuple) else (types,)
    if not classes or not all(isinstance(each, type) for each in classes):
        raise TypeError(
            f"paths_within: `types` must be a class or a tuple of classes, got {shown(types)}. Pass a class."
        )
    is_torch = hasattr(type(model), "named_modules") and hasattr(type(model), "named_parameters")
    paths = _of_torch(model, classes) if is_torch else instances_in(model, classes)
    if not paths:
        names = " or ".join(each.__qualname__ for each in classes)
        raise ValueError(
            f"paths_within: `model` must have modules of type {names} with parameters, got none in "
            f"{type(model).__qualname__}. Pass the model that has them, or match paths."
        )
    if "" in paths:  # the model itself
        return ""
    end = "$" if is_torch else r"(?:\.|$)"
    return f"^(?:{'|'.join(map(re.escape, paths))}){end}"


def _of_torch(model: Any, classes: tuple[Any, ...]) -> list[str]:
    """Return the paths of parameters. A shared parameter has the path that `parameters_of` returns."""
    modules = [module for module in model.modules() if isinstance(module, classes)]
    within = {id(param) for module in modules for param in module.parameters()}
    return [path for path, param in parameters_of(model).items() if id(param) in within]
