"""Patterns that select leaves of a tree by path, number of axes and shape."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .._core.checks import AtLeast, check_argument, integer
from .._core.shown import shorten, shown

__all__ = ["Pattern", "PatternsLike", "as_patterns", "check_path"]

_COUNT, _SIZE = integer(AtLeast(0)), integer(AtLeast(-1))


@dataclass(frozen=True, repr=False)
class Pattern:
    r"""Select leaves by path, number of axes and shape. A leaf must meet all criteria that you pass.

    Pass a Pattern as `match` or `exclude`, or wherever a regular expression for paths is allowed.

    Parameters
    ----------
    path : str, optional
        A regular expression for the path, used with `re.search`.
    ndim : int or tuple of int, optional
        The number of axes, or several numbers, of which one must match.
    shape : tuple of int, optional
        The shape. -1 stands for any size.
    optional : bool, default False
        If True, the pattern may match nothing. If False, that is an error.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value, or there is no criterion.

    Examples
    --------
    >>> params = {"kernel": np.ones((2, 3)), "bias": np.ones(3)}
    >>> decay = trees.over_tree("l2", match=trees.Pattern(ndim=2), exclude=trees.Pattern("lora", optional=True))
    >>> print(decay.explain(params))
    kernel                          selected, (2, 3)
    bias                            matches no pattern
    Pattern('lora', optional=True)  matches nothing
    """

    path: str | None = None
    ndim: int | tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        """Check the arguments. Lists become tuples, so that patterns can be compared."""
        if self.path is not None:
            check_path("Pattern", "`path`", self.path)
        if self.ndim is not None:
            numbers = self.ndim if isinstance(self.ndim, (tuple, list)) else (self.ndim,)
            checked = tuple(check_argument("Pattern", _COUNT, "ndim", number) for number in numbers)
            if not checked:
                raise ValueError("Pattern: `ndim` must have a number, got none. Leave it out.")
            object.__setattr__(self, "ndim", checked[0] if len(checked) == 1 else checked)
        if self.shape is not None:
            if not isinstance(self.shape, (tuple, list)):
                raise TypeError(
                    f"Pattern: `shape` must be a tuple of sizes, got {shown(self.shape)}. Pass ints in a tuple."
                )
            sizes = tuple(check_argument("Pattern", _SIZE, "shape", size) for size in self.shape)
            object.__setattr__(self, "shape", sizes)
        if not isinstance(self.optional, bool):
            raise TypeError(f"Pattern: `optional` must be True or False, got {shown(self.optional)}. Pass a bool.")
        if self.path is None and self.ndim is None and self.shape is None:
            raise ValueError("Pattern: `path`, `ndim` or `shape` must be given, got none. Pass one.")

    def __repr__(self) -> str:
        """Return the call that makes this pattern, without default arguments."""
        named = {name: value for name in ("ndim", "shape") if (value := getattr(self, name)) is not None}
        arguments = [*([] if self.path is None else [repr(self.path)]), *(f"{k}={v!r}" for k, v in named.items())]
        return f"Pattern({', '.join([*arguments, *(['optional=True'] if self.optional else [])])})"

    def matches(self, path: str, leaf: Any) -> bool:
        """Return True if the pattern matches a leaf at this path."""
        if self.path is not None and not re.search(self.path, path):
            return False
        if self.ndim is None and self.shape is None:
            return True
        shape = getattr(leaf, "shape", None)
        return shape is not None and self._fits(tuple(shape))

    def _fits(self, shape: tuple[int, ...]) -> bool:
        numbers = (self.ndim,) if isinstance(self.ndim, int) else self.ndim
        if numbers is not None and len(shape) not in numbers:
            return False
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(a in (-1, b) for a, b in zip(self.shape, shape, strict=True))

    def key(self) -> tuple[Any, ...]:
        """Return the criteria, which are equal for equal patterns."""
        return self.path, self.ndim, self.shape, self.optional

    def simplest(self) -> str | Pattern:
        """Return the path if it is the only criterion, else the pattern."""
        return self.path if self.path is not None and self == Pattern(self.path) else self


PatternsLike = str | Pattern | Iterable[str | Pattern] | None  # the options `match` and `exclude`


def as_patterns(caller: str, name: str, option: PatternsLike) -> tuple[Pattern, ...]:
    """Check the option `match` or `exclude`, and return its patterns."""
    values: Any = () if option is None else (option,) if isinstance(option, (str, Pattern)) else option
    if not isinstance(values, Iterable) or isinstance(values, bytes):
        raise TypeError(f"{caller}: `{name}` must be a regular expression or several, got {shown(option)}. Pass a str.")
    patterns = tuple(value if isinstance(value, Pattern) else _of_path(caller, name, value) for value in values)
    if option is not None and not patterns:
        raise ValueError(f"{caller}: `{name}` must have a pattern, got none. Leave it out.")
    return patterns


def _of_path(caller: str, name: str, path: Any) -> Pattern:
    check_path(caller, f"`{name}`", path)
    return Pattern(path)


def check_path(caller: str, argument: str, path: Any) -> None:
    """Check that a path is a regular expression."""
    if not isinstance(path, str):
        raise TypeError(f"{caller}: {argument} must be a regular expression or several, got {shown(path)}. Pass a str.")
    try:
        re.compile(path)
    except (re.error, OverflowError, RecursionError) as error:  # too many repetitions, groups nested too deeply
        why = "its groups are nested too deeply" if isinstance(error, RecursionError) else shorten(str(error))
        raise ValueError(
            f"{caller}: {argument} must be a regular expression, got {shown(path)}: {why}. Escape what is meant "
            "literally, with re.escape."
        ) from None
