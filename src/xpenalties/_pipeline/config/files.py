"""Files of configurations: TOML and JSON. Python reads both; writing TOML needs tomli-w."""

from __future__ import annotations

import json
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ..._core.optional import require

__all__ = ["read", "write"]


def read(path: str | PathLike[str]) -> Any:
    """Return the data in a file. Errors name the file."""
    parsers: dict[str, Callable[[str], Any]] = {".toml": _from_toml, ".json": _from_json}
    parse = _for_suffix(path, parsers)
    data = Path(path).read_bytes()
    try:
        return parse(data.decode("utf-8-sig"))  # editors on Windows begin files with a byte order mark
    except ValueError as error:
        raise ValueError(f"{fspath(path)}: {error}") from None
    except RecursionError:
        raise ValueError(f"{fspath(path)}: must not be nested this deeply. Use fewer levels.") from None


def write(path: str | PathLike[str], data: dict[str, Any]) -> None:
    """Write `data` to a file. Nothing is written if the format cannot hold it."""
    formats: dict[str, Callable[[dict[str, Any]], str]] = {".toml": _to_toml, ".json": _to_json}
    text = _for_suffix(path, formats)(data)
    Path(path).write_bytes(text.encode())


def _for_suffix(path: str | PathLike[str], functions: dict[str, Any]) -> Any:
    suffix = Path(path).suffix.lower()
    if suffix not in functions:
        raise ValueError(f"{fspath(path)}: a configuration file must end in .toml or .json, got {suffix!r}.")
    return functions[suffix]


def _from_toml(text: str) -> Any:
    import tomllib

    return tomllib.loads(text)


def _to_toml(data: dict[str, Any]) -> str:
    package, remedy = "tomli-w to write TOML", ", or write a .json file"
    with require(package, needed_by="Pipeline.to_config", install="tomli-w", remedy=remedy):
        import tomli_w
    try:
        text: str = tomli_w.dumps(data)
    except TypeError as error:
        raise TypeError(f"Pipeline.to_config: TOML cannot hold this, {error}. Write a .json file.") from None
    return text


def _from_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)


def _to_json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict, and raise if a key occurs twice: json would silently keep the last value."""
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object. Remove one.")
    return table


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"numbers must be finite, got {constant}. Write a finite number.")
