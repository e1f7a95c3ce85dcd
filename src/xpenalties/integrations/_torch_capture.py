"""Capture the outputs of a PyTorch model's modules by name, through their hooks."""

from __future__ import annotations

import re
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType
from typing import Any

import torch

from .._core.shown import shown
from .._core.suggestions import did_you_mean
from ..trees._patterns import check_path

__all__ = ["Capture", "capture", "paths_of"]


def capture(model: torch.nn.Module, names: Mapping[str, str] | str | Iterable[str]) -> Capture:
    """Capture the outputs of a model's modules by name, as inputs of a pipeline.

    Parameters
    ----------
    model : torch.nn.Module
        The outermost module that you call. The captured outputs are those of its latest call.
    names : mapping of str to str, or one or more str
        Names, mapped to paths of modules as in `model.named_modules`. Or regular expressions that select paths. Then
        the paths are the names.

    Returns
    -------
    Capture
        A mapping of names to outputs, and a context manager that adds hooks to the modules and removes them on exit.

    Raises
    ------
    TypeError, ValueError
        If the model or the names have a wrong type, a path does not exist, or a pattern matches nothing.

    Notes
    -----
    If a model is compiled, keep one capture open over the whole run. Entering a capture makes torch.compile compile
    this model again, and all compiled models that use the same classes. Outputs that `torch.utils.checkpoint`
    recomputes in the backward pass are not captured twice. Pass it ``use_reentrant=False``: otherwise captured outputs
    have no gradients. Under autocast, outputs have its dtype. If you copy a capture together with its model, it
    captures outputs of the copied model. If you copy the model alone, nothing captures the copy.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> pipe = Pipeline([Penalty("l1", inputs="hidden", weight=0.1)])
    >>> with capture(model, {"hidden": "1"}) as activities:
    ...     output = model(torch.ones(4, 2))
    ...     total = pipe(activities)
    >>> activities["hidden"].shape
    torch.Size([4, 3])
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"capture: `model` must be a torch.nn.Module, got {type(model).__qualname__}. Pass one.")
    return Capture(model, paths_of(model, names))


def paths_of(model: torch.nn.Module, names: Mapping[str, str] | str | Iterable[str]) -> dict[str, str]:
    """Resolve the `names` of `capture` to a mapping of names to paths of modules."""
    paths = dict(model.named_modules())
    if isinstance(names, Mapping):
        chosen = {name: _checked_path(path, paths) for name, path in names.items()}
    else:
        chosen = _matched([names] if isinstance(names, str) else list(names), paths)
    if not chosen:
        raise ValueError("capture: `names` must name a module, got none. Pass names and paths.")
    return chosen


def _checked_path(path: str, paths: Mapping[str, Any]) -> str:
    if path not in paths:
        raise ValueError(f"capture: `names` must have paths of modules, got {shown(path)}.{did_you_mean(path, paths)}")
    return path


def _matched(patterns: list[str], paths: Mapping[str, Any]) -> dict[str, str]:
    matched: dict[str, str] = {}
    for pattern in patterns:
        check_path("capture", "each of `names`", pattern)
        matching = [path for path in paths if path and re.search(pattern, path)]
        if not matching:
            raise ValueError(
                f"capture: each of `names` must match a path of a module, got {shown(pattern)}."
                + did_you_mean(pattern, paths)
            )
        matched.update(zip(matching, matching, strict=True))
    return matched


def _forget_compiled(model: torch.nn.Module) -> None:
    """Make torch.compile compile a model again. Code that is compiled already does not call hooks that are new."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None:  # nothing is compiled yet
        return
    functions = [getattr(module, name) for module in model.modules() for name in ("forward", "_call_impl")]
    codes = {getattr(function, "__code__", None) for function in functions} - {None}
    # torch.compile wraps modules of torch.nn in a function that `wrap_inline` defines
    around = dynamo.external_utils.wrap_inline.__code__.co_consts
    for code in codes.union(const for const in around if isinstance(const, CodeType)):
        dynamo.reset_code(code)


class _Hook:
    """A hook that calls a method of a capture, if the capture still exists.

    If a model is copied together with its capture, the copied hooks call the copied capture. If it is copied alone,
    nothing else refers to the copied capture, and the copied hooks do nothing.
    """

    def __init__(self, capture: Capture | None, method: str, *args: str) -> None:
        self._capture = (lambda: None) if capture is None else weakref.ref(capture)
        self._method = method
        self._args = args

    def __call__(self, *called: Any) -> None:
        capture = self._capture()
        if capture is not None:
            getattr(capture, self._method)(*self._args, *called)

    def __reduce__(self) -> Any:
        return _Hook, (self._capture(), self._method, *self._args)


class Capture(Mapping[str, Any]):
    """The outputs of modules in the latest call of a model, by name, see `capture`."""

    def __init__(self, model: torch.nn.Module, paths: Mapping[str, str], *, own: bool = True) -> None:
        self._model = model
        self._own = own  # if True, the model's hooks call `begin` and `end`; else the user does
        self._paths = dict(paths)
        self._modules: dict[str, Any] = {}
        self._outputs: dict[str, list[Any]] = {name: [] for name in paths}
        self._recording = False
        self._handles: list[Any] = []

    def __enter__(self) -> Capture:
        if self._handles:
            raise RuntimeError("capture: must not be entered twice. Make another one.")
        _forget_compiled(self._model)
        modules = dict(self._model.named_modules())
        self._modules = {name: modules[path] for name, path in self._paths.items()}
        if self._own:
            self._handles.append(self._model.register_forward_pre_hook(_Hook(self, "_model_called")))
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(_Hook(self, "_called", name)))
        if self._own:
            self._handles.append(self._model.register_forward_hook(_Hook(self, "_model_done")))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __getstate__(self) -> dict[str, Any]:
        # no outputs: their autograd graphs cannot be copied or pickled
        return {**vars(self), "_outputs": {name: [] for name in self._paths}, "_recording": False}

    def begin(self) -> None:
        """Forget the outputs so far, and start recording."""
        for name in self._paths:
            self._outputs[name] = []
        self._recording = True

    def end(self) -> None:
        """Stop recording, so that outputs recomputed for gradients are not recorded again."""
        self._recording = False

    def _model_called(self, module: Any, args: Any) -> None:
        if module is self._model:
            self.begin()

    def _model_done(self, module: Any, args: Any, output: Any) -> None:
        if module is self._model:
            self.end()

    def _called(self, name: str, module: Any, args: Any, output: Any) -> None:
        if self._recording and module is self._modules[name]:
            self._outputs[name].append(output)

    def seen(self) -> dict[str, Any]:
        """Return the outputs of the modules that were called: one output, or a tuple if there were several calls."""
        called = {name: tuple(outputs) for name, outputs in self._outputs.items() if outputs}
        return {name: outputs[0] if len(outputs) == 1 else outputs for name, outputs in called.items()}

    def calls(self, name: str) -> list[Any]:
        """Return the outputs of a module that was called several times, in order."""
        if name not in self._outputs:
            raise KeyError(name)
        return list(self._outputs[name])

    def __getitem__(self, name: str) -> Any:
        outputs = self.calls(name)
        if len(outputs) != 1:
            remedy = "Get all of them with `calls`." if outputs else "Call the model that is captured first."
            raise ValueError(
                f"capture: {name!r} must have been called once in the latest call of the model, got {len(outputs)} "
                f"calls. {remedy}"
            )
        return outputs[0]

    def __contains__(self, name: object) -> bool:
        return name in self._paths  # even if it has not been called

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
