"""The files of configurations, of the formats that Python reads; of TOML, a package of its own writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ..._core.optional import require

__all__ = ["read", "write"]


def read(path: str | PathLike[str]) -> Any:
    """What the file holds; its errors name it."""
    of_suffix: dict[str, Callable[[str], Any]] = {".toml": _from_toml, ".json": _from_json}
    parse = _chosen(path, of_suffix)
    data = Path(path).read_bytes()
    try:
        return parse(data.decode("utf-8-sig"))  # Windows' editors begin files with a mark
    except ValueError as error:
        raise ValueError(f"{fspath(path)}: {error}") from None
    except RecursionError:
        raise ValueError(f"{fspath(path)}: it must not be nested as deeply as this.") from None


def write(path: str | PathLike[str], data: dict[str, Any]) -> None:
    """Write `data`, all of it or, where it cannot be written, nothing."""
    of_suffix: dict[str, Callable[[dict[str, Any]], str]] = {".toml": _to_toml, ".json": _to_json}
    text = _chosen(path, of_suffix)(data).encode()
    Path(path).write_bytes(text)


def _chosen(path: str | PathLike[str], of_suffix: dict[str, Any]) -> Any:
    suffix = Path(path).suffix.lower()
    if suffix not in of_suffix:
        raise ValueError(f"{fspath(path)}: a configuration's file must end in .toml or .json, got {suffix!r}.")
    return of_suffix[suffix]


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
    return json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)


def _to_json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of pairs; Python's keeps the last of those with the same key, as if the others were not there."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object.")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"numbers must be finite, got {constant}.")
