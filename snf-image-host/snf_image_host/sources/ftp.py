"""Images, and smaller things, that an FTP server sends; ftps is explicit TLS (RFC 4217), certificate checked.

Anonymous, passive and binary. Whom the node connects to, and for how long, guard.py decides. The address in the answer
to PASV is ignored: data comes from the host that is spoken to already, or a server could point the node at another. The
size must be declared (SIZE, RFC 3659) and must come true. What a server says is bounded, in lines and in length.
"""

from __future__ import annotations

import contextlib
import ftplib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from snf_image_host.sources import FtpImage, shown
from snf_image_host.sources.guard import CONNECT_S, Deadline, Rules, connect, too_slow
from synnefo_light.errors import PeerError, UserError
from synnefo_light.log import escape

CHUNK: Final = 256 << 10
LINES: Final = 1000  # of all answers of a server together


class _Bounded:
    """What both sessions share. ftplib reads an answer of many lines to its end, however far that is."""

    lines = 0
    trust_server_pasv_ipv4_address = False  # of ftplib: the address in the answer to PASV

    def getline(self) -> str:
        self.lines += 1
        if self.lines > LINES:
            raise ftplib.error_proto(f"more than {LINES} lines of answers")  # noqa: S321 - an exception
        line: str = super().getline()  # type: ignore[misc]
        return line


class _Plain(_Bounded, ftplib.FTP):
    pass


class _Secured(_Bounded, ftplib.FTP_TLS):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTransfer:
    ftp: ftplib.FTP
    data: socket.socket
    url: str  # as it may be shown
    size: int
    deadline: Deadline

    def chunks(self) -> Iterator[tuple[int, memoryview]]:
        buffer = memoryview(bytearray(CHUNK))
        position = 0
        try:
            while count := self.data.recv_into(buffer):
                if self.deadline.passed:
                    raise too_slow(self.url)
                if position + count > self.size:
                    raise PeerError(f"{self.url} sent more than the {self.size} bytes that it had declared")
                yield position, buffer[:count]
                position += count
        except OSError as e:
            if self.deadline.passed:
                raise too_slow(self.url) from None
            if isinstance(e, TimeoutError):
                raise PeerError(f"{self.url} stopped sending after {position} of {self.size} bytes") from None
            raise PeerError(self._truncated(position, f" ({escape(str(e), limit=120)})")) from None
        if self.deadline.passed:
            raise too_slow(self.url)
        if position != self.size:
            raise PeerError(self._truncated(position, ""))
        self.deadline.cancel()

    def _truncated(self, position: int, why: str) -> str:
        return f"{self.url} sent only {position} of {self.size} bytes{why}; try again"


@contextlib.contextmanager
def open_ftp(image: FtpImage, rules: Rules) -> Iterator[OpenTransfer]:
    """Log in, ask for the size and begin the transfer. Raises UserError, PeerError naming the address."""
    name, deadline = shown(image.url), Deadline(rules.limit_s)
    with contextlib.ExitStack() as opened:
        opened.callback(deadline.cancel)
        try:
            ftp = _session(image.url, rules, deadline, opened)
            path = unquote(urlsplit(image.url).path, errors="surrogateescape").lstrip("/")
            ftp.voidcmd("TYPE I")
            size = ftp.size(path)
            if size is None or size < 0:
                raise PeerError(f"{name} does not declare its size (SIZE); use a server that does")
            data = _data(ftp, path, rules, deadline, opened)
        except ssl.SSLError as e:
            raise PeerError(f"{name} does not prove who it is: {escape(str(e), limit=200)}") from e
        except UserError:
            raise
        except (ftplib.Error, OSError, EOFError, UnicodeError, ValueError) as e:
            if deadline.passed:
                raise too_slow(name) from e
            said = str(e) or "the server closed the connection"
            raise PeerError(f"{name} cannot be fetched: {escape(said, limit=200)}") from e
        yield OpenTransfer(ftp=ftp, data=data, url=name, size=size, deadline=deadline)


def _session(url: str, rules: Rules, deadline: Deadline, opened: contextlib.ExitStack) -> ftplib.FTP:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or ftplib.FTP_PORT
    context = ssl.create_default_context()
    ftp = _Secured(context=context) if parts.scheme.lower() == "ftps" else _Plain()
    opened.callback(ftp.close)
    # What FTP.connect does, but for the connection itself.
    ftp.host, ftp.port, ftp.timeout, ftp.encoding = host, port, rules.timeout_s, "utf-8"
    ftp.sock = connect(host, port, networks=rules.networks, timeout_s=CONNECT_S, deadline=deadline)
    ftp.sock.settimeout(rules.timeout_s)
    ftp.af = ftp.sock.family
    ftp.file = ftp.sock.makefile("r", encoding="utf-8", errors="backslashreplace", newline="\n")
    ftp.set_pasv(True)
    ftp.welcome = ftp.getresp()
    ftp.login()
    if isinstance(ftp, _Secured):
        ftp.prot_p()
    return ftp


def _data(ftp: ftplib.FTP, path: str, rules: Rules, deadline: Deadline, opened: contextlib.ExitStack) -> socket.socket:
    """What FTP.ntransfercmd does, with a connection that keeps the rules and the deadline, its TLS included."""
    host, port = ftp.makepasv()
    data = connect(host, port, networks=rules.networks, timeout_s=CONNECT_S, deadline=deadline)
    opened.callback(data.close)
    data.settimeout(rules.timeout_s)
    answer = ftp.sendcmd(f"RETR {path}")
    if answer[0] != "1":
        raise ftplib.error_reply(answer)  # noqa: S321 - an exception
    if isinstance(ftp, _Secured):
        data = ftp.context.wrap_socket(data, server_hostname=ftp.host)
        opened.callback(data.close)
    return data
