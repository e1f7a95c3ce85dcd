"""The public names and their signatures are those of public_api.txt, which only a deliberate change edits."""

from __future__ import annotations

import pytest

from tests.conftest import ROWS, SELECTED
from tests.project import public_api

if not {row["name"] for row in ROWS if row["required"]} <= set(SELECTED):
    pytest.skip("imports all of the frameworks", allow_module_level=True)

pytestmark = pytest.mark.docs


@pytest.mark.filterwarnings("ignore:::lightning|transformers|keras|torch")
def test_the_public_api_changes_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(public_api.EXTENSIONS)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    committed = public_api.PATH.read_text("utf-8").splitlines()
    remedy = "The public API changed. If that is meant, run `python -m tests.project.public_api` and commit the result."
    assert public_api.signatures() == committed, remedy
