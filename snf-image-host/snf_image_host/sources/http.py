"""Images, and smaller things, that a web server sends.

Only http and https, also after each redirect; no redirect from https to http; no proxy, no .netrc, no cookie. Whom the
node connects to, and for how long, guard.py decides. The size must be declared and must come true: a body that is
shorter or longer than its Content-Length is refused.
"""

from __future__ import annotations

import contextlib
import socket
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

from snf_image_host.sources import HttpImage, check_url, shown
from snf_image_host.sources.guard import CONNECT_S, Deadline, Rules, connect, too_slow
from synnefo_light.errors import PeerError
from synnefo_light.log import escape

REDIRECTS: Final = 5
CHUNK: Final = 256 << 10  # smaller than a file's: a slow server's progress is to be seen
_REDIRECT: Final = (301, 302, 303, 307, 308)


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
                    raise too_slow(self.url) from None
                raise self._broken(position, e) from None
            if self.deadline.passed:
                raise too_slow(self.url)
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
        return f"{self.url} sent only {position} of {self.size} bytes{why}; try again"


@contextlib.contextmanager
def open_http(image: HttpImage, rules: Rules) -> Iterator[OpenResponse]:
    """Ask for the image and read the answer's head. Raises UserError, PeerError naming the address."""
    deadline = Deadline(rules.limit_s)
    with contextlib.ExitStack() as opened:
        opened.callback(deadline.cancel)
        session = opened.enter_context(requests.Session())
        session.trust_env = False
        for scheme in ("http://", "https://"):
            session.mount(scheme, GuardedAdapter(rules.networks, deadline))
        url = image.url
        for _ in range(REDIRECTS + 1):
            response = opened.enter_context(_get(session, url, rules.timeout_s, deadline))
            session.cookies.clear()
            if response.status_code not in _REDIRECT:
                name = shown(url)
                yield OpenResponse(response=response, url=name, size=_size(response, name), deadline=deadline)
                return
            url = _next(url, response.headers.get("Location", ""))
        raise PeerError(f"{shown(image.url)} leads to more than {REDIRECTS} redirects; give the last address")


def _get(session: requests.Session, url: str, timeout_s: float, deadline: Deadline) -> requests.Response:
    name = shown(url)
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
            raise too_slow(name) from e
        if not isinstance(e, requests.exceptions.SSLError):
            raise PeerError(f"{name} cannot be fetched: {escape(_reason(e), limit=200)}") from e
        raise PeerError(f"{name} does not prove who it is: {escape(_reason(e), limit=200)}") from e


def _reason(e: BaseException) -> str:
    """The innermost message: requests and urllib3 wrap each other several times."""
    inner = e.__cause__ or e.__context__
    return _reason(inner) if isinstance(inner, OSError | HTTPError) else str(e)


def _next(url: str, location: str) -> str:
    target = urljoin(url, location)
    try:
        check_url(target)
    except ValueError as e:
        raise PeerError(f"{shown(url)} redirects to '{shown(location)}': {e}") from None
    if urlsplit(url).scheme.lower() == "https" and urlsplit(target).scheme.lower() == "http":
        raise PeerError(f"{shown(url)} redirects from https: to {shown(target)}; give that itself")
    return target


def _size(response: requests.Response, name: str) -> int:
    if response.status_code != 200:
        raise PeerError(
            f"{name} answered {response.status_code} {escape(response.reason or '', limit=80)}, not what was asked for"
        )
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise PeerError(f"{name} answers with a Content-Encoding, though none was asked for")
    declared = response.headers.get("Content-Length", "")
    is_number = declared.isascii() and declared.isdigit() and len(declared) < 20  # int() refuses very long ones
    if not is_number or "Transfer-Encoding" in response.headers:
        raise PeerError(f"{name} does not declare its size (Content-Length); use a server that does")
    return int(declared)
