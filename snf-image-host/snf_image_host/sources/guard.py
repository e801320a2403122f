"""To whom the node may connect for an image, and for how long.

What keeps a tenant's address from being used against the node: the address that a name resolves to is checked when the
connection is made, by the code that makes it, so a second answer of the DNS changes nothing. By default loopback,
link-local (169.254.169.254 among them), multicast, reserved and other metadata addresses are refused, and those of the
node itself; an IPv6 address that carries an IPv4 one (6to4, Teredo, NAT64, mapped) is judged by that. `http_networks`
replaces these rules by a list.

The time limit holds from before the first connection to the last byte: a thread shuts the connections down at the end
of it, since no timeout of a read does that to a server that sends a byte now and then.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from dataclasses import dataclass
from typing import Final

from synnefo_light.errors import PeerError, UserError
from synnefo_light.log import escape

CONNECT_S: Final = 10

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How the node fetches: the settings that begin with http_, which hold for ftp as well."""

    networks: tuple[str, ...] = ()
    timeout_s: float  # without a byte
    limit_s: float  # in all


def too_slow(name: str) -> PeerError:
    return PeerError(f"{name} did not send what was asked for within the time limit (http_limit_s)")
