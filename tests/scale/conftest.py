"""These tests are for the session `scale`, which has all of their frameworks. Elsewhere they are not even imported."""

from __future__ import annotations

from tests.conftest import SELECTED

collect_ignore_glob = [] if {"numpy", "torch", "jax", "dask"} <= set(SELECTED) else ["*"]
