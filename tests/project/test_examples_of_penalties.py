"""The examples of single penalties run on each framework, and show what they say they show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import SELECTED
from tests.helpers.example_runs import example, is_picture

pytestmark = pytest.mark.mixed

backends = pytest.mark.parametrize("backend", [name for name in ("torch", "jax") if name in SELECTED])


def fits(out: str, picture: Path | None = None) -> bool:
    return max(map(len, out.splitlines())) <= max(100, 0 if picture is None else len(str(picture)) + 40)


@backends
def test_autoencoder(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "vae.png"
    with example("vae_digits") as main:
        without, with_bits, loss_without, loss_with = main(
            ["--backend", backend, "--steps", "400", "--plot", str(picture)]
        )
    assert (without < 0.05).sum() >= 4 and with_bits.min() > 0.2  # collapsed latents, and none
    assert loss_with < loss_without - 1
    assert is_picture(picture) and fits(capsys.readouterr().out, picture)


@backends
@pytest.mark.parametrize(("method", "gain"), [("vicreg", 0.04), ("sigreg", 0.02)])
def test_self_supervised(backend: str, method: str, gain: float, capsys: pytest.CaptureFixture[str]) -> None:
    with example("self_supervised_digits") as main:
        before, after = main(["--backend", backend, "--method", method, "--steps", "150"])
    assert after > before + gain
    assert fits(capsys.readouterr().out)


@backends
def test_experts(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "experts.png"
    with example("mixture_of_experts") as main:
        without, _, balanced, accuracy = main(["--backend", backend, "--steps", "800", "--plot", str(picture)])
    assert without[0] > 0.9  # one expert does all the work
    assert balanced[0] < 0.25 and balanced[-1] > 0.05 and accuracy > 0.85
    assert is_picture(picture) and fits(capsys.readouterr().out, picture)


@backends
def test_domain_shift(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    with example("domain_shift") as main:
        without, with_penalty = main(["--backend", backend, "--steps", "300"])
    assert without < 0.4 and with_penalty > without + 0.25
    assert fits(capsys.readouterr().out)
