"""Orthogonality and consistency at equal eigenvalues, at orthonormal vectors and at zero vectors."""

from __future__ import annotations

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, curvature, first_and_second

autodiff = pytest.mark.needs("autodiff")


@autodiff
def test_spectral_gradient_at_multiple_eigenvalues(fw: Framework) -> None:
    # X = 2 I: every eigenvalue of G is 4, and (4 - 1)^2 falls along one eigenvector by 2 * 3 * d(lambda)
    for x in (2.0 * np.eye(3), 2.0 * np.eye(3, 5), 2.0 * np.eye(5, 3)):
        first, second = first_and_second(fw, lambda x: xp.orthogonality(x, mode="spectral", normalize=False), x)
        assert np.isfinite(first).all() and np.isfinite(second).all()
        assert np.linalg.norm(first) == pytest.approx(2 * 3 * 2 * 2.0)
    first, second = first_and_second(fw, lambda x: xp.orthogonality(x, mode="spectral"), np.eye(3))
    np.testing.assert_allclose(first, 0.0, atol=1e-15)
    assert np.isfinite(second).all()


@autodiff
def test_spectral_gradient_at_eigenvalues_equal_up_to_rounding(fw: Framework) -> None:
    for n in (2, 3, 5, 16):
        rotation, _ = np.linalg.qr(np.random.default_rng(n).standard_normal((n, n)))
        for scale in (0.3, 2.0, 7.0):
            x = scale * rotation
            first, second = first_and_second(fw, lambda x: xp.orthogonality(x, mode="spectral", normalize=False), x)
            assert np.linalg.norm(first) == pytest.approx(abs(4 * scale * (scale**2 - 1)))
            assert np.abs(second).max() < 1e4 * max(scale, 1) ** 5  # 1 / a gap of rounding would be 1e15


@autodiff
def test_spectral_curvature_of_close_eigenvalues(fw: Framework) -> None:
    # X = diag(a, b): d^2/dX_ij dX_ji of the largest eigenvalue a^2 of G is 2 (a^2 + b^2) / (a^2 - b^2) for i != j
    for b in (1.0, 1.9, 1.999):
        x, a = np.diag([2.0, b]), 2.0
        along = np.asarray([[0.0, 1.0], [0.0, 0.0]])
        got = curvature(fw, lambda x: xp.orthogonality(x, mode="spectral", normalize=False), x, along)
        slope_of_lambda = 2 * (a**2 - 1)
        assert got[0, 1] == pytest.approx(slope_of_lambda * 2 * (1 + b**2 / (a**2 - b**2)))
        assert got[1, 0] == pytest.approx(slope_of_lambda * 2 * a * b / (a**2 - b**2))


@autodiff
def test_spectral_curvature_of_almost_equal_eigenvalues(fw: Framework) -> None:
    a, b = 2.0, 2 - 1e-6
    along = np.asarray([[0.0, 1.0], [0.0, 0.0]])
    got = curvature(fw, lambda x: xp.orthogonality(x, mode="spectral", normalize=False), np.diag([a, b]), along)
    assert got[0, 1] == pytest.approx(2 * (a**2 - 1) * 2 * (1 + b**2 / (a**2 - b**2)))


@pytest.mark.only("strict", reason="all others have an eigh, and here it can be taken away")
def test_spectral_without_eigh(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fw.module.linalg, "eigh")
    with pytest.raises(NotImplementedError, match=r"^orthogonality: mode='spectral' needs linalg.eigh, which .*strict"):
        xp.orthogonality(fw.array(np.ones((2, 2))), mode="spectral")


def test_orthonormal_rows_and_columns(fw: Framework) -> None:
    square, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    for mode in ("soft", "hard", "spectral"):
        for rows in (square, square[:4]):
            got = xp.orthogonality(fw.array(rows), mode=mode, normalize=False)
            assert abs(float(got)) < 1e-24 * 1e10
        tall = square[:, :4]  # six rows in four dimensions cannot be orthonormal: G = P, rank 4
        got = float(xp.orthogonality(fw.array(tall), mode=mode, normalize=False))
        gram = tall @ tall.T
        want = {
            "soft": np.sum((gram - np.diag(np.diag(gram))) ** 2),
            "hard": 2.0,
            "spectral": 1.0,
        }[mode]
        assert got == pytest.approx(want)


@autodiff
def test_zero_rows(fw: Framework) -> None:
    x = np.asarray([[1.0, 2.0, 0.5], [0.0, 0.0, 0.0], [0.3, -1.0, 2.0]])
    for mode in ("soft", "hard", "spectral"):
        first, second = first_and_second(fw, lambda x, mode=mode: xp.orthogonality(x, mode=mode), x)
        assert (first[1] == 0).all() and np.isfinite(first).all() and np.isfinite(second).all()
    first, second = first_and_second(fw, lambda a, b: xp.consistency(a, b, metric="cosine"), x, x + 1.0)
    assert (first[1] == 0).all() and np.isfinite(first).all() and np.isfinite(second).all()
    assert float(
        xp.consistency(fw.array(np.zeros((1, 2))), fw.array(np.ones((1, 2))), metric="cosine")
    ) == pytest.approx(1.0, rel=1e-15)
