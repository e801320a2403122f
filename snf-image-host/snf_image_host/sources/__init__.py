"""Where an image's bytes come from. `parse_img_id` says which source it is; each source opens as an `OpenImage`.

A source yields chunks `(offset, data)` in rising order, at most CHUNK bytes each; what lies between them is zeros.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

from synnefo_light.log import escape

CHUNK: Final = 1 << 20

STORE: Final = "store"
#: Synnefo's name for what `store://map:HASH` is here.
PITHOS_MAP: Final = re.compile(r"pithosmap://([0-9a-f]{64})(?:/[0-9]{1,20})?")
WEB: Final = ("http", "https")
FTP: Final = ("ftp", "ftps")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalImage:
    """A file of the node's image folder, by a path in it (or, deprecated, an absolute path below it)."""

    name: str
    deprecated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpImage:
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FtpImage:
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreImage:
    """An image or snapshot of the store: its name, or map:HASH, as a disk's `origin` takes them."""

    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoImage:
    """`null`: nothing is copied, what the disk holds is customised."""


#: What has bytes, and so can hold an image, a signature, an answer file or a configuration.
Fetchable = LocalImage | HttpImage | FtpImage
ImageSource = Fetchable | StoreImage | NoImage


class OpenImage(Protocol):
    """An image ready to be read once."""

    @property
    def size(self) -> int: ...  # bytes

    def chunks(self) -> Iterator[tuple[int, memoryview]]:
        """The data, each chunk valid until the next is asked for. Raises PeerError, EnvironmentFault."""
        ...


def parse_img_id(text: str) -> ImageSource:
    """`NAME`, `local://NAME`, `file://NAME`, `http(s)://...`, `ftp(s)://...`, `store://NAME`, `pithosmap://HASH/SIZE`,
    or `null`. Raises ValueError.
    """
    if text == "null":
        return NoImage()
    if text.partition(":")[0].lower() in (STORE, "pithosmap"):
        return _stored(text)
    return parse_fetchable(text)


def parse_fetchable(text: str) -> Fetchable:
    """What has bytes of its own: the same without `null` and the store. Raises ValueError with a sentence."""
    if not text.isprintable() or len(text) > 4096:
        raise ValueError("it has control characters or is longer than 4096 characters")
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if not colon:
        return _local(text, deprecated=False)
    if scheme in ("local", "file") and rest.startswith("//"):
        return _local(rest[2:], deprecated=scheme == "file")
    if scheme in WEB:
        return HttpImage(url=check_url(text))
    if scheme in FTP:
        return FtpImage(url=_check_ftp(text))
    if scheme in (STORE, "pithosmap"):
        raise ValueError("the store holds disks; give a file of the image folder or an http(s) or ftp(s) address")
    if scheme == "pithos":
        raise ValueError(
            "pithos: names a file of an account, of which the store here knows nothing; give store://NAME as "
            "`snf-store image list` shows it, a file of the image folder, or an http(s) or ftp(s) address"
        )
    raise ValueError(
        f"'{shown(text)}' is neither a file of the image folder (NAME or local://NAME), an http(s) or ftp(s) address, "
        f"an image of the store (store://NAME), nor null"
    )


def check_url(url: str, schemes: tuple[str, ...] = WEB) -> str:
    """The URL if a node may ask it; raises ValueError otherwise. Holds for what a server redirects to as well."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as e:
        raise ValueError(f"'{shown(url)}' is not an address: {e}") from None
    if parts.scheme.lower() not in schemes:
        allowed = " and ".join(f"{scheme}:" for scheme in schemes)
        raise ValueError(f"{escape(parts.scheme, limit=20)}: is not a scheme to fetch this with; only {allowed} are")
    if not parts.hostname:
        raise ValueError(f"'{shown(url)}' names no host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the address carries a user or password, which everybody who may list instances could read")
    return url


def shown(url: str) -> str:
    """A URL as a sentence may show it: without its query or fragment, where a secret may stand, and a password."""
    before, mark, after = url.partition("?")
    scheme, slashes, rest = before.partition("//")
    if slashes:
        rest, _, fragment = rest.partition("#")
        host = rest.partition("/")[0]
        # What is refused for its password may hold a /, ? or # in it: then the port is none, and an @ follows.
        port = re.sub(r"^\[[^]]*\]", "", host).partition(":")[2]
        if "@" not in host and port and not port.isdigit() and "@" in rest + fragment + after:
            return escape(f"{scheme}//...", limit=200)
        before = scheme + slashes + re.sub("^[^/]*@", "...@", rest)
    return escape(before, limit=200) + ("?..." if mark else "")


def file_name(source: ImageSource) -> str:
    """The last part of the source's name, of which a suffix may tell the format; empty for `null`
    and the store, which knows what it has."""
    if isinstance(source, NoImage | StoreImage):
        return ""
    path = source.name if isinstance(source, LocalImage) else urlsplit(source.url).path
    return path.rpartition("/")[2]


def _stored(text: str) -> StoreImage:
    match = PITHOS_MAP.fullmatch(text)
    if match is not None:
        return StoreImage(reference=f"map:{match[1]}")
    scheme, slashes, reference = text.partition("://")
    if scheme.lower() != STORE or not slashes:
        raise ValueError(
            f"'{shown(text)}' is neither store://NAME, store://map:HASH nor pithosmap://HASH/SIZE, HASH being 64 "
            f"hexadecimal digits"
        )
    if re.fullmatch(r"map:[0-9a-f]{64}|(?!map:)[A-Za-z0-9_][A-Za-z0-9._+:@-]{0,199}", reference) is None:
        raise ValueError(
            f"'{shown(text)}' names no image of the store: after store:// comes its name, of letters, digits and "
            f"._+:@-, or map: and 64 hexadecimal digits"
        )
    return StoreImage(reference=reference)


def _check_ftp(url: str) -> str:
    check_url(url, FTP)
    if "?" in url or "#" in url:
        raise ValueError(f"'{shown(url)}' has a ? or #, which mean nothing to FTP; in a file's name write %3F and %23")
    path = unquote_to_bytes(urlsplit(url).path)
    if not path.strip(b"/"):
        raise ValueError(f"'{shown(url)}' names no file")
    if any(byte < 0x20 or byte == 0x7F for byte in path):
        raise ValueError(f"'{shown(url)}' has control characters in its path")
    return url


def _local(name: str, *, deprecated: bool) -> LocalImage:
    if not name or name.endswith("/"):
        raise ValueError("it names no file")
    if ".." in name.split("/"):
        raise ValueError(f"{name!r} contains '..', which would lead out of the image folder")
    if name.startswith("/") and not deprecated:
        raise ValueError(f"{name!r} is an absolute path; give the name below the image folder")
    return LocalImage(name=name, deprecated=deprecated)
