"""Files of configurations: TOML and JSON. Python reads both; writing TOML needs tomli-w."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ..._core.files import replacing
from ..._core.optional import require
from ..._core.shown import shorten, shown
from .error_places import errors_at

__all__ = ["read", "write"]


def read(path: str | PathLike[str]) -> Any:
    """Return the data in a file. Errors name the file."""
    parsers: dict[str, Callable[[str], Any]] = {".toml": _from_toml, ".json": _from_json}
    parse = _for_suffix(path, parsers)
    with errors_at(fspath(path)):
        text = Path(path).read_bytes().decode("utf-8-sig")  # editors on Windows begin files with a byte order mark
        return parse(text)


def write(path: str | PathLike[str], data: dict[str, Any]) -> None:
    """Write `data` to a file. Nothing is written if the format cannot hold it."""
    formats: dict[str, Callable[[dict[str, Any]], str]] = {".toml": _to_toml, ".json": _to_json}
    text = _for_suffix(path, formats)(data)
    with replacing(path) as new:
        new.write_bytes(text.encode())


def _for_suffix(path: str | PathLike[str], functions: dict[str, Any]) -> Any:
    suffix = Path(path).suffix.lower()
    if suffix not in functions:
        raise ValueError(
            f"{shorten(fspath(path))}: a configuration file must end in .toml or .json, got {shown(suffix)}. For "
            "another format, read or write the data yourself: `from_config` and `to_config` also exchange dicts."
        )
    return functions[suffix]


def _from_toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # an integer with more digits than Python converts; Python's error names no line
        number = re.search(rf"\d(?:_?\d){{{sys.get_int_max_str_digits()},}}", text)
        assert number is not None
        line = text.count("\n", 0, number.start()) + 1
        raise ValueError(
            f"an integer must be below 2**63, got one of {len(number[0])} digits (at line {line})."
        ) from None


def _to_toml(data: dict[str, Any]) -> str:
    package, remedy = "tomli-w to write TOML", ", or write a .json file"
    with require(package, needed_by="Pipeline.to_config", install="tomli-w", remedy=remedy):
        import tomli_w
    try:
        text: str = tomli_w.dumps(data)
    except TypeError as error:
        raise TypeError(f"Pipeline.to_config: TOML cannot hold this: {error}. Write a .json file.") from None
    return text


def _from_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_duplicates, parse_int=_number)


def _to_json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict, and raise if a key occurs twice: json would silently keep the last value."""
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {shown(twice)} occurs twice in one object. Remove one.")
    return table


def _number(digits: str) -> int | float:
    """Parse an integer. If it has too many digits for Python, return infinity, which is refused later, with its key."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)
