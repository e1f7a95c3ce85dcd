"""Trees taken apart and rebuilt, and classes that are trees by the names of their attributes."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from xpenalties._core import pytrees
from xpenalties._core.pytrees import flatten, flatten_with_paths, node, watch_nodes


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """The classes of this test, which no framework is told of."""
    classes: list[type] = []
    monkeypatch.setattr(pytrees, "NODES", [])
    monkeypatch.setattr(pytrees, "_watchers", [classes.append])
    return classes


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass(frozen=True)
class Layer:
    weight: Any
    bias: Any


def test_paths_and_the_way_back() -> None:
    tree = {"a": [1, (2,)], 3: Pair(4, Layer(5, None)), "d": OrderedDict(z=6, y=7)}
    leaves, rebuild, paths = flatten_with_paths(tree)
    assert leaves == [1, 2, 4, 5, None, 6, 7] == flatten(tree)[0]
    assert paths == ["a.0", "a.1.0", "3.first", "3.second.weight", "3.second.bias", "d.z", "d.y"]
    again = rebuild(iter("abcdefg"))
    assert again == {"a": ["a", ("b",)], 3: Pair("c", Layer("d", "e")), "d": OrderedDict(z="f", y="g")}
    assert type(again["d"]) is OrderedDict and type(again[3]) is Pair
    assert flatten_with_paths(1)[::2] == ([1], [""])


def test_a_defaultdict_stays_one() -> None:
    _, rebuild = flatten(defaultdict(list, a=1))
    again = rebuild(iter([2]))
    assert again["a"] == 2 and again["b"] == []


def test_a_class_by_its_attributes(registered: list[type]) -> None:
    @node(leaves=("value",), mappings=("parts", "table"), static=("name",))
    @dataclass
    class Found:
        value: Any
        parts: dict[str, Any]
        table: dict[str, dict[str, Any]] | None
        name: str

    assert registered == [Found]
    found: Any = Found(1, {"z": 2, "a": [3, 4]}, {"r": {"c": 5, "b": 6}}, "n")
    leaves, rebuild, paths = flatten_with_paths(found)
    assert leaves == [1, 2, 3, 4, 5, 6]
    assert paths == ["value", "z", "a.0", "a.1", "table/r/c", "table/r/b"]
    again = rebuild(iter(range(6)))
    assert again == Found(0, {"z": 1, "a": [2, 3]}, {"r": {"c": 4, "b": 5}}, "n") and list(again.parts) == ["z", "a"]

    structure = found._tree_flatten()[1]
    same, *others = (
        Found(7, {"z": 8, "a": 9}, {"r": {"c": 0, "b": 0}}, "n"),
        Found(1, {"a": 2, "z": 3}, {"r": {"c": 5, "b": 6}}, "n"),
        Found(1, {"z": 2, "a": 3}, {"r": {"c": 5}}, "n"),
        Found(1, {"z": 2, "a": 3}, None, "n"),
        Found(1, {"z": 2, "a": 3}, {"r": {"c": 5, "b": 6}}, "other"),
    )
    assert structure == same._tree_flatten()[1] and hash(structure) == hash(same._tree_flatten()[1])  # type: ignore[attr-defined]
    assert all(structure != other._tree_flatten()[1] for other in others) and structure != "n"  # type: ignore[attr-defined]
    assert "'n'" in repr(structure)
    empty: Any = Found(None, {}, None, "n")
    assert empty._tree_keys() == ("value",) and Found._tree_unflatten(empty._tree_flatten()[1], [None]) == empty  # type: ignore[attr-defined]


def test_a_key_says_what_is_equal() -> None:
    @node(leaves=("x",), static=("scale",), key=lambda scaled: round(scaled.scale))
    class Scaled:
        def __init__(self, x: Any, scale: float) -> None:
            self.x, self.scale = x, scale

    one, near, far = (Scaled(1, scale)._tree_flatten()[1] for scale in (1.0, 1.1, 2.0))  # type: ignore[attr-defined]
    assert one == near != far
    assert Scaled._tree_unflatten(near, [3]).scale == 1.1  # type: ignore[attr-defined]


def test_who_watches_is_told_of_those_before_and_after(registered: list[type]) -> None:
    def make() -> type:
        return node(leaves=())(type("Empty", (), {}))

    first = make()
    seen: list[type] = []
    watch_nodes(seen.append)
    second = make()
    assert seen == [first, second] == registered
