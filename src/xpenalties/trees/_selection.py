"""Which leaves of a nest something is for: floating-point arrays, by patterns of their paths."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._core.checks import nearest
from .._core.pytrees import Rebuild
from ..backends import backend_of, common_backend, flatten_with_paths_of

__all__ = ["Given", "Patterns", "Selected", "Selection", "as_nest", "beside", "unique"]

Given = str | Iterable[str] | None


@dataclass(frozen=True)
class Selection:
    """What `match` and `exclude` pick out of a nest, see `OverTree.explain`."""

    #: The paths that are in, and the shapes of what is there.
    selected: Mapping[str, tuple[int, ...]]
    #: The paths that are not, and why.
    left_out: Mapping[str, str]
    #: The patterns that match nothing.
    unused: tuple[str, ...]

    def __str__(self) -> str:
        rows = [(path, f"selected, {shape}") for path, shape in self.selected.items()]
        rows += self.left_out.items()
        rows += [(repr(pattern), "matches nothing") for pattern in self.unused]
        width = max((len(path) for path, _ in rows), default=0)
        return "\n".join(f"{path:{width}}  {what}" for path, what in rows)


class Selected(NamedTuple):
    """A nest taken apart."""

    leaves: list[Any]
    rebuild: Rebuild
    paths: list[str]
    places: list[int]  # of the leaves that are selected

    def chosen(self) -> list[Any]:
        """The leaves that are selected."""
        return [self.leaves[i] for i in self.places]

    def replaced(self, new: Iterable[Any]) -> Any:
        """The nest with others in the places of those that are selected."""
        leaves = list(self.leaves)
        for i, leaf in zip(self.places, new, strict=True):
            leaves[i] = leaf
        return self.rebuild(iter(leaves))


@dataclass(frozen=True)
class Patterns:
    """Regular expressions of paths; of strings alone, so that two are equal by value and can be pickled."""

    match: tuple[str, ...] | None
    exclude: tuple[str, ...]

    @classmethod
    def of(cls, caller: str, match: Given, exclude: Given) -> Patterns:
        """Checked: each is a regular expression."""
        found = _checked(caller, "exclude", exclude)
        return cls(None if match is None else _checked(caller, "match", match), found)

    def select(self, caller: str, argument: str, nest: Any) -> Selected:
        """The leaves that are meant, one at least; each pattern must match something."""
        selected, reasons = self._selected(caller, argument, nest)
        self._check(caller, argument, selected.paths)
        if not selected.places:
            why = "; ".join(f"{path or 'it'}: {reason}" for path, reason in list(reasons.items())[:5]) or "it is empty"
            raise ValueError(
                f"{caller}: `{argument}` must hold a floating-point array to select, got none ({why}). "
                "Pass a nest of arrays: dict(model.named_parameters()) of PyTorch's, or a pytree."
            )
        return selected

    def find(self, caller: str, argument: str, nest: Any) -> Selected:
        """The leaves that are meant, if there are any."""
        return self._selected(caller, argument, nest)[0]

    def check(self, caller: str, argument: str, nest: Any) -> None:
        """Each pattern must match something, unless there is nothing."""
        paths = flatten_with_paths_of(as_nest(nest))[2]
        if paths:
            self._check(caller, argument, paths)

    def _check(self, caller: str, argument: str, paths: list[str]) -> None:
        unused = self._unused(paths)
        if unused:
            raise ValueError(
                f"{caller}: each pattern must match a path in `{argument}`, got {unused[0]!r}, which matches none of "
                f"{_listed(paths)}.{nearest(unused[0], paths)}"
            )

    def _selected(self, caller: str, argument: str, nest: Any) -> tuple[Selected, dict[str, str]]:
        leaves, rebuild, paths = flatten_with_paths_of(as_nest(nest))
        for leaf, path in zip(leaves, paths, strict=True):
            _refuse(caller, argument, leaf, path)
        places, reasons = self._places(leaves, paths)
        if places:
            common_backend(caller, [paths[i] or argument for i in places], [leaves[i] for i in places])
        return Selected(leaves, rebuild, paths, places), reasons

    def explain(self, nest: Any) -> Selection:
        """What would be selected, without an error where that is nothing."""
        leaves, _, paths = flatten_with_paths_of(as_nest(nest))
        unique("explain", "tree", paths)
        places, reasons = self._places(leaves, paths)
        shapes = {paths[i]: tuple(leaves[i].shape) for i in places}
        return Selection(shapes, reasons, tuple(self._unused(paths)))

    def _places(self, leaves: list[Any], paths: list[str]) -> tuple[list[int], dict[str, str]]:
        """The positions of what is selected, and the paths of the rest with the reason."""
        places, reasons = [], {}
        for i, (leaf, path) in enumerate(zip(leaves, paths, strict=True)):
            reason = self._reason(leaf, path)
            if reason is None:
                places.append(i)
            else:
                reasons[path] = reason
        return places, reasons

    def _reason(self, leaf: Any, path: str) -> str | None:
        """Why a leaf is left out; None: it is not."""
        backend = backend_of(leaf)
        if backend is None:
            return f"no array, {type(leaf).__qualname__}"
        if backend.dtype(leaf.dtype).kind in ("bool", "other"):
            return f"not floating-point, {leaf.dtype}"
        if self.match is not None and not any(re.search(pattern, path) for pattern in self.match):
            return "matches no pattern"
        excluded = next((pattern for pattern in self.exclude if re.search(pattern, path)), None)
        return None if excluded is None else f"excluded by {excluded!r}"

    def _unused(self, paths: list[str]) -> list[str]:
        given = (*(self.match or ()), *self.exclude)
        return [pattern for pattern in given if not any(re.search(pattern, path) for path in paths)]


def _refuse(caller: str, argument: str, leaf: Any, path: str) -> None:
    """An error for what holds numbers that this package does not see."""
    backend = backend_of(leaf)
    if backend is None:
        unseen = isinstance(leaf, Iterator) or hasattr(leaf, "__array__") or hasattr(type(leaf), "named_parameters")
    else:
        unknown = backend.dtype(leaf.dtype).kind == "other" and getattr(leaf.dtype, "kind", "") == "V"
        unseen = unknown and leaf.dtype.itemsize > 0  # NumPy's bfloat16, which others have; not JAX's float0
    if unseen:
        got = f"{type(leaf).__module__}.{type(leaf).__qualname__}" if backend is None else leaf.dtype
        raise TypeError(
            f"{caller}: `{argument}` must be a nest of arrays of one framework, got {got} at {path!r}. Pass what it "
            "holds as a dict or list of arrays: dict(model.named_parameters()) of PyTorch's."
        )


def beside(caller: str, selected: Selected, other: Any, argument: str) -> list[Any]:
    """What another nest has at the paths that are selected."""
    leaves, _, paths = flatten_with_paths_of(as_nest(other))
    if paths == selected.paths:  # as almost always; and there may be two of the same path
        return [leaves[i] for i in selected.places]
    unique(caller, argument, paths)
    unique(caller, "the first tree", selected.paths)
    found = dict(zip(paths, leaves, strict=True))
    for path in (selected.paths[i] for i in selected.places):
        if path not in found:
            raise ValueError(
                f"{caller}: `{argument}` must have {path!r} too, got {_listed([*found])}.{nearest(path, found)}"
            )
    return [found[selected.paths[i]] for i in selected.places]


def unique(caller: str, argument: str, paths: list[str]) -> None:
    """An error where leaves cannot be told apart by their paths."""
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(f"{caller}: paths must be unique, got {twice!r} twice in `{argument}`. Rename a key.")


def as_nest(tree: Any) -> Any:
    """`tree`; of a module of PyTorch's or Flax's nnx its parameters by name, each once."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(tree, nnx.Module):
        return nnx.state(tree, nnx.Param)
    if isinstance(tree, Mapping) or not callable(getattr(type(tree), "named_parameters", None)):
        return tree
    return dict(tree.named_parameters())


def _checked(caller: str, name: str, given: Given) -> tuple[str, ...]:
    patterns = () if given is None else (given,) if isinstance(given, str) else given
    if not isinstance(patterns, Iterable) or isinstance(patterns, bytes):
        raise TypeError(f"{caller}: `{name}` must be a regular expression or several, got {given!r}. Pass a str.")
    found = tuple(patterns)
    for pattern in found:
        if not isinstance(pattern, str):
            raise TypeError(f"{caller}: `{name}` must be a regular expression or several, got {pattern!r}. Pass a str.")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"{caller}: `{name}` must be a regular expression, got {pattern!r}: {error}. Escape what is meant "
                "literally, with re.escape."
            ) from None
    if given is not None and not found:
        raise ValueError(f"{caller}: `{name}` must have a pattern, got none. Leave it out.")
    return found


def _listed(paths: list[str]) -> str:
    shown = ", ".join(map(repr, paths[:8])) or "no paths"
    return shown if len(paths) <= 8 else f"{shown} and {len(paths) - 8} more"
