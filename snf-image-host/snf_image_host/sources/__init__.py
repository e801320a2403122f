"""Where an image's bytes come from. `parse_img_id` says which source it is; each source opens as an `OpenImage`.

A source yields chunks `(offset, data)` in rising order, at most CHUNK bytes each; what lies between them is zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

CHUNK: Final = 1 << 20

#: Schemes of snf-image that come with later issues of this product.
LATER: Final = ("pithos", "pithosmap", "ftp", "ftps")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalImage:
    """A file of the node's image folder, by a path in it (or, deprecated, an absolute path below it)."""

    name: str
    deprecated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpImage:
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoImage:
    """`null`: nothing is copied, what the disk holds is customised."""


ImageSource = LocalImage | HttpImage | NoImage


class OpenImage(Protocol):
    """An image ready to be read once."""

    @property
    def size(self) -> int: ...  # bytes

    def chunks(self) -> Iterator[tuple[int, memoryview]]:
        """The data, each chunk valid until the next is asked for. Raises PeerError, EnvironmentFault."""
        ...


def parse_img_id(text: str) -> ImageSource:
    """`NAME`, `local://NAME`, `file://NAME`, `http(s)://...` or `null`. Raises ValueError with a sentence."""
    if not text.isprintable() or len(text) > 4096:
        raise ValueError("it has control characters or is longer than 4096 characters")
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if text == "null":
        return NoImage()
    if not colon:
        return _local(text, deprecated=False)
    if scheme in ("local", "file") and rest.startswith("//"):
        return _local(rest[2:], deprecated=scheme == "file")
    if scheme in ("http", "https"):
        return HttpImage(url=check_url(text))
    if scheme in LATER:
        raise ValueError(f"images of {scheme}: come later; give a file of the image folder or an http(s) address")
    raise ValueError(
        f"{text!r} is neither a file of the image folder (NAME or local://NAME), an http(s) address, nor null"
    )


def check_url(url: str) -> str:
    """The URL if a node may ask it; raises ValueError otherwise. Holds for what a server redirects to as well."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as e:
        raise ValueError(f"{url!r} is not an address: {e}") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise ValueError(f"{parts.scheme}: is not a scheme that images are fetched with; only http: and https: are")
    if not parts.hostname:
        raise ValueError(f"{url!r} names no host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the address carries a user or password, which everybody who may list instances could read")
    return url


def _local(name: str, *, deprecated: bool) -> LocalImage:
    if not name or name.endswith("/"):
        raise ValueError("it names no file")
    if ".." in name.split("/"):
        raise ValueError(f"{name!r} contains '..', which would lead out of the image folder")
    if name.startswith("/") and not deprecated:
        raise ValueError(f"{name!r} is an absolute path; give the name below the image folder")
    return LocalImage(name=name, deprecated=deprecated)
