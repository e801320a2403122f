"""Images that a web server sends.

What keeps a tenant's address from being used against the node: only http and https, also after each redirect; no
redirect from https to http; the address that a name resolves to is checked when the connection is made, by the code
that makes it, so a second answer of the DNS changes nothing; no proxy, no .netrc, no cookie. By default loopback,
link-local (169.254.169.254 among them), multicast, reserved and other metadata addresses are refused, and those of the
node itself; an IPv6 address that carries an IPv4 one (6to4, Teredo, NAT64, mapped) is judged by that. `http_networks`
replaces these rules by a list.

The size must be declared and must come true: a body that is shorter or longer than its Content-Length is refused.
The time limit holds from before the first connection to the last byte: a thread shuts the connection down at the end
of it, since no timeout of a read does that to a server that sends a byte now and then.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from snf_image_host.sources import HttpImage, check_url
from synnefo_light.errors import PeerError, UserError
from synnefo_light.log import escape

REDIRECTS: Final = 5
CONNECT_S: Final = 10
CHUNK: Final = 256 << 10  # smaller than a file's: a slow server's progress is to be seen
_REDIRECT: Final = (301, 302, 303, 307, 308)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(UserError):
    """The server's address is one that images may not come from."""


#: Where clouds answer with credentials, beside 169.254.169.254: 100.100.100.200 of one, fd00:ec2::254 of another.
METADATA: Final = (ipaddress.ip_address("100.100.100.200"), ipaddress.ip_address("fd00:ec2::254"))
NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052


def may_connect(address: Address, networks: tuple[str, ...]) -> bool:
    """Whether images may come from `address`; `networks` () stands for "neither special nor the node's own"."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    real = mapped or address
    if networks:
        return any(real in ipaddress.ip_network(n) for n in networks)
    meant = embedded(address) or (address,)
    return not (any(_special(a) for a in meant) or any(is_own(a) for a in (address, *meant)))


def embedded(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses to which packets for an IPv6 address of a transition mechanism go; () for any other."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    if address in NAT64:
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    return tuple(a for a in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if a is not None)


def is_own(address: Address) -> bool:
    """Whether the node itself has `address`: then a socket can be bound to it.

    With the sysctl ip_nonlocal_bind any address can be; all are refused then, and http_networks must name some.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((str(address), 0))
    except OSError:
        return False
    return True


def _special(address: Address) -> bool:
    return (
        (address.is_loopback or address.is_link_local or address.is_multicast)
        or (address.is_unspecified or address.is_reserved or address in METADATA)
        or (isinstance(address, ipaddress.IPv4Address) and address in ipaddress.IPv4Network("0.0.0.0/8"))
    )


class Deadline:
    """The end of the time that an image may take; the connections it `watches` are shut down then."""

    def __init__(self, limit_s: float) -> None:
        self._end = time.monotonic() + limit_s
        self._lock = threading.Lock()
        self._watched: list[socket.socket] = []
        self._timer = threading.Timer(limit_s, self._shut_down)
        self._timer.daemon = True
        self._timer.start()

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._end

    def watch(self, sock: socket.socket) -> None:
        """A duplicate is kept, because TLS takes the socket's descriptor away. Raises OSError when it has passed."""
        with self._lock:
            if self.passed:
                raise TimeoutError("the time limit is over")
            self._watched.append(sock.dup())

    def cancel(self) -> None:
        """Shut nothing down any more; a second call does nothing."""
        self._timer.cancel()
        with self._lock:
            for sock in self._watched:
                sock.close()
            self._watched.clear()

    def _shut_down(self) -> None:
        with self._lock:
            for sock in self._watched:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


def connect(
    host: str, port: int, *, networks: tuple[str, ...], timeout_s: float, deadline: Deadline | None = None
) -> socket.socket:
    """A connection to the first allowed address of `host` that answers. Raises AddressRefused, OSError."""
    refused: list[str] = []
    last: OSError | None = None
    for family, kind, protocol, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if not may_connect(ipaddress.ip_address(str(where[0]).partition("%")[0]), networks):
            refused.append(str(where[0]))
            continue
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeout_s)
            if deadline is not None:
                deadline.watch(sock)
            sock.connect(where)
            return sock
        except OSError as e:
            sock.close()
            last = e
    if last is not None:
        raise last
    raise AddressRefused(
        f"the image's server {escape(host)} has the address {', '.join(refused) or 'none'}, where images may not come "
        f"from; allow its network with http_networks in the configuration if that is meant"
    )


