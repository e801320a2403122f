"""The OS parameters. One table declares each: its name, meaning, values and default.

From it come `verify`, `parameters.list`, the table of snf-image(7) (held to it by a test) and what `create` is given.
Every class of Ganeti parameter is accepted (public, private, secret): all arrive the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, cast

from snf_image_host.likeness import nearest
from snf_image_host.personality import parse_personality
from snf_image_host.properties import Properties, parse_properties, read_properties, unknown_names
from snf_image_host.sources import (
    Fetchable,
    ImageSource,
    LocalImage,
    NoImage,
    StoreImage,
    file_name,
    parse_fetchable,
    parse_img_id,
    shown,
)
from snf_image_host.sources.store import StoredImage
from snf_image_host.values import (
    Checksum,
    Signature,
    optional,
    parse_addresses,
    parse_checksum,
    parse_compression,
    parse_domains,
    parse_format,
    parse_hash,
    parse_keys,
    parse_password,
    parse_product_key,
    parse_signature,
    parse_source_format,
    parse_userdata,
)
from synnefo_light.encodings import encoding_of
from synnefo_light.errors import UserError
from synnefo_light.log import Secret, escape
from synnefo_light.manifest import Compression, ImageFormat, InjectedFile, Password, SourceFormat
from synnefo_light.tasks import TaskInfo

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

    def of(self, given: Mapping[str, str]) -> T | None:
        """Its value in `given`, None if it is not there. Raises ParameterError."""
        text = given.get(self.name)
        if text is None:
            return None
        try:
            return self.parse(text)
        except ValueError as e:
            raise ParameterError(f"{self.name}: {e}") from None


IMG_ID = Parameter(
    name="img_id",
    kind="NAME, local://NAME, http(s)://..., ftp(s)://..., store://NAME, null",
    summary="image: file of the node's image folder, http(s) or ftp(s) address, of the store, or null to copy nothing",
    parse=parse_img_id,
    default="required",
)
IMG_FORMAT = Parameter(
    name="img_format",
    kind="|".join(f.value for f in ImageFormat),
    summary="what the image is: a whole disk, or one file system (ext, NTFS) that gets a partition table",
    parse=parse_format,
    default="required; of the store: diskdump",
)
IMG_PASSWD = Parameter(
    name="img_passwd",
    kind="text",
    summary="password of the users, in clear; better given as secret",
    parse=parse_password,
)
IMG_PASSWD_HASH = Parameter(
    name="img_passwd_hash", kind="crypt(5) hash", summary="password of the users, ready hashed", parse=parse_hash
)
AUTH_KEYS = Parameter(
    name="auth_keys", kind="lines", summary="public keys to add to the users' authorized_keys", parse=parse_keys
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
CONFIG_URL = Parameter(
    name="config_url",
    kind="URL or NAME",
    summary="JSON object with further parameters, which overwrite those given here",
    parse=optional(parse_fetchable),
)
OS_PRODUCT_KEY = Parameter(
    name="os_product_key",
    kind="five groups of five",
    summary="product key of Windows",
    parse=optional(parse_product_key),
)
OS_ANSWER_FILE = Parameter(
    name="os_answer_file",
    kind="URL or NAME",
    summary="answer file of Windows, instead of the image's and ours",
    parse=optional(parse_fetchable),
)
CLOUD_USERDATA = Parameter(
    name="cloud_userdata",
    kind="base64",
    summary="user-data of cloud-init; needs the property CLOUD_INIT",
    parse=optional(parse_userdata),
)
IMG_SOURCE_FORMAT = Parameter(
    name="img_source_format",
    kind="|".join(f.value for f in SourceFormat),
    summary="format of the image's bytes, converted in the helper VM",
    parse=parse_source_format,
    default="what the name's end says, else raw",
)
IMG_COMPRESSION = Parameter(
    name="img_compression",
    kind="|".join(c.value for c in Compression),
    summary="compression of the image's bytes, undone in the helper VM",
    parse=parse_compression,
    default="what the name's end says, else none",
)
IMG_CHECKSUM = Parameter(
    name="img_checksum",
    kind="sha256:HEX or sha512:HEX",
    summary="what the image's bytes must sum up to, as they come",
    parse=parse_checksum,
)
IMG_SIGNATURE = Parameter(
    name="img_signature",
    kind="URL, NAME or base64:TEXT",
    summary="detached OpenPGP signature of the image's bytes, as they come",
    parse=parse_signature,
)
DNS_NAMESERVERS = Parameter(
    name="dns_nameservers",
    kind="addresses, separated by blanks",
    summary="name servers to configure",
    parse=parse_addresses,
    default="those of the node's configuration",
)
DNS_SEARCH = Parameter(
    name="dns_search",
    kind="domains, separated by blanks",
    summary="search domains to configure",
    parse=parse_domains,
    default="those of the node's configuration",
)

PARAMETERS: Final[tuple[Parameter[object], ...]] = cast(
    tuple[Parameter[object], ...],
    (
        *(IMG_ID, IMG_FORMAT, IMG_PASSWD, IMG_PASSWD_HASH, AUTH_KEYS, IMG_PROPERTIES, INST_PROPERTIES),
        *(IMG_PERSONALITY, CONFIG_URL, OS_PRODUCT_KEY, OS_ANSWER_FILE, CLOUD_USERDATA),
        *(IMG_SOURCE_FORMAT, IMG_COMPRESSION, IMG_CHECKSUM, IMG_SIGNATURE, DNS_NAMESERVERS, DNS_SEARCH),
    ),
)
KNOWN: Final = frozenset(p.name for p in PARAMETERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What an instance asks for."""

    source: ImageSource
    image: str  # img_id, as it may be shown: for people and events
    image_format: ImageFormat
    source_format: SourceFormat
    compression: Compression
    checksum: Checksum | None
    signature: Signature | None
    passwords: tuple[Password, ...]
    auth_keys: str
    properties: Properties
    files: tuple[InjectedFile, ...]
    nameservers: tuple[str, ...] | None
    search: tuple[str, ...] | None
    product_key: Secret | None
    answer_file: Fetchable | None
    userdata: str  # base64
    warnings: tuple[str, ...] = ()
    stored: StoredImage | None = None  # what the store says of it, where it is of the store

    @property
    def converts(self) -> bool:
        """Whether the helper VM must make a disk out of the image's bytes."""
        return self.source_format is not SourceFormat.RAW or self.compression is not Compression.NONE


