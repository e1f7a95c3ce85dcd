"""Values in errors are short, whatever they are."""

from __future__ import annotations

from typing import Any

import pytest

from xpenalties._core.shown import listed, shorten, shown
from xpenalties._core.suggestions import did_you_mean


class Broken:
    def __repr__(self) -> str:
        raise KeyError("no repr")


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ("a", "'a'"),
        ("a" * 198, "'" + "a" * 198 + "'"),
        (10**5000, "an integer of 16610 bits"),
        ([10**5000], "list that cannot be printed"),
        (nested(100_000), "list that cannot be printed"),
        (Broken(), "Broken that cannot be printed"),
    ],
    ids=["number", "string", "longest", "many digits", "in a list", "nested", "broken"],
)
def test_shown(value: Any, text: str) -> None:
    assert shown(value) == text


def test_long_values_lose_their_middle() -> None:
    text = shown("a" * 10_000_000 + "b")
    assert text == "'" + "a" * 99 + " ... " + "a" * 48 + "b'"
    assert shorten("a" * 200) == "a" * 200 and len(shorten("a" * 201)) < 200


def test_listed() -> None:
    assert listed([]) == "none" and listed({"a": 1, 2: 3}) == "'a', 2"
    assert len(listed("a" * 1000 for _ in range(1000))) < 600


def test_names_of_other_libraries_come_before_similar_names() -> None:
    assert did_you_mean("mask", ["axis", "max", "where"]) == " Did you mean 'where'?"
    assert did_you_mean("strength", ["tree", "weight"]) == " Did you mean 'weight'?"
    assert did_you_mean("mask", ["masks", "weights"]) == " Did you mean 'masks'?"  # there is no `where`
    assert did_you_mean("lambda", ["sums"]) == ""


def test_no_suggestion_for_long_names() -> None:
    """To compare them would take seconds."""
    assert did_you_mean("l" * 10_000_000, ["l1", "l2"]) == ""
    assert did_you_mean(10**5000, ["l1"]) == ""
    assert did_you_mean("l", ["l1", "l2"]) == " Did you mean 'l1'?"
