"""The OS parameters. One table declares each: its name, meaning, values, default, and whether it is served yet.

From it come `verify`, `parameters.list`, the table of snf-image(7) (held to it by a test) and what `create` is given.
Every class of Ganeti parameter is accepted (public, private, secret): all arrive the same way.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar, cast

from snf_image_host.personality import parse_personality
from snf_image_host.properties import Properties, nearest, parse_properties, read_properties
from snf_image_host.sources import ImageSource, NoImage, parse_img_id
from synnefo_light.errors import UserError
from synnefo_light.log import Secret, escape
from synnefo_light.manifest import ImageFormat, InjectedFile, Password
from synnefo_light.tasks import TaskInfo

KEYS_LIMIT: Final = 64 << 10
PASSWORD_LIMIT: Final = 511  # bytes: what crypt(3) takes

T = TypeVar("T")


class ParameterError(UserError):
    """An OS parameter that is missing, unknown or has a value we refuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter(Generic[T]):
    """One OS parameter. `parse` raises ValueError with a sentence that does not name the parameter."""

    name: str
    kind: str
    summary: str  # one line: parameters.list and the man page
    parse: Callable[[str], T]
    default: str = "none"
    served: bool = True

    def of(self, given: Mapping[str, str]) -> T | None:
        """Its value in `given`, None if it is not there. Raises ParameterError."""
        text = given.get(self.name)
        if text is None:
            return None
        try:
            return self.parse(text)
        except ValueError as e:
            raise ParameterError(f"{self.name}: {e}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    algorithm: Literal["sha256", "sha512"]
    hexdigest: str


def _format(text: str) -> ImageFormat:
    if text in (ImageFormat.EXTDUMP.value, ImageFormat.NTFSDUMP.value):
        raise ValueError(f"the format {text} comes later; give diskdump")
    if text != ImageFormat.DISKDUMP.value:
        raise ValueError(f"'{escape(text, limit=80)}' is not a format; give diskdump")
    return ImageFormat.DISKDUMP


def _password(text: str) -> Secret:
    if not text:
        raise ValueError("it is empty; give a password, or leave the parameter out to keep the image's")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("it is not UTF-8") from None
    if size > PASSWORD_LIMIT:
        raise ValueError(f"it has {size} bytes, at most {PASSWORD_LIMIT} are accepted")
    return Secret(text)


def _hash(text: str) -> Secret:
    if not text.startswith("$") and text not in ("*", "!"):
        raise ValueError(
            "it is no hash of crypt(5), which begins with $; give one, * or ! to lock the password, or img_passwd"
        )
    return Secret(text)


def _keys(text: str) -> str:
    if len(text) > KEYS_LIMIT:
        raise ValueError(f"it has {len(text)} characters, at most {KEYS_LIMIT} are accepted")
    for n, line in enumerate(text.splitlines(), 1):
        if not line.replace("\t", " ").isprintable():
            raise ValueError(f"line {n} has control characters")
        if line.strip() and not line.lstrip().startswith("#") and len(line.split()) < 2:
            raise ValueError(f"line {n} is not a public key (TYPE KEY COMMENT, as in sshd(8))")
    return text.rstrip("\n") + "\n" if text.strip() else ""


def _checksum(text: str) -> Checksum:
    match = re.fullmatch(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})", text.lower())
    if match is None:
        raise ValueError(f"'{escape(text, limit=80)}' is neither sha256: with 64 nor sha512: with 128 hex digits")
    algorithm = cast(Literal["sha256", "sha512"], match[1] or match[3])
    return Checksum(algorithm=algorithm, hexdigest=match[2] or match[4])


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(_address(word) for word in _words(text))


def _address(word: str) -> str:
    if "%" in word:
        raise ValueError(
            f"'{escape(word, limit=80)}' has a scope, which holds on one machine only; leave out the % part"
        )
    try:
        return str(ipaddress.ip_address(word))
    except ValueError:
        raise ValueError(f"'{escape(word, limit=80)}' is not an address") from None


def _domains(text: str) -> tuple[str, ...]:
    for word in _words(text):
        if len(word) > 253 or not all(re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)", p) for p in word.split(".")):
            raise ValueError(f"'{escape(word, limit=80)}' is not a domain name")
    return tuple(_words(text))


def _words(text: str) -> list[str]:
    words = text.replace(",", " ").split()
    if len(words) > 16:
        raise ValueError(f"it has {len(words)} entries, at most 16 are accepted")
    return words


def _later(text: str) -> None:
    if text:
        raise ValueError("this parameter comes later; leave it out")


