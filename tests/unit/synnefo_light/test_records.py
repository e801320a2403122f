from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pytest

from synnefo_light.log import Secret
from synnefo_light.records import RecordError, build, dump_json, load_json, parse_json


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cart:
    version: Literal[1] = 1
    name: str
    colour: Colour | None = None
    wheels: tuple[Wheel, ...] = ()
    tags: frozenset[str] = frozenset()
    key: Secret | None = None
    limits: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise ValueError("this cart is bad")


def test_what_is_dumped_is_built_again() -> None:
    cart = Cart(
        name="a",
        colour=Colour.RED,
        wheels=(Wheel(size=1), Wheel(size=2)),
        tags=frozenset({"x", "y"}),
        key=Secret("s3cret"),
        limits={"a": 1},
    )
    assert parse_json(dump_json(cart), Cart, limit=1000) == cart


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"name": "a", "nmae": 1}', "nmae: this key is not known; the keys here are"),
        ('{"colour": null}', "name: this key is missing"),
        ('{"name": 5}', "name: 5 is not a string"),
        ('{"name": "a", "colour": "blue"}', "colour: 'blue' is not one of 'red'"),
        ('{"name": "a", "wheels": [{"size": 1}, {"size": "2"}]}', "wheels[1].size: '2' is not a whole number"),
        ('{"name": "a", "wheels": [{"size": true}]}', "wheels[0].size: True is not a whole number"),
        ('{"name": "a", "wheels": {}}', "wheels: {} is not a list"),
        ('{"name": "a", "version": 2}', "version: 2 is not one of 1"),
        ('{"name": "a", "version": true}', "version: True is not one of 1"),
        ('{"name": "a", "name": "b"}', "the key 'name' stands twice"),
        ('{"name": "a", "limits": {"x": 1.5}}', "1.5 is not a whole number"),
        ('{"name": "a", "limits": {"x": NaN}}', "NaN is not a whole number"),
        ('{"name": "bad"}', "this cart is bad"),
        ('["name"]', "is not a table of keys"),
        ("nothing", "the document is not JSON"),
        ("[" * 100_000, "the document"),
    ],
)
def test_what_is_not_of_the_schema_is_refused_with_its_place(text: str, sentence: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_json(text.encode(), Cart, limit=1 << 20)
    assert sentence in str(caught.value)


def test_a_long_document_is_refused_unread() -> None:
    with pytest.raises(RecordError, match="at most 10 are accepted"):
        load_json(b'{"name": "a"}', limit=10)


def test_a_wrong_secret_is_not_shown() -> None:
    with pytest.raises(RecordError) as caught:
        build({"name": "a", "key": ["hunter2"]}, Cart)
    assert "hunter2" not in str(caught.value)


def test_bytes_that_are_not_text_are_refused() -> None:
    with pytest.raises(RecordError):
        parse_json(b'{"name": "\xff"}', Cart, limit=100)


@pytest.mark.parametrize("text", [r'{"name": "\ud800"}', r'{"name": "\uDFFFx"}', r'{"\udc80": 1}'])
def test_half_a_surrogate_pair_is_refused_on_the_way_in(text: str) -> None:
    with pytest.raises(RecordError, match="half a surrogate pair"):
        load_json(text.encode(), limit=100)


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert load_json(rb'{"name": "\ud83d\ude00"}', limit=100) == {"name": "\U0001f600"}


def test_half_a_surrogate_pair_is_refused_on_the_way_out() -> None:
    with pytest.raises(RecordError, match="half a surrogate pair"):
        dump_json({"name": "\udcff"})


def test_what_is_nested_deeper_than_any_contract_is_refused_before_anything_looks_into_it() -> None:
    with pytest.raises(RecordError, match="nested too deeply"):
        parse_json(b'{"name": ' + b"[" * 900 + b"]" * 900 + b"}", Cart, limit=4096)
    assert load_json(b"[" * 64 + b"]" * 64, limit=200)


def test_floats_come_in_where_a_peer_has_them() -> None:
    assert load_json(b'{"mbps": 268.44}', limit=100, floats=True) == {"mbps": 268.44}
