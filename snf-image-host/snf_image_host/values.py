"""The values of single OS parameters: text from anybody who may create instances, parsed once, strictly, bounded.

Each `parse_` raises ValueError with a sentence that does not name the parameter.
"""

from __future__ import annotations

import base64
import binascii
import enum
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, cast

from snf_image_host.sources import Fetchable, parse_fetchable
from synnefo_light.log import Secret, escape
from synnefo_light.manifest import Compression, ImageFormat, SourceFormat

KEYS_LIMIT: Final = 64 << 10
PASSWORD_LIMIT: Final = 511  # bytes: what crypt(3) takes
USERDATA_LIMIT: Final = 1 << 20
SIGNATURE_LIMIT: Final = 64 << 10
INLINE: Final = "base64:"

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    algorithm: Literal["sha256", "sha512"]
    hexdigest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A detached OpenPGP signature: its bytes, or where they are."""

    content: bytes | None = None
    source: Fetchable | None = None


def optional(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """Empty stands for "not given": callers of snf-image set all parameters, with nothing in those they do not use."""
    return lambda text: parse(text) if text else None


def parse_format(text: str) -> ImageFormat:
    return _one_of(text, ImageFormat, "a format")


def parse_source_format(text: str) -> SourceFormat:
    return _one_of(text, SourceFormat, "a format of disk images")


def parse_compression(text: str) -> Compression:
    return _one_of(text, Compression, "a compression")


def _one_of(text: str, known: type[E], what: str) -> E:
    try:
        return known(text)
    except ValueError:
        names = ", ".join(str(e.value) for e in known)
        raise ValueError(f"'{escape(text, limit=80)}' is not {what}; give one of {names}") from None


def parse_password(text: str) -> Secret:
    if not text:
        raise ValueError("it is empty; give a password, or leave the parameter out to keep the image's")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("it is not UTF-8") from None
    if size > PASSWORD_LIMIT:
        raise ValueError(f"it has {size} bytes, at most {PASSWORD_LIMIT} are accepted")
    return Secret(text)


def parse_hash(text: str) -> Secret:
    if not text.startswith("$") and text not in ("*", "!"):
        raise ValueError(
            "it is no hash of crypt(5), which begins with $; give one, * or ! to lock the password, or img_passwd"
        )
    return Secret(text)


def parse_keys(text: str) -> str:
    if len(text) > KEYS_LIMIT:
        raise ValueError(f"it has {len(text)} characters, at most {KEYS_LIMIT} are accepted")
    for n, line in enumerate(text.splitlines(), 1):
        if not line.replace("\t", " ").isprintable():
            raise ValueError(f"line {n} has control characters")
        if line.strip() and not line.lstrip().startswith("#") and len(line.split()) < 2:
            raise ValueError(f"line {n} is not a public key (TYPE KEY COMMENT, as in sshd(8))")
    return text.rstrip("\n") + "\n" if text.strip() else ""


def parse_checksum(text: str) -> Checksum:
    match = re.fullmatch(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})", text.lower())
    if match is None:
        raise ValueError(f"'{escape(text, limit=80)}' is neither sha256: with 64 nor sha512: with 128 hex digits")
    algorithm = cast(Literal["sha256", "sha512"], match[1] or match[3])
    return Checksum(algorithm=algorithm, hexdigest=match[2] or match[4])


def parse_signature(text: str) -> Signature:
    if not text.startswith(INLINE):
        return Signature(source=parse_fetchable(text))
    content = _base64(text.removeprefix(INLINE), SIGNATURE_LIMIT)
    if not content:
        raise ValueError("it is empty after base64:")
    return Signature(content=content)


def parse_product_key(text: str) -> Secret:
    if re.fullmatch(r"[A-Z0-9]{5}(-[A-Z0-9]{5}){4}", text.upper()) is None:
        raise ValueError("it is not five groups of five letters and digits with - between them")
    return Secret(text.upper())


def parse_userdata(text: str) -> str:
    """Base64 without blanks."""
    _base64(text, USERDATA_LIMIT)
    return "".join(text.split())


def parse_addresses(text: str) -> tuple[str, ...]:
    return tuple(_address(word) for word in _words(text))


def parse_domains(text: str) -> tuple[str, ...]:
    for word in _words(text):
        if len(word) > 253 or not all(re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)", p) for p in word.split(".")):
            raise ValueError(f"'{escape(word, limit=80)}' is not a domain name")
    return tuple(_words(text))


def _base64(text: str, limit: int) -> bytes:
    if len(text) > 2 * limit:
        raise ValueError(f"it has {len(text)} characters, at most {limit} bytes are accepted")
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64") from None
    if len(content) > limit:
        raise ValueError(f"it has {len(content)} bytes, at most {limit} are accepted")
    return content


def _address(word: str) -> str:
    if "%" in word:
        raise ValueError(
            f"'{escape(word, limit=80)}' has a scope, which holds on one machine only; leave out the % part"
        )
    try:
        return str(ipaddress.ip_address(word))
    except ValueError:
        raise ValueError(f"'{escape(word, limit=80)}' is not an address") from None


def _words(text: str) -> list[str]:
    words = text.replace(",", " ").split()
    if len(words) > 16:
        raise ValueError(f"it has {len(words)} entries, at most 16 are accepted")
    return words
