"""Data from outside into frozen dataclasses, and back: strict, bounded, one mechanism for JSON and TOML.

A dataclass is its own schema: every key must be a field, every value of the field's type, nothing is converted but
lists to tuples and text to enums, Paths and `Secret`s. What types cannot say a class checks in `__post_init__`, by
raising ValueError with a sentence. Errors name the place: "disks[1].size: ...".

Field types understood: str, int, bool, Path, Secret, Enum of strings, Literal, `X | None`, tuple[X, ...],
frozenset[str], Mapping[str, X], and dataclasses of these. No floats: JSON's are not exact, and no contract of ours
needs one.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

from synnefo_light.log import Secret, escape

T = TypeVar("T")

#: Containers within one another; what is printed or compared later goes down as deep.
DEPTH_LIMIT: Final = 64


class RecordError(ValueError):
    """Something from outside that is not what its schema says; the message names the place and the value."""


def parse_json(raw: bytes, into: type[T], *, limit: int) -> T:
    """One JSON document of at most `limit` bytes as an `into`. Raises RecordError; never any other exception."""
    return build(load_json(raw, limit=limit), into)


def load_json(raw: bytes, *, limit: int, floats: bool = False) -> object:
    """JSON text to plain data; refuses what is too long, doubled keys, NaN, lone surrogates, deep nesting.

    Floats are let through where `floats` says that a peer has them. Raises RecordError; never any other exception.
    """
    if len(raw) > limit:
        raise RecordError(f"the document has {len(raw)} bytes, at most {limit} are accepted")
    try:
        text = raw.decode("utf-8")
        parse_float = float if floats else _no_float
        data: object = json.loads(
            text, object_pairs_hook=_no_doubles, parse_float=parse_float, parse_constant=_no_float
        )
        _require_shallow(data)
        if re.search(r"\\u[dD]", text):
            json.dumps(data, ensure_ascii=False).encode()
        return data
    except RecordError:
        raise
    except UnicodeEncodeError:
        raise RecordError("the document has half a surrogate pair as an escape, which is no character") from None
    except RecursionError:
        raise RecordError("the document is nested too deeply") from None
    except ValueError as e:
        raise RecordError(f"the document is not JSON: {e}") from None


def dump_json(record: object) -> bytes:
    """The canonical form: sorted keys, no blanks, UTF-8 without escapes, secrets in clear, no newline.

    Raises RecordError for text that no encoding has (a lone surrogate).
    """
    text = json.dumps(plain(record), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise RecordError("the record has half a surrogate pair in it, which is no character") from None


def plain(record: object) -> object:
    """A record as dicts, lists, strings, numbers. Secrets come out in clear: the result is for a channel, not a log."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: plain(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Secret):
        return record.reveal()
    if isinstance(record, enum.Enum):
        return record.value
    if isinstance(record, Path):
        return str(record)
    if isinstance(record, Mapping):
        return {str(k): plain(v) for k, v in record.items()}
    if isinstance(record, (frozenset, set)):
        return sorted(plain(v) for v in record)  # type: ignore[type-var]
    if isinstance(record, (tuple, list)):
        return [plain(v) for v in record]
    return record


def build(data: object, into: type[T], *, place: str = "") -> T:
    """Plain data (of json or tomllib) as an `into`. Raises RecordError naming the place."""
    value: T = _convert(data, into, place)
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _convert(data: object, kind: Any, place: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        options = get_args(kind)
        if data is None and type(None) in options:
            return None
        (other,) = (o for o in options if o is not type(None))
        return _convert(data, other, place)
    if origin is Literal:
        if not any(data == value and type(data) is type(value) for value in get_args(kind)):
            raise _wrong(place, data, "one of " + ", ".join(repr(v) for v in get_args(kind)))
        return data
    if origin is tuple:
        return tuple(_convert(item, get_args(kind)[0], f"{place}[{n}]") for n, item in enumerate(_list(data, place)))
    if origin is frozenset:
        return frozenset(
            _convert(item, get_args(kind)[0], f"{place}[{n}]") for n, item in enumerate(_list(data, place))
        )
    if origin is not None and issubclass(origin, Mapping):
        return {key: _convert(item, get_args(kind)[1], _join(place, key)) for key, item in _dict(data, place).items()}
    if dataclasses.is_dataclass(kind):
        return _dataclass(data, typing.cast(type, kind), place)
    return _scalar(data, kind, place)


def _scalar(data: object, kind: Any, place: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(data)
        except ValueError:
            raise _wrong(place, data, "one of " + ", ".join(repr(e.value) for e in kind)) from None
    base = getattr(kind, "__supertype__", kind)
    if base in (bool, int) and type(data) is base:
        return data
    if base in (str, Secret, Path) and isinstance(data, str):
        return data if base is str else base(data)
    names = {str: "a string", Secret: "a string", Path: "a path", int: "a whole number", bool: "true or false"}
    if base not in names:
        raise TypeError(f"{place}: records.py does not know the type {kind!r}")
    raise _wrong(place, "***" if base is Secret else data, names[base])


def _dataclass(data: object, cls: type, place: str) -> Any:
    given = _dict(data, place)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in given:
        if key not in fields:
            known = ", ".join(sorted(fields))
            raise RecordError(f"{_join(place, escape(key))}: this key is not known; the keys here are {known}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in given:
            raise RecordError(f"{_join(place, name)}: this key is missing")
    values = {key: _convert(item, _hints(cls)[key], _join(place, key)) for key, item in given.items()}
    try:
        return cls(**values)
    except RecordError:
        raise
    except ValueError as e:
        raise RecordError(f"{place}: {e}" if place else str(e)) from None


def _wrong(place: str, data: object, wanted: str) -> RecordError:
    shown = escape(repr(data), limit=80)
    return RecordError(f"{place or 'the document'}: {shown} is not {wanted}")


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _list(data: object, place: str) -> list[object]:
    if not isinstance(data, list):
        raise _wrong(place, data, "a list")
    return data


def _dict(data: object, place: str) -> dict[str, object]:
    if not isinstance(data, dict):
        raise _wrong(place, data, "a table of keys")
    return data


def _no_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise RecordError(f"the key {escape(key)!r} stands twice")
        found[key] = value
    return found


def _require_shallow(data: object) -> None:
    """Level by level: who sends it decides how deep it is, and our stack is not his."""
    level = [data]
    for _ in range(DEPTH_LIMIT + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise RecordError("the document is nested too deeply")


def _no_float(text: str) -> object:
    raise RecordError(f"{escape(text)} is not a whole number")