class GuardedAdapter(HTTPAdapter):
    """requests' transport with our `connect`."""

    def __init__(self, networks: tuple[str, ...], deadline: Deadline) -> None:
        self._networks = networks
        self._deadline = deadline
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)  # type: ignore[no-untyped-call, unused-ignore]
        networks, deadline = self._networks, self._deadline

        def new_connection(self: HTTPConnection) -> socket.socket:
            port = self.port or self.default_port
            return connect(self.host, port, networks=networks, timeout_s=CONNECT_S, deadline=deadline)

        guarded = type("GuardedHTTP", (HTTPConnection,), {"_new_conn": new_connection})
        guarded_tls = type("GuardedHTTPS", (HTTPSConnection,), {"_new_conn": new_connection})
        self.poolmanager.pool_classes_by_scheme = {
            "http": type("GuardedHTTPPool", (HTTPConnectionPool,), {"ConnectionCls": guarded}),
            "https": type("GuardedHTTPSPool", (HTTPSConnectionPool,), {"ConnectionCls": guarded_tls}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenResponse:
    response: requests.Response
    url: str
    size: int
    deadline: Deadline

    def chunks(self) -> Iterator[tuple[int, memoryview]]:
        position = 0
        while True:
            try:
                data = self.response.raw.read(CHUNK, decode_content=False)
            except (HTTPError, OSError) as e:
                if self.deadline.passed:
                    raise _too_slow(self.url) from None
                raise self._broken(position, e) from None
            if self.deadline.passed:
                raise _too_slow(self.url)
            if not data:
                break
            if position + len(data) > self.size:
                raise PeerError(f"{self.url} sent more than the {self.size} bytes that it had declared")
            yield position, memoryview(data)
            position += len(data)
        if position != self.size:
            raise PeerError(self._truncated(position, ""))
        self.deadline.cancel()

    def _broken(self, position: int, e: Exception) -> PeerError:
        if isinstance(e, urllib3.exceptions.ReadTimeoutError):
            return PeerError(f"{self.url} stopped sending after {position} of {self.size} bytes")
        return PeerError(self._truncated(position, f" ({escape(str(e), limit=120)})"))

    def _truncated(self, position: int, why: str) -> str:
        return f"{self.url} sent a truncated image: {position} of {self.size} bytes came{why}; try again"


@contextlib.contextmanager
def open_http(
    image: HttpImage, *, networks: tuple[str, ...], timeout_s: float, limit_s: float
) -> Iterator[OpenResponse]:
    """Ask for the image and read the answer's head. Raises UserError, PeerError naming the address."""
    deadline = Deadline(limit_s)
    with contextlib.ExitStack() as opened:
        opened.callback(deadline.cancel)
        session = opened.enter_context(requests.Session())
        session.trust_env = False
        for scheme in ("http://", "https://"):
            session.mount(scheme, GuardedAdapter(networks, deadline))
        url = image.url
        for _ in range(REDIRECTS + 1):
            response = opened.enter_context(_get(session, url, timeout_s, deadline))
            session.cookies.clear()
            if response.status_code not in _REDIRECT:
                shown = escape(url, limit=200)
                yield OpenResponse(response=response, url=shown, size=_size(response, shown), deadline=deadline)
                return
            url = _next(url, response.headers.get("Location", ""))
        raise PeerError(
            f"{escape(image.url, limit=200)} leads to more than {REDIRECTS} redirects; give the last address"
        )


def _too_slow(shown: str) -> PeerError:
    return PeerError(f"{shown} did not send the image within the time limit (http_limit_s)")


def _get(session: requests.Session, url: str, timeout_s: float, deadline: Deadline) -> requests.Response:
    shown = escape(url, limit=200)
    try:
        return session.get(
            url,
            stream=True,
            allow_redirects=False,
            timeout=(CONNECT_S, timeout_s),
            headers={"Accept-Encoding": "identity", "User-Agent": "snf-image"},
        )
    except (requests.exceptions.RequestException, HTTPError, OSError, UnicodeError) as e:
        if deadline.passed:
            raise _too_slow(shown) from e
        if not isinstance(e, requests.exceptions.SSLError):
            raise PeerError(f"the image cannot be fetched from {shown}: {escape(_reason(e), limit=200)}") from e
        raise PeerError(f"{shown} does not prove who it is: {escape(str(e), limit=200)}") from e


def _reason(e: BaseException) -> str:
    """The innermost message: requests and urllib3 wrap each other several times."""
    inner = e.__cause__ or e.__context__
    return _reason(inner) if isinstance(inner, OSError | HTTPError) else str(e)


def _next(url: str, location: str) -> str:
    target = urljoin(url, location)
    try:
        check_url(target)
    except ValueError as e:
        raise PeerError(f"{escape(url, limit=200)} redirects to '{escape(location, limit=200)}': {e}") from None
    if urlsplit(url).scheme.lower() == "https" and urlsplit(target).scheme.lower() == "http":
        raise PeerError(
            f"{escape(url, limit=200)} redirects from https: to {escape(target, limit=200)}; give that itself"
        )
    return target


def _size(response: requests.Response, shown: str) -> int:
    if response.status_code != 200:
        raise PeerError(
            f"{shown} answered {response.status_code} {escape(response.reason or '', limit=80)}, not the image"
        )
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise PeerError(f"{shown} sends the image with a Content-Encoding, though none was asked for")
    declared = response.headers.get("Content-Length", "")
    if not (declared.isascii() and declared.isdigit()) or "Transfer-Encoding" in response.headers:
        raise PeerError(f"{shown} does not declare the image's size (Content-Length); use a server that does")
    return int(declared)
