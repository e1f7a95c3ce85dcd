"""Imports of optional packages: the error names what needs the package and the pip command."""

from __future__ import annotations

import pytest

from xpenalties._core.optional import require


def test_an_import_that_succeeds_stays() -> None:
    with require("Python", needed_by="this test", install="python"):
        import math
    assert math.pi > 3


@pytest.mark.parametrize(
    ("install", "remedy", "message"),
    [
        ("other", "", r"^its_user needs Other\. Install it: pip install other\.$"),
        ("some[other]", "", r'^its_user needs Other\. Install it: pip install "some\[other\]"\.$'),
        ("other", ", or do without", r"^its_user needs Other\. Install it: pip install other, or do without\.$"),
    ],
)
def test_an_import_that_fails_says_what_to_install(install: str, remedy: str, message: str) -> None:
    with (
        pytest.raises(ModuleNotFoundError, match=message) as caught,
        require("Other", needed_by="its_user", install=install, remedy=remedy),
    ):
        import there_is_no_such_package  # type: ignore[import-not-found]  # noqa: F401
    assert caught.value.name == "there_is_no_such_package"
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_package_that_lacks_a_name() -> None:
    with (
        pytest.raises(ModuleNotFoundError, match=r"^its_user needs Other\.") as caught,
        require("Other", needed_by="its_user", install="other"),
    ):
        from math import there_is_no_such_name  # type: ignore[attr-defined]  # noqa: F401
    assert caught.value.name == "math" and type(caught.value.__cause__) is ImportError


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), require("Other", needed_by="its_user", install="other"):
        raise ZeroDivisionError
