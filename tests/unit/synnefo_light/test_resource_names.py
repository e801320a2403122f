from __future__ import annotations

import pytest

from synnefo_light.resource_names import is_name


@pytest.mark.parametrize("text", ["a", "0", "debian-12", "A.b_c-d+e", "x" * 200, "golden-disk1"])
def test_a_name(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        ".a",
        "-a",
        "_a",
        "+a",
        "a.",
        "a@b",
        "a:b",
        "map:0",
        "a/b",
        "a b",
        "a,b",
        "a\n",
        "a\0",
        "ä",
        "x" * 201,
    ],
)
def test_no_name(text: str) -> None:
    assert not is_name(text)
