"""The rows of peers_at_edges.py whose peer is an integration's package."""

from __future__ import annotations

import pytest

from tests.conftest import integration
from tests.project.peers_at_edges import DIVERGENCES, Row

integration("keras")
pytestmark = pytest.mark.integrations


@pytest.mark.parametrize("row", [row for row in DIVERGENCES if "keras" in row.peer], ids=lambda row: row.id)
def test_row(row: Row) -> None:
    row.check()
