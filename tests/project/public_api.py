"""Every public name with its signature, as lines of text; run this module to write public_api.txt."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["PATH", "signatures"]

PATH = Path(__file__).with_suffix(".txt")
EXTENSIONS = str(Path(__file__).parents[2] / "docs" / "_ext")


def signatures() -> list[str]:
    """Return a line for each public name, and for each public member of a public class."""
    from reference import public_modules  # the site's own list of modules

    return sorted(
        line
        for module in public_modules()
        for name in module.__all__
        for line in _lines(f"{module.__name__}.{name}", getattr(module, name))
    )


def _lines(name: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield f"class {name}{_signature(value)}"
        for member in sorted(dir(value)):
            if member == "__call__" or not member.startswith("_"):
                yield from _member(
                    f"{name}.{member}", inspect.getattr_static(value, member), getattr(value, member, None)
                )
    elif callable(value):
        yield f"{name}{_signature(value)}"
    elif not inspect.ismodule(value):
        yield f"{name}: {type(value).__qualname__}"


def _member(name: str, static: Any, value: Any) -> Iterator[str]:
    origin = getattr(static, "__module__", None) or getattr(getattr(static, "fget", None), "__module__", "xpenalties")
    if not str(origin).startswith("xpenalties"):  # inherited from a framework's class
        return
    if isinstance(static, property):
        yield f"{name}: property"
    elif callable(value):
        yield f"{name}{_signature(value)}"
    else:
        yield f"{name}: attribute"


def _signature(value: Any) -> str:
    try:
        signature = inspect.signature(value)
    except ValueError:  # an exception's class has none
        return ""
    parameters = [each.replace(annotation=_plain(each.annotation)) for each in signature.parameters.values()]
    signature = signature.replace(parameters=parameters, return_annotation=_plain(signature.return_annotation))
    return re.sub(r" at 0x[0-9a-f]+", "", str(signature))


class _Plain(str):
    """Text whose repr has no quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _plain(annotation: Any) -> Any:
    annotation = getattr(annotation, "__forward_arg__", annotation)
    return _Plain(annotation) if isinstance(annotation, str) else annotation


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "torch")
    sys.path.insert(0, EXTENSIONS)
    PATH.write_text("\n".join(signatures()) + "\n", "utf-8")