def merge(given: Mapping[str, str], preset: Mapping[str, str] | None = None) -> dict[str, str]:
    """`given`, and `preset` where that is silent. Raises ParameterError for a name that is no parameter."""
    for name in (*given, *(preset or {})):
        if name not in KNOWN:
            raise ParameterError(
                f"the OS parameter '{escape(name, limit=80)}' is not known{nearest(name, KNOWN, prefix='img_')}"
            )
    return {**(preset or {}), **given}


def check_values(given: Mapping[str, str]) -> None:
    """Each value by itself: all that can be said while the rest is still to be fetched. Raises ParameterError."""
    for parameter in PARAMETERS:
        parameter.of(given)


def parse_parameters(
    given: Mapping[str, str],
    *,
    tasks: Sequence[TaskInfo],
    strict: bool = True,
    preset: Mapping[str, str] | None = None,
    stored: StoredImage | None = None,
) -> Parameters:
    """OS parameters by name; `preset` (of a variant) holds where `given` is silent, `tasks` are those of the helper.

    `stored`: what the store says of the image, whose properties hold where img_properties is silent. Not `strict`:
    properties are read as snf-image did. Raises ParameterError. What config_url names is not looked at.
    """
    both = merge(given, preset)
    if both.get("img_passwd") is not None and both.get("img_passwd_hash") is not None:
        raise ParameterError("img_passwd and img_passwd_hash are both given; give one of them")
    source, image_format = IMG_ID.of(both), IMG_FORMAT.of(both)
    if source is None:
        raise ParameterError(
            "img_id is missing: which image is to be deployed? Give -O img_id=NAME,img_format=diskdump"
        )
    if isinstance(source, StoreImage):
        _check_stored(both, image_format)
        image_format = ImageFormat.DISKDUMP
    if image_format is None:
        raise ParameterError("img_format is missing; give -O img_format=diskdump")
    source_format, compression = _encoding(both, source, image_format)
    properties, warnings = _properties(both, tasks, image_format, strict=strict, stored=stored)
    userdata = CLOUD_USERDATA.of(both) or ""
    if userdata and not properties.cloud_init:
        raise ParameterError(
            "cloud_userdata is given, but the property CLOUD_INIT is not yes, so nothing would read it; give "
            'img_properties={"CLOUD_INIT": "yes"}, or leave it out'
        )
    return Parameters(
        source=source,
        image=both["img_id"] if isinstance(source, NoImage | LocalImage) else shown(both["img_id"]),
        image_format=image_format,
        source_format=source_format,
        compression=compression,
        checksum=IMG_CHECKSUM.of(both),
        signature=IMG_SIGNATURE.of(both),
        passwords=_passwords(properties.users, IMG_PASSWD.of(both), IMG_PASSWD_HASH.of(both)),
        auth_keys=AUTH_KEYS.of(both) or "",
        properties=properties,
        files=IMG_PERSONALITY.of(both) or (),
        nameservers=DNS_NAMESERVERS.of(both),
        search=DNS_SEARCH.of(both),
        product_key=OS_PRODUCT_KEY.of(both),
        answer_file=OS_ANSWER_FILE.of(both),
        userdata=userdata,
        warnings=warnings,
        stored=stored,
    )