IMG_ID = Parameter(
    name="img_id",
    kind="NAME, local://NAME, http(s)://..., null",
    summary="image: file of the node's image folder, http(s) address, or null to copy nothing",
    parse=parse_img_id,
    default="required",
)
IMG_FORMAT = Parameter(
    name="img_format", kind="diskdump", summary="format of the image's bytes", parse=_format, default="required"
)
IMG_PASSWD = Parameter(
    name="img_passwd", kind="text", summary="password of the users, in clear; better given as secret", parse=_password
)
IMG_PASSWD_HASH = Parameter(
    name="img_passwd_hash", kind="crypt(5) hash", summary="password of the users, ready hashed", parse=_hash
)
AUTH_KEYS = Parameter(
    name="auth_keys", kind="lines", summary="public keys to add to the users' authorized_keys", parse=_keys
)
IMG_PROPERTIES = Parameter(
    name="img_properties", kind="JSON object", summary="properties of the image", parse=read_properties
)
INST_PROPERTIES = Parameter(
    name="inst_properties", kind="JSON object", summary="properties that override img_properties", parse=read_properties
)
IMG_PERSONALITY = Parameter(
    name="img_personality", kind="JSON array", summary="files to put into the image", parse=parse_personality
)
IMG_CHECKSUM = Parameter(
    name="img_checksum",
    kind="sha256:HEX or sha512:HEX",
    summary="what the image's bytes must sum up to",
    parse=_checksum,
)
DNS_NAMESERVERS = Parameter(
    name="dns_nameservers",
    kind="addresses, separated by blanks",
    summary="name servers to configure",
    parse=_addresses,
    default="those of the node's configuration",
)
DNS_SEARCH = Parameter(
    name="dns_search",
    kind="domains, separated by blanks",
    summary="search domains to configure",
    parse=_domains,
    default="those of the node's configuration",
)
RESERVED: Final = tuple(
    Parameter(name=name, kind=kind, summary=summary, parse=_later, served=False)
    for name, kind, summary in (
        ("config_url", "URL", "comes later: JSON with further parameters"),
        ("os_product_key", "five groups of five", "comes later: product key of Windows"),
        ("os_answer_file", "URL", "comes later: answer file of Windows"),
        ("cloud_userdata", "base64", "comes later: user-data of cloud-init"),
    )
)

PARAMETERS: Final[tuple[Parameter[object], ...]] = cast(
    tuple[Parameter[object], ...],
    (
        *(IMG_ID, IMG_FORMAT, IMG_PASSWD, IMG_PASSWD_HASH, AUTH_KEYS, IMG_PROPERTIES, INST_PROPERTIES),
        *(IMG_PERSONALITY, IMG_CHECKSUM, DNS_NAMESERVERS, DNS_SEARCH, *RESERVED),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What an instance asks for."""

    source: ImageSource
    image: str  # img_id as given: for people and events
    checksum: Checksum | None
    passwords: tuple[Password, ...]
    auth_keys: str
    properties: Properties
    files: tuple[InjectedFile, ...]
    nameservers: tuple[str, ...] | None
    search: tuple[str, ...] | None


def parse_parameters(
    given: Mapping[str, str], *, tasks: Sequence[TaskInfo], preset: Mapping[str, str] | None = None
) -> Parameters:
    """OS parameters by name; `preset` (of a variant) holds where `given` is silent, `tasks` are those of the helper.

    Raises ParameterError.
    """
    known = {p.name for p in PARAMETERS}
    for name in (*given, *(preset or {})):
        if name not in known:
            raise ParameterError(
                f"the OS parameter '{escape(name, limit=80)}' is not known{nearest(name, known, prefix='img_')}"
            )
    both = {**(preset or {}), **given}
    if both.get("img_passwd") is not None and both.get("img_passwd_hash") is not None:
        raise ParameterError("img_passwd and img_passwd_hash are both given; give one of them")
    for reserved in RESERVED:
        reserved.of(both)
    source, checksum = IMG_ID.of(both), IMG_CHECKSUM.of(both)
    if source is None:
        raise ParameterError(
            "img_id is missing: which image is to be deployed? Give -O img_id=NAME,img_format=diskdump"
        )
    if IMG_FORMAT.of(both) is None:
        raise ParameterError("img_format is missing; give -O img_format=diskdump")
    if checksum is not None and isinstance(source, NoImage):
        raise ParameterError("img_checksum is given, but with img_id=null nothing is copied; leave one of them out")
    properties = _properties(both, tasks)
    return Parameters(
        source=source,
        image=escape(both["img_id"]),
        checksum=checksum,
        passwords=_passwords(properties.users, IMG_PASSWD.of(both), IMG_PASSWD_HASH.of(both)),
        auth_keys=AUTH_KEYS.of(both) or "",
        properties=properties,
        files=IMG_PERSONALITY.of(both) or (),
        nameservers=DNS_NAMESERVERS.of(both),
        search=DNS_SEARCH.of(both),
    )


def render_parameters_list() -> str:
    """The file parameters.list, which Ganeti reads (ganeti-os-interface(7)): one `name summary` a line."""
    return "".join(f"{p.name} {p.summary}\n" for p in PARAMETERS)


def _properties(both: Mapping[str, str], tasks: Sequence[TaskInfo]) -> Properties:
    found = {**(IMG_PROPERTIES.of(both) or {}), **(INST_PROPERTIES.of(both) or {})}
    try:
        return parse_properties(found, tasks)
    except ValueError as e:
        raise ParameterError(f"img_properties or inst_properties: {e}") from None


def _passwords(users: tuple[str, ...], clear: Secret | None, hashed: Secret | None) -> tuple[Password, ...]:
    if clear is None and hashed is None:
        return ()
    try:
        return tuple(Password(user=user, clear=clear, hashed=hashed) for user in users)
    except ValueError as e:
        raise ParameterError(f"{'img_passwd' if clear else 'img_passwd_hash'}: {e}") from None
