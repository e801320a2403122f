"""The properties of an image, as a person gives and changes them."""

from __future__ import annotations

import pytest
from snf_extstorage.properties import LIMIT, parse_properties, plan_properties

from synnefo_light.errors import UserError


def test_properties_are_words_with_values_and_their_names_in_capitals() -> None:
    assert parse_properties(["osfamily=linux", "USERS=root me", "X="]) == {
        "OSFAMILY": "linux",
        "USERS": "root me",
        "X": "",
    }
    for wrong in (["x"], ["=x"], ["a b=c"], ["a=b\n"], ["a=1", "A=2"], [f"a{n}=" for n in range(LIMIT + 1)]):
        with pytest.raises(UserError, match="propert"):
            parse_properties(wrong)


def test_a_property_is_replaced_added_or_dropped_and_the_others_stay() -> None:
    known = {"OSFAMILY": "linux", "users": "root", "SWAP": "file:64"}
    assert plan_properties(known, {"USERS": "me", "X": "1"}, ["swap"]) == {"OSFAMILY": "linux", "USERS": "me", "X": "1"}
    assert plan_properties(known, {"SWAP": ""}, ["SWAP"]) == {"OSFAMILY": "linux", "users": "root", "SWAP": ""}
    assert plan_properties({}, {}, []) == {}
    with pytest.raises(UserError, match="no property 'osfamly' to be unset; there are OSFAMILY, users, SWAP"):
        plan_properties(known, {}, ["osfamly"])
    full = {f"A{n}": "" for n in range(LIMIT)}
    assert len(plan_properties(full, {"A1": "1"}, [])) == LIMIT
    with pytest.raises(UserError, match=f"there are {LIMIT + 1} properties"):
        plan_properties(full, {"B": "1"}, [])
