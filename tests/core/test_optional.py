"""Packages that only some functions need."""

from __future__ import annotations

import json
import re

import pytest

from xpenalties._core.optional import require


def test_a_package_that_is_there() -> None:
    assert require("f", "json", "Install it.") is json


def test_a_package_that_is_missing_is_named_with_the_remedy() -> None:
    message = "f: what_is_not_there must be installed, got No module named 'what_is_not_there'. Install it."
    with pytest.raises(ModuleNotFoundError, match=f"^{re.escape(message)}$") as caught:
        require("f", "what_is_not_there", "Install it.")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
