"""The way to a Ceph cluster, for the store's objects and for disks alike.

The bindings (python3-rados, python3-rbd) are imported when a cluster is asked for and not before: a site without Ceph
does not have them. Each request to monitors and OSDs has a time limit, since Ceph by itself waits for ever; what comes
back of an error is a sentence.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from synnefo_light.errors import EnvironmentFault, UserError

CONF = Path("/etc/ceph/ceph.conf")
CONNECT_TIMEOUT_S = 10
REQUEST_TIMEOUT_S = 30

#: Names of pools, namespaces and clients: what no tool of Ceph's takes for its own syntax.
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")

T = TypeVar("T")


class CephFault(EnvironmentFault):
    """The cluster, or this node's way to it, must be mended."""


class Fenced(CephFault):
    """The cluster has this client on its blocklist: another node took over. Only a new process may go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """As whom to speak to which cluster."""

    conf: Path = CONF
    user: str = "ganeti"  # client.USER, whose keyring the configuration names
    connect_timeout_s: int = CONNECT_TIMEOUT_S
    request_timeout_s: int = REQUEST_TIMEOUT_S

    def __post_init__(self) -> None:
        check_word(self.user, what="Ceph user")


def check_word(text: str, *, what: str) -> str:
    """`text`, if it may name a pool, a namespace or a user. Raises UserError."""
    if not _WORD.fullmatch(text):
        raise UserError(
            f"the {what} {text[:80]!r} is not 1 to 100 letters, digits or _.- that begin with a letter, digit or _"
        )
    return text


def load(module: str) -> ModuleType:
    """`rados` or `rbd`. Raises CephFault when Debian's package is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise CephFault(f"Ceph is asked for, and python3-{module} is not installed on this node ({e})") from e


class Cluster:
    """One connection, made when it is first needed. `rados` objects are not typed; they do not leave their modules."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._handle: Any = None
        self._lock = threading.Lock()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def connect(self) -> Any:
        """The connected `rados.Rados`. Raises CephFault."""
        with self._lock:
            if self._handle is None:
                self._handle = self._connected()
            return self._handle

    def open_pool(self, pool: str, namespace: str = "") -> Any:
        """A new `rados.Ioctx` on a pool. Raises CephFault when there is no such pool."""
        rados = load("rados")
        try:
            ioctx = self.connect().open_ioctx(pool)
        except rados.ObjectNotFound as e:
            raise CephFault(f"the pool {pool!r} does not exist; an administrator makes it: ceph osd pool create") from e
        except rados.Error as e:
            raise explain(e, f"open the pool {pool!r}", self.access) from e
        if namespace:
            ioctx.set_namespace(namespace)
        return ioctx

    def close(self) -> None:
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            handle.shutdown()

    def _connected(self) -> Any:
        rados = load("rados")
        access = self.access
        settings = {
            "client_mount_timeout": str(access.connect_timeout_s),
            "rados_mon_op_timeout": str(access.request_timeout_s),
            "rados_osd_op_timeout": str(access.request_timeout_s),
            "rbd_default_clone_format": "2",
        }
        try:
            handle = rados.Rados(conffile=str(access.conf), name=f"client.{access.user}", conf=settings)
        except rados.Error as e:
            raise CephFault(f"Ceph's configuration {access.conf} cannot be used: {e}") from e
        try:
            handle.connect()
        except rados.ObjectNotFound as e:
            handle.shutdown()
            raise CephFault(f"{access.conf} names no monitors that can be found, or no keyring: {e}") from e
        except rados.Error as e:
            handle.shutdown()
            raise explain(e, "connect", access) from e
        return handle


def explain(error: Exception, asked: str, access: Access) -> CephFault:
    """An error of `rados` or `rbd` as a sentence. `asked`: what was asked of the cluster, as in "to ..."."""
    number = error_number(error)
    if number in (errno.ETIMEDOUT, errno.EINTR):
        return CephFault(
            f"asked to {asked}, Ceph did not answer in time (the monitors of {access.conf} or an OSD are down, or not "
            "to be reached from here); `ceph -s` says more"
        )
    if number == errno.ESHUTDOWN:
        return Fenced(f"asked to {asked}, Ceph refused: this client is on the blocklist, another node took over")
    if number in (errno.EACCES, errno.EPERM):
        return CephFault(
            f"asked to {asked}, Ceph refused client.{access.user}: its key is not the one that the cluster knows, or "
            "it lacks the capabilities (`profile rbd` for mon and osd)"
        )
    if number in (errno.ENOSPC, errno.EDQUOT):
        return CephFault(f"asked to {asked}, Ceph refused: the cluster or the pool is full")
    return CephFault(f"asked to {asked}, Ceph answered: {error}")


def error_number(error: Exception) -> int:
    """The errno of an error of the bindings, 0 when it has none."""
    number = getattr(error, "errno", None)
    return abs(number) if isinstance(number, int) else 0


class _Running(Generic[T]):
    """What is done in a thread of its own, which is left behind when nobody waits for it any more."""

    def __init__(self, act: Callable[[], T]) -> None:
        self.done: list[T] = []
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._work, args=(act,), daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float | None = None) -> None:
        """Raises what the work raised."""
        self._thread.join(timeout_s)
        if self._failed:
            raise self._failed[0]

    def _work(self, act: Callable[[], T]) -> None:
        try:
            self.done.append(act())
        except BaseException as e:
            self._failed.append(e)


def bounded(act: Callable[[], T], asked: str, *, timeout_s: float) -> T:
    """Do what may wait for another client that does not answer, and give up after `timeout_s`.

    Raises CephFault then; the call itself cannot be ended and is left behind in its thread, so a process that got
    this error should do no more than say so and end.
    """
    running = _Running(act)
    running.wait(timeout_s)
    if not running.done:
        raise CephFault(f"asked to {asked}, Ceph did not finish within {timeout_s:g} s; `ceph -s` says more")
    return running.done[0]


@contextlib.contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Ask this while the body asks something else. Raises what `act` raises, after the body, unless that raised.

    `act` has a time limit of its own.
    """
    running = _Running(act)
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            running.wait()
        raise
    running.wait()
