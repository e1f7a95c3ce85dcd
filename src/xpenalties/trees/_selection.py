"""Select leaves of a tree that are floating-point arrays, by patterns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from .._arrays.numerics import at_least_float32, stop_gradient
from .._core.pytrees import Rebuild
from .._core.shown import listed, shown
from .._core.suggestions import did_you_mean
from ..backends import backend_of, common_backend, flatten_with_paths_of, parameters_of
from ._patterns import Pattern, PatternsLike, as_patterns

__all__ = [
    "Patterns",
    "PatternsLike",
    "Selected",
    "Selection",
    "as_nest",
    "check_unique",
    "check_visible",
    "leaves_at",
    "values_at",
]


@dataclass(frozen=True)
class Selection:
    """The leaves of a tree that `match` and `exclude` select, and why others are left out. See `OverTree.explain`."""

    #: Shapes of the selected leaves, by path.
    selected: Mapping[str, tuple[int, ...]]
    #: Reasons why the other leaves are left out, by path.
    left_out: Mapping[str, str]
    #: Patterns that match nothing. A pattern with a path only is a str.
    unused: tuple[str | Pattern, ...]
    #: Selected leaves that are the same array as an earlier leaf, with the path of the earlier leaf. Both count.
    same_as: Mapping[str, str]

    def __str__(self) -> str:
        rows = [(path, f"selected, {shape}{self._same(path)}") for path, shape in self.selected.items()]
        rows += self.left_out.items()
        rows += [(repr(pattern), "matches nothing") for pattern in self.unused]
        width = max((len(path) for path, _ in rows), default=0)
        return "\n".join(f"{path:{width}}  {what}" for path, what in rows)

    def _same(self, path: str) -> str:
        return f", the same array as {self.same_as[path]}" if path in self.same_as else ""


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

    def zero(self) -> Any:
        """Return a 0-d array of 0, the value for a selection without leaves, like the first floating-point leaf."""
        like = at_least_float32(stop_gradient(next(leaf for leaf in self.leaves if _why_not_floating(leaf) is None)))
        backend = backend_of(like)
        assert backend is not None
        dtype = backend.xp.real(like).dtype if backend.dtype(like.dtype).kind == "complex" else like.dtype
        return backend.xp.zeros((), dtype=dtype, device=backend.device(like))

    def replaced(self, arrays: Iterable[Any]) -> Any:
        """Return the tree with `arrays` in place of the selected leaves."""
        leaves = list(self.leaves)
        for i, array in zip(self.indices, arrays, strict=True):
            leaves[i] = array
        return self.rebuild(iter(leaves))


@dataclass(frozen=True)
class Patterns:
    """The patterns of the options `match` and `exclude`."""

    match: tuple[Pattern, ...] | None
    exclude: tuple[Pattern, ...]

    @classmethod
    def of(cls, caller: str, match: PatternsLike, exclude: PatternsLike) -> Patterns:
        """Make patterns of the options `match` and `exclude`."""
        matched = None if match is None else as_patterns(caller, "match", match)
        return cls(matched, as_patterns(caller, "exclude", exclude))

    def arguments(self) -> dict[str, Any]:
        """Return the options `match` and `exclude` that make these patterns, without defaults."""
        given = {"match": self.match or (), "exclude": self.exclude}
        lists = {name: [pattern.simplest() for pattern in patterns] for name, patterns in given.items() if patterns}
        return {name: patterns[0] if len(patterns) == 1 else patterns for name, patterns in lists.items()}

    def key(self) -> tuple[Any, ...]:
        """Return a hashable key that is equal for equal patterns."""
        match = None if self.match is None else tuple(pattern.key() for pattern in self.match)
        return match, tuple(pattern.key() for pattern in self.exclude)

    def select(self, caller: str, argument: str, tree: Any) -> Selected:
        """Select at least one leaf, or none if all patterns of `match` are optional. All other patterns must match."""
        selected, reasons = self._selected(caller, argument, tree)
        self._check_used(caller, argument, selected.leaves, selected.paths)
        may_be_empty = self.match is not None and all(pattern.optional for pattern in self.match)
        if not selected.indices and not (may_be_empty and any(_why_not_floating(x) is None for x in selected.leaves)):
            why = "; ".join(f"{path or 'it'}: {reason}" for path, reason in list(reasons.items())[:5]) or "it is empty"
            raise ValueError(
                f"{caller}: `{argument}` must hold a floating-point array to select, got none ({why}). "
                "Pass a tree of arrays: a pytree, or for a PyTorch module dict(model.named_parameters())."
            )
        return selected

    def find(self, caller: str, argument: str, tree: Any, *, sparse: bool = False) -> Selected:
        """Select leaves, possibly none. They may be sparse if `sparse` is True."""
        return self._selected(caller, argument, tree, sparse=sparse)[0]

    def check(self, caller: str, argument: str, tree: Any) -> None:
        """Check that each pattern matches a leaf, unless the tree is empty."""
        leaves, _, paths = flatten_with_paths_of(as_nest(tree))
        if paths:
            self._check_used(caller, argument, leaves, paths)

    def explain(self, tree: Any) -> Selection:
        """Describe the selection. Unlike `select`, allow that nothing is selected."""
        leaves, _, paths = flatten_with_paths_of(as_nest(tree))
        check_unique("explain", "tree", paths)
        indices, reasons = self._partition(leaves, paths)
        shapes = {paths[i]: tuple(leaves[i].shape) for i in indices}
        same_as = _same_as([(paths[i], leaves[i]) for i in indices])
        return Selection(shapes, reasons, tuple(p.simplest() for p in self._unused(leaves, paths)), same_as)

    def _selected(
        self, caller: str, argument: str, tree: Any, *, sparse: bool = False
    ) -> tuple[Selected, dict[str, str]]:
        leaves, rebuild, paths = flatten_with_paths_of(as_nest(tree))
        for leaf, path in zip(leaves, paths, strict=True):
            check_visible(caller, argument, leaf, path)
        indices, reasons = self._partition(leaves, paths)
        if indices:
            backend = common_backend(caller, [paths[i] or argument for i in indices], [leaves[i] for i in indices])
            at = None if sparse else next((i for i in indices if backend.is_sparse(leaves[i])), None)
            if at is not None:
                raise TypeError(
                    f"{caller}: `{argument}` must be dense, got {leaves[at].layout} at {paths[at]!r}. Call its "
                    "`to_dense` first, or leave it out with `exclude`. `clip` and `clip_by_global_norm` take it."
                )
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
        reason = _why_not_floating(leaf)
        if reason is not None:
            return reason
        if self.match is not None and not any(pattern.matches(path, leaf) for pattern in self.match):
            return "matches no pattern"
        excluded = next((pattern for pattern in self.exclude if pattern.matches(path, leaf)), None)
        return None if excluded is None else f"excluded by {excluded.simplest()!r}"

    def _check_used(self, caller: str, argument: str, leaves: list[Any], paths: list[str]) -> None:
        unused = next((pattern for pattern in self._unused(leaves, paths) if not pattern.optional), None)
        if unused is not None:
            hint = did_you_mean(unused.path or "", paths)
            raise ValueError(
                f"{caller}: each pattern must match a path in `{argument}`, got {shown(unused.simplest())}, "
                f"which matches none of {_listed(paths)}."
                f"{hint or f' If it may match nothing, pass {replace(unused, optional=True)}.'}"
            )

    def _unused(self, leaves: list[Any], paths: list[str]) -> list[Pattern]:
        pairs = list(zip(paths, leaves, strict=True))
        patterns = (*(self.match or ()), *self.exclude)
        return [pattern for pattern in patterns if not any(pattern.matches(path, leaf) for path, leaf in pairs)]


def _why_not_floating(leaf: Any) -> str | None:
    """Return why a leaf is not a floating-point array, or None if it is one."""
    backend = backend_of(leaf)
    if backend is None:
        return f"not an array, {type(leaf).__qualname__}"
    return f"not floating-point, {leaf.dtype}" if backend.dtype(leaf.dtype).kind in ("bool", "other") else None


def _same_as(leaves: list[tuple[str, Any]]) -> dict[str, str]:
    """Return the paths of leaves that are the same array as an earlier leaf, with the path of the earlier leaf."""
    first: dict[Any, str] = {}
    repeated = {}
    for path, leaf in leaves:
        backend = backend_of(leaf)
        assert backend is not None
        earlier = first.setdefault(backend.identity(leaf), path)
        if earlier != path:
            repeated[path] = earlier
    return repeated


def check_visible(caller: str, argument: str, leaf: Any, path: str) -> None:
    """Refuse a leaf that holds numbers in a form that this package cannot read."""
    backend = backend_of(leaf)
    if backend is None:
        if hasattr(type(leaf), "todense"):  # a sparse array of JAX or SciPy
            kind = f"{type(leaf).__module__}.{type(leaf).__qualname__}"
            raise TypeError(f"{caller}: `{argument}` must be dense, got {kind} at {path!r}. Call its `todense` first.")
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
                + did_you_mean(path, [other for other in by_path if other not in selected.paths])
            )
    return [by_path[path] for path in selected.array_paths()]


def values_at(caller: str, selected: Selected, value: Any, argument: str) -> list[Any]:
    """Return the values of an option at the selected paths: the leaves of a tree, or `value` itself for each."""
    nest = as_nest(value)
    _, _, paths = flatten_with_paths_of(nest)
    is_tree = paths != [""] and value is not None
    return leaves_at(caller, selected, nest, argument) if is_tree else [value] * len(selected.indices)


def check_unique(caller: str, argument: str, paths: list[str]) -> None:
    """Check that no two leaves have the same path."""
    if len(set(paths)) < len(paths):
        twice = next(path for path, count in Counter(paths).items() if count > 1)
        raise ValueError(f"{caller}: paths must be unique, got {shown(twice)} twice in `{argument}`. Rename a key.")


def as_nest(tree: Any) -> Any:
    """Return the parameters of a PyTorch or Flax nnx module by name, shared ones once; any other tree unchanged."""
    return parameters_of(tree)


def _listed(paths: list[str]) -> str:
    if not paths:
        return "no paths"
    return listed(paths) if len(paths) <= 8 else f"{listed(paths[:8])} and {len(paths) - 8} more"
