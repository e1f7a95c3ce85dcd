"""One row for each penalty and set of options, which drives every test of the matrix on every backend.

A row has the function, arrays to call it with, its oracle, and its particulars: points where its slope is stated, laws
that it obeys, and calls that it must refuse. The rows are in the folder `rows`, one file for each family.
`test_completeness.py` fails for a public penalty without a row.
"""

from __future__ import annotations

from tests.matrix.case import KEY, Case, arrays_of, at_once, joined, options_of
from tests.matrix.rows import (
    divergences,
    functions,
    linear,
    norms,
    representations,
    smoothness,
    sparsity,
    statistics,
    transport,
)

__all__ = ["CASES", "KEY", "STATISTICS", "WITH_TERMS", "Case", "arrays_of", "at_once", "options_of"]

# in this order, because they draw from one stream of random numbers
CASES = joined(
    norms.rows(),
    sparsity.rows(),
    smoothness.rows(),
    divergences.rows(),
    representations.rows(),
    functions.rows(),
    linear.rows(),
    statistics.rows(),
    transport.rows(),
)
STATISTICS = [case for case in CASES if case.is_statistic]
WITH_TERMS = [case for case in CASES if not case.is_statistic]
