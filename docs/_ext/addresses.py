"""Where the project is, from pyproject.toml, and what GitHub calls its branches."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

__all__ = ["BRANCH", "PROJECT", "ROOT", "SITE", "SITE_BRANCH", "SOURCE"]

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SITE: str = PROJECT["urls"]["Documentation"]
SOURCE: str = PROJECT["urls"]["Source"]
BRANCH = "main"
#: The built site; Colab opens notebooks from a branch only.
SITE_BRANCH = "gh-pages"
