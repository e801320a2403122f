"""How the tests that draw hostile input draw it: the same examples in every run, few enough, kept nowhere."""

from __future__ import annotations

import json
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

#: SNF_EXAMPLES asks for more of them than every run should wait for.
FIXED = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=int(os.environ.get("SNF_EXAMPLES", "40")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

#: What JSON can say, small; texts with everything that Unicode has but halves of pairs.
JSON: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)


def json_of(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[str]:
    return strategy.map(lambda data: json.dumps(data, ensure_ascii=False))


def shaken(good: bytes) -> st.SearchStrategy[bytes]:
    """Good bytes with a few of them changed, taken out, put in, or cut off at the end."""
    place = st.integers(0, max(len(good) - 1, 0))
    change = st.tuples(place, st.sampled_from(("set", "delete", "insert", "cut")), st.binary(min_size=1, max_size=8))

    def apply(changes: list[tuple[int, str, bytes]]) -> bytes:
        raw = bytearray(good)
        for at, how, data in changes:
            if how == "set":
                raw[at : at + len(data)] = data
            elif how == "delete":
                del raw[at : at + len(data)]
            elif how == "insert":
                raw[at:at] = data
            else:
                del raw[at:]
        return bytes(raw)

    return st.lists(change, min_size=1, max_size=4).map(apply)