def render_parameters_list() -> str:
    """The file parameters.list, which Ganeti reads (ganeti-os-interface(7)): one `name summary` a line."""
    return "".join(f"{p.name} {p.summary}\n" for p in PARAMETERS)


def _check_stored(both: Mapping[str, str], image_format: ImageFormat | None) -> None:
    """Raises ParameterError for what is said of an image of the store in vain."""
    if image_format not in (None, ImageFormat.DISKDUMP):
        raise ParameterError(f"img_format is {image_format.value}, but the store has whole disks only; leave it out")
    for parameter in (IMG_SOURCE_FORMAT, IMG_COMPRESSION, IMG_CHECKSUM, IMG_SIGNATURE):
        if parameter.name in both:
            raise ParameterError(
                f"{parameter.name} is given, but an image of the store was brought and checked when it was registered; "
                f"leave it out, and name the content itself as store://map:HASH if that must be certain"
            )


def _encoding(
    both: Mapping[str, str], source: ImageSource, image_format: ImageFormat
) -> tuple[SourceFormat, Compression]:
    by_name = encoding_of(file_name(source))
    source_format = IMG_SOURCE_FORMAT.of(both) or by_name[0]
    compression = IMG_COMPRESSION.of(both) or by_name[1]
    if isinstance(source, NoImage):
        given = [p.name for p in (IMG_SOURCE_FORMAT, IMG_COMPRESSION, IMG_CHECKSUM, IMG_SIGNATURE) if p.name in both]
        if given:
            raise ParameterError(f"{given[0]} is given, but with img_id=null nothing is copied; leave one of them out")
    if source_format is not SourceFormat.RAW and compression is not Compression.NONE:
        raise ParameterError(
            f"the image is {source_format.value} within {compression.value} (by its name, img_source_format or "
            f"img_compression), which there is no place to unpack; unpack it, or give a raw image in "
            f"{compression.value}"
        )
    if image_format is not ImageFormat.DISKDUMP and (source_format, compression) != (
        SourceFormat.RAW,
        Compression.NONE,
    ):
        what = source_format.value if source_format is not SourceFormat.RAW else compression.value
        raise ParameterError(
            f"img_format is {image_format.value}, which is taken raw and uncompressed only, but the image is {what} "
            f"(by its name, img_source_format or img_compression); unpack it, or make a diskdump of it"
        )
    return source_format, compression


def _properties(
    both: Mapping[str, str],
    tasks: Sequence[TaskInfo],
    image_format: ImageFormat,
    *,
    strict: bool,
    stored: StoredImage | None,
) -> tuple[Properties, tuple[str, ...]]:
    found: dict[str, str] = {}
    warnings: list[str] = []
    sources: dict[str, Mapping[str, str]] = {}
    if stored is not None:
        sources[f"the properties of {stored.name}"] = {name.upper(): text for name, text in stored.properties.items()}
    sources |= {parameter.name: parameter.of(both) or {} for parameter in (IMG_PROPERTIES, INST_PROPERTIES)}
    for whose, mine in sources.items():
        strangers = unknown_names(mine)
        if strangers and strict:
            raise ParameterError(f"{whose}: {strangers[0]}")
        warnings += [f"{whose}: {sentence}; it is left out" for sentence in strangers]
        found |= mine
    try:
        properties = parse_properties(found, tasks, strict=strict, image_format=image_format)
    except ValueError as e:
        also = f" or {next(iter(sources))}" if stored is not None else ""
        raise ParameterError(f"img_properties or inst_properties{also}: {e}") from None
    return properties, (*warnings, *properties.warnings)


def _passwords(users: tuple[str, ...], clear: Secret | None, hashed: Secret | None) -> tuple[Password, ...]:
    if clear is None and hashed is None:
        return ()
    try:
        return tuple(Password(user=user, clear=clear, hashed=hashed) for user in users)
    except ValueError as e:
        raise ParameterError(f"{'img_passwd' if clear else 'img_passwd_hash'}: {e}") from None
