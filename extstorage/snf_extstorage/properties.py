"""Properties of an image, as snf-image(7) names them: words of a command, and what is known of an image already."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Final

from synnefo_light.errors import UserError

LIMIT: Final = 100


def add_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--property", metavar="KEY=VALUE", action="append", default=[], help="as snf-image(7) names them"
    )


def parse_properties(given: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE words; keys in upper case, as snf-image knows them. Raises UserError."""
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not _is_key(key) or not value.isprintable():
            raise UserError(f"the property {text[:80]!r} is not KEY=VALUE, a word and printable text")
        if key.upper() in found:
            raise UserError(f"the property {key.upper()} is given twice")
        found[key.upper()] = value
    return _few(found)


def plan_properties(known: Mapping[str, str], given: Mapping[str, str], unset: Sequence[str]) -> dict[str, str]:
    """What an image's properties become; `unset` in any case. Raises UserError for a key that is not there."""
    left = dict(known)
    for key in unset:
        spelled = next((k for k in left if k.upper() == key.upper()), None)
        if spelled is None:
            raise UserError(f"there is no property {key[:80]!r} to be unset; there are {', '.join(left) or 'none'}")
        del left[spelled]
    return _few({k: v for k, v in left.items() if k.upper() not in given} | dict(given))


def _is_key(text: str) -> bool:
    return text.isidentifier() and text.isascii()


def _few(properties: dict[str, str]) -> dict[str, str]:
    if len(properties) > LIMIT:
        raise UserError(f"there are {len(properties)} properties; an image has at most {LIMIT}")
    return properties
