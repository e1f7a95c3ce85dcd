"""The examples of the docstrings, README.md and docs/, run as they stand."""

from __future__ import annotations

import doctest
import importlib
import math
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import xpenalties
from tests.conftest import ROWS, integration, quiet
from xpenalties import controllers, importance, prox, schedules, telemetry, transforms, trees

integration(
    *("keras", "lightning", "transformers", "tinker", "optax", "flax", "tensorboard"),
    backends=tuple(row["name"] for row in ROWS if row["required"]),
)
os.environ.setdefault("KERAS_BACKEND", "torch")

import jax
import keras
import optax
import tinker
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of their own imports
    import lightning
    import transformers

    INTEGRATIONS = [
        importlib.import_module(f"xpenalties.integrations.{name}")
        for name in ("torch", "jax", "keras", "lightning", "tinker", "transformers")
    ]

pytestmark = pytest.mark.docs
ROOT = Path(__file__).parents[2]
BUILT = ("_build", "reference", "repository", "notebooks")  # made, or executed, by the site's build
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in DOCS.rglob("*.md") if page.relative_to(DOCS).parts[0] not in BUILT),
]
NOTEBOOKS = [path for pattern in ("*.md", "*.md.in") for path in (DOCS / "notebooks").glob(pattern)]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def run(examples: str, name: str, names: dict[str, object]) -> int:
    test = doctest.DocTestParser().get_doctest(examples, names, name, name, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    out: list[str] = []
    runner.run(test, out=out.append)
    assert runner.failures == 0, "".join(out)
    return len(test.examples)


PUBLIC = {
    **{name: getattr(xpenalties, name) for name in xpenalties.__all__},
    **{
        f"{module.__name__.rpartition('.')[2]}.{name}": getattr(module, name)
        for module in (telemetry, schedules, controllers, importance, prox, trees, transforms)
        for name in module.__all__
    },
    **{
        f"{module.__name__.partition('.')[2]}.{name}": getattr(module, name)
        for module in INTEGRATIONS
        for name in module.__all__
    },
    **{f"Pipeline.{name}": getattr(xpenalties.Pipeline, name) for name in ("from_config", "to_config")},
    **{f"Report.{name}": getattr(xpenalties.Report, name) for name in ("mean", "brief")},
}
WITHOUT = {
    "PenaltyReport",
    "schedules",
    "controllers",
    "importance",
    "prox",
    "trees",
    "transforms",
    "trees.OverTree",
    "trees.Selection",
    "transforms.GradientTransformation",
    "transforms.StepState",
    "transforms.NoiseState",
    "integrations.torch.Attached",
    "integrations.torch.Capture",
    "integrations.torch.WrappedLoss",
    "integrations.tinker.CustomLoss",
    "schedules.Schedule",
    "controllers.Controller",
    *(f"telemetry.{name}" for name in telemetry.__all__),
}  # shown elsewhere
WITHOUT -= {"telemetry.add_handler"}


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring(name: str) -> None:
    names = {"xpen": xpenalties, **{each: getattr(xpenalties, each) for each in xpenalties.__all__}}
    of_jax = name.startswith("integrations.jax.")  # there is a train_step for PyTorch too
    for module in INTEGRATIONS:
        names |= {each: getattr(module, each) for each in module.__all__ if of_jax or "jax" not in module.__name__}
    packages = (jax, keras, lightning, math, optax, tinker, torch, transformers)
    names |= {module.__name__: module for module in packages}
    with quiet():
        ran = run(PUBLIC[name].__doc__, name, {**names, "np": np})
    assert (ran == 0) == (name in WITHOUT)


def test_there_is_one_alias_and_no_name_that_shadows_a_builtin() -> None:
    texts = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in (*PAGES, *NOTEBOOKS)}
    texts |= {name: value.__doc__ for name, value in PUBLIC.items()}
    aliases = {alias for text in texts.values() for alias in re.findall(r"import xpenalties as (\w+)", text)}
    assert aliases == {"xpen"}
    shadowing = re.compile(r"from xpenalties import (\([^)]*|[^#\n]*)\bcompile\b|>>> (.*[ (])?compile\(")
    assert [name for name, text in texts.items() if shadowing.search(text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page(page: Path) -> None:
    for number, block in enumerate(BLOCK.findall(page.read_text("utf-8"))):
        with quiet():
            if block.lstrip().startswith(">>>"):
                run(block, f"{page.name}[{number}]", {})
            else:
                exec(compile(block, f"{page.name}[{number}]", "exec"), {"__name__": "__main__"})
