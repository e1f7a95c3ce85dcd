"""Write pipelines as configurations: the data that `load` reads, without defaults."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from os import PathLike
from typing import Any

from ..._core.shown import shown
from ..penalty import Penalty
from .error_places import not_too_deep
from .fields import FIELDS, VERSION
from .toml_and_json import write

__all__ = ["save"]

_DEFAULTS = {argument.name: argument.default for argument in fields(Penalty)}


def save(penalties: Iterable[Penalty], name: str, path: str | PathLike[str] | None) -> dict[str, Any]:
    """Return the configuration of a pipeline. If `path` is not None, also write it to that file."""
    document: dict[str, Any] = {"version": VERSION}
    if name != "pipeline":
        document["name"] = name
    document["penalties"] = [_table(penalty) for penalty in penalties]
    if path is not None:
        write(path, document)
    return document


def _table(penalty: Penalty) -> dict[str, Any]:
    """Return the table of one penalty."""
    caller = f"penalty {shown(penalty.name)}"
    with not_too_deep(caller):
        table = {field.name: field.write(caller, penalty) for field in FIELDS}
    return {key: value for key, value in table.items() if value is not None and value != _DEFAULTS.get(key)}
