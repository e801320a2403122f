from __future__ import annotations

import pytest
from snf_lab.suite import Counts, parse_counts


@pytest.mark.parametrize(
    ("output", "counts"),
    [
        ("..\n==== 140 passed in 0.82s ====\n", Counts(passed=140)),
        ("=== 1 failed, 139 passed, 2 skipped in 3.1s ===", Counts(passed=139, failed=1, skipped=2)),
        ("3 passed in 1s\n2 errors in 0.1s\n", Counts(failed=2)),
        ("1 error in 0.1s", Counts(failed=1)),
        ("no tests ran in 0.01s", Counts()),
        ("", Counts()),
    ],
)
def test_pytests_last_line_is_understood(output: str, counts: Counts) -> None:
    assert parse_counts(output) == counts
