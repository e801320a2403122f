"""Open what an address names, whichever source it is; and read small things whole: signatures, answer files, JSON."""

from __future__ import annotations

import contextlib

from snf_image_host.settings import Settings
from snf_image_host.sources import Fetchable, FtpImage, LocalImage, OpenImage, shown
from snf_image_host.sources.guard import Rules
from snf_image_host.sources.local import open_local
from synnefo_light.errors import UserError
from synnefo_light.log import escape, logger


def rules_of(settings: Settings) -> Rules:
    return Rules(
        networks=settings.http_networks, timeout_s=settings.http_timeout_s, limit_s=float(settings.http_limit_s)
    )


def open_source(source: Fetchable, settings: Settings, opened: contextlib.ExitStack) -> OpenImage:
    """The source ready to be read, as long as `opened` is. Raises UserError, PeerError."""
    if isinstance(source, LocalImage):
        if source.deprecated:
            logger.warning("image=%s file: is deprecated; say local://NAME", escape(source.name))
        return opened.enter_context(open_local(source, settings.image_dir))
    if isinstance(source, FtpImage):
        from snf_image_host.sources.ftp import open_ftp

        return opened.enter_context(open_ftp(source, rules_of(settings)))
    # Only here: requests costs as much memory and time to import as all the rest.
    from snf_image_host.sources.http import open_http

    return opened.enter_context(open_http(source, rules_of(settings)))


def fetch(source: Fetchable, settings: Settings, *, what: str, limit: int) -> bytes:
    """All of a small thing of at most `limit` bytes; `what` is its parameter. Raises UserError, PeerError."""
    name = escape(source.name) if isinstance(source, LocalImage) else shown(source.url)
    with contextlib.ExitStack() as opened:
        found = open_source(source, settings, opened)
        if found.size > limit:
            raise UserError(f"{what}: {name} has {found.size} bytes, at most {limit} are accepted")
        content = bytearray(found.size)
        for offset, data in found.chunks():
            content[offset : offset + len(data)] = data
        return bytes(content)
