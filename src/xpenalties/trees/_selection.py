"""Select leaves of a tree that are floating-point arrays, by regular expressions for their paths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._core.pytrees import Rebuild
from .._core.shown import listed, shorten, shown
from .._core.suggestions import did_you_mean
from ..backends import backend_of, common_backend, flatten_with_paths_of, parameters_of

__all__ = ["Patterns", "PatternsLike", "Selected", "Selection", "as_nest", "check_pattern", "check_unique", "leaves_at"]

PatternsLike = str | Iterable[str] | None  # the options `match` and `exclude`


@dataclass(frozen=True)
class Selection:
    """The leaves of a tree that `match` and `exclude` select, and why others are left out. See `OverTree.explain`."""

    #: Shapes of the selected leaves, by path.
    selected: Mapping[str, tuple[int, ...]]
    #: Reasons why the other leaves are left out, by path.
    left_out: Mapping[str, str]
    #: Patterns that match nothing.
    unused: tuple[str, ...]

    def __str__(self) -> str:
        rows = [(path, f"selected, {shape}") for path, shape in self.selected.items()]
        rows += self.left_out.items()
        rows += [(repr(pattern), "matches nothing") for pattern in self.unused]
        width = max((len(path) for path, _ in rows), default=0)
        return "\n".join(f"{path:{width}}  {what}" for path, what in rows)


class Selected(NamedTuple):
    """A flattened tree, and which of its leaves are selected."""

    leaves: list[Any]
    rebuild: Rebuild
    paths: list[str]
    indices: list[int]  # of the selected leaves

    def arrays(self) -> list[Any]:
        """Return the selected leaves."""
        return [self.leaves[i] for i in self.indices]

    def array_paths(self) -> list[str]:
        """Return the paths of the selected leaves."""
        return [self.paths[i] for i in self.indices]

    def replaced(self, arrays: Iterable[Any]) -> Any:
        """Return the tree with `arrays` in place of the selected leaves."""
        leaves = list(self.leaves)
        for i, array in zip(self.indices, arrays, strict=True):
            leaves[i] = array
        return self.rebuild(iter(leaves))


@dataclass(frozen=True)
class Patterns:
    """Regular expressions for paths. They stay strings, so that they can be compared and pickled."""

    match: tuple[str, ...] | None
    exclude: tuple[str, ...]

    @classmethod
    def of(cls, caller: str, match: PatternsLike, exclude: PatternsLike) -> Patterns:
        """Make patterns of the options `match` and `exclude`, and check that they are regular expressions."""
        excluded = _checked(caller, "exclude", exclude)
        return cls(None if match is None else _checked(caller, "match", match), excluded)

    def select(self, caller: str, argument: str, tree: Any) -> Selected:
        """Select at least one leaf. Each pattern must match a path."""
        selected, reasons = self._selected(caller, argument, tree)
        self._check_used(caller, argument, selected.paths)
        if not selected.indices:
            why = "; ".join(f"{path or 'it'}: {reason}" for path, reason in list(reasons.items())[:5]) or "it is empty"
            raise ValueError(
                f"{caller}: `{argument}` must hold a floating-point array to select, got none ({why}). "
                "Pass a tree of arrays: a pytree, or for a PyTorch module dict(model.named_parameters())."
            )
        return selected

    def find(self, caller: str, argument: str, tree: Any) -> Selected:
        """Select leaves, possibly none."""
        return self._selected(caller, argument, tree)[0]

    def check(self, caller: str, argument: str, tree: Any) -> None:
        """Check that each pattern matches a path, unless the tree is empty."""
        paths = flatten_with_paths_of(as_nest(tree))[2]
        if paths:
            self._check_used(caller, argument, paths)

    def explain(self, tree: Any) -> Selection:
        """Describe the selection. Unlike `select`, allow that nothing is selected."""
        leaves, _, paths = flatten_with_paths_of(as_nest(tree))
        check_unique("explain", "tree", paths)
        indices, reasons = self._partition(leaves, paths)
        shapes = {paths[i]: tuple(leaves[i].shape) for i in indices}
        return Selection(shapes, reasons, tuple(self._unused(paths)))

    def _selected(self, caller: str, argument: str, tree: Any) -> tuple[Selected, dict[str, str]]:
        leaves, rebuild, paths = flatten_with_paths_of(as_nest(tree))
        for leaf, path in zip(leaves, paths, strict=True):
            _check_visible(caller, argument, leaf, path)
        indices, reasons = self._partition(leaves, paths)
        if indices:
            common_backend(caller, [paths[i] or argument for i in indices], [leaves[i] for i in indices])
        return Selected(leaves, rebuild, paths, indices), reasons

    def _partition(self, leaves: list[Any], paths: list[str]) -> tuple[list[int], dict[str, str]]:
        """Return the indices of the selected leaves, and the reasons why the others are left out, by path."""
        indices, reasons = [], {}
        for i, (leaf, path) in enumerate(zip(leaves, paths, strict=True)):
            reason = self._reason(leaf, path)
            if reason is None:
                indices.append(i)
            else:
                reasons[path] = reason
        return indices, reasons

    def _reason(self, leaf: Any, path: str) -> str | None:
        """Return why a leaf is left out, or None if it is selected."""
        backend = backend_of(leaf)
        if backend is None:
            return f"not an array, {type(leaf).__qualname__}"
        if backend.dtype(leaf.dtype).kind in ("bool", "other"):
            return f"not floating-point, {leaf.dtype}"
        if self.match is not None and not any(re.search(pattern, path) for pattern in self.match):
            return "matches no pattern"
        excluded = next((pattern for pattern in self.exclude if re.search(pattern, path)), None)
        return None if excluded is None else f"excluded by {excluded!r}"

    def _check_used(self, caller: str, argument: str, paths: list[str]) -> None:
        unused = self._unused(paths)
        if unused:
            raise ValueError(
                f"{caller}: each pattern must match a path in `{argument}`, got {shown(unused[0])}, "
                "which matches none of "
                f"{_listed(paths)}.{did_you_mean(unused[0], paths)}"
            )

    def _unused(self, paths: list[str]) -> list[str]:
        patterns = (*(self.match or ()), *self.exclude)
        return [pattern for pattern in patterns if not any(re.search(pattern, path) for path in paths)]


def _check_visible(caller: str, argument: str, leaf: Any, path: str) -> None:
    """Refuse a leaf that holds numbers in a form that this package cannot read."""
    backend = backend_of(leaf)
    if backend is None:
        unseen = isinstance(leaf, Iterator) or hasattr(leaf, "__array__") or hasattr(type(leaf), "named_parameters")
    else:
        unknown = backend.dtype(leaf.dtype).kind == "other" and getattr(leaf.dtype, "kind", "") == "V"
        unseen = unknown and leaf.dtype.itemsize > 0  # another library's bfloat16 in NumPy; not JAX's float0
    if unseen:
        got = f"{type(leaf).__module__}.{type(leaf).__qualname__}" if backend is None else leaf.dtype
        raise TypeError(
            f"{caller}: `{argument}` must be a tree of arrays of one framework, got {got} at {shown(path)}. "
            "Pass what it "
            "holds as a dict or list of arrays, such as dict(model.named_parameters())."
        )


def leaves_at(caller: str, selected: Selected, other: Any, argument: str) -> list[Any]:
    """Return the leaves of another tree at the selected paths."""
    leaves, _, paths = flatten_with_paths_of(as_nest(other))
    if paths == selected.paths:  # the usual case, and the only one in which two leaves may have the same path
        return [leaves[i] for i in selected.indices]
    check_unique(caller, argument, paths)
    check_unique(caller, "the first tree", selected.paths)
    by_path = dict(zip(paths, leaves, strict=True))
    for path in selected.array_paths():
        if path not in by_path:
            raise ValueError(
                f"{caller}: `{argument}` must have {shown(path)} too, got {_listed([*by_path])}."
                + did_you_mean(path, by_path)
            )
    return [by_path[path] for path in selected.array_paths()]


def check_unique(caller: str, argument: str, paths: list[str]) -> None:
    """Check that no two leaves have the same path."""
    if len(set(paths)) < len(paths):
        twice = next(path for path, count in Counter(paths).items() if count > 1)
        raise ValueError(f"{caller}: paths must be unique, got {shown(twice)} twice in `{argument}`. Rename a key.")


def as_nest(tree: Any) -> Any:
    """Return the parameters of a PyTorch or Flax nnx module by name, shared ones once; any other tree unchanged."""
    return parameters_of(tree)


def _checked(caller: str, name: str, option: PatternsLike) -> tuple[str, ...]:
    values = () if option is None else (option,) if isinstance(option, str) else option
    if not isinstance(values, Iterable) or isinstance(values, bytes):
        raise TypeError(f"{caller}: `{name}` must be a regular expression or several, got {shown(option)}. Pass a str.")
    patterns = tuple(values)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(
                f"{caller}: `{name}` must be a regular expression or several, got {shown(pattern)}. Pass a str."
            )
        check_pattern(caller, f"`{name}`", pattern)
    if option is not None and not patterns:
        raise ValueError(f"{caller}: `{name}` must have a pattern, got none. Leave it out.")
    return patterns


def check_pattern(caller: str, argument: str, pattern: str) -> None:
    """Check that a string is a regular expression."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:  # too many repetitions, too many groups in each other
        why = "its groups are nested too deeply" if isinstance(error, RecursionError) else shorten(str(error))
        raise ValueError(
            f"{caller}: {argument} must be a regular expression, got {shown(pattern)}: {why}. Escape what is meant "
            "literally, with re.escape."
        ) from None


def _listed(paths: list[str]) -> str:
    if not paths:
        return "no paths"
    return listed(paths) if len(paths) <= 8 else f"{listed(paths[:8])} and {len(paths) - 8} more"
