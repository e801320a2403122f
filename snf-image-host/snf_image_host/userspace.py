"""A disk that has no path on this node, only an address that QEMU understands: RBD without the kernel's driver.

    qemu-storage-daemon ── speaks to Ceph, has network and key, runs as we do
       └── NBD on a socket in a folder of ours ──┬── our own connection: the image is written through it
                                                 └── the helper VM's QEMU: a connected socket, and nothing else

So the helper's QEMU, which strangers' bytes are handed to, has neither a network nor a key. The daemon is told that the
disk is raw: nothing looks at what is on it. Commit point: none of its own; `sync` is a flush that Ceph answered.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from snf_image_host.target import END
from synnefo_light.errors import EnvironmentFault, PeerError, ToolError
from synnefo_light.log import escape
from synnefo_light.run import Serving, serve
from synnefo_light.units import MIB, human

EXPORT: Final = "disk"
START_S: Final = 60.0
ANSWER_S: Final = 120.0
#: Of one request: NBD servers take at most 32 MiB of data.
CHUNK: Final = 4 * MIB
ZERO_CHUNK: Final = 1 << 30
#: Ours and the helper's.
CONNECTIONS: Final = 2
_WORD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RbdAddress:
    """What an address like rbd:POOL/IMAGE:id=USER:conf=FILE says."""

    pool: str
    image: str
    user: str | None = None
    conf: str | None = None

    def __str__(self) -> str:
        return f"rbd:{self.pool}/{self.image}"


def parse_address(uri: str) -> RbdAddress:
    """Raises EnvironmentFault for an address of another kind, or one with an option that we do not know.

    An option that is passed over could name another cluster, and the image would be written to a stranger's disk.
    """
    scheme, _, rest = uri.partition(":")
    place, *options = rest.split(":")
    pool, slash, image = place.partition("/")
    if scheme != "rbd" or not slash or not _WORD.fullmatch(pool) or not _WORD.fullmatch(image):
        raise EnvironmentFault(
            f"the disk has only the address {escape(uri)!r}, which is not rbd:POOL/IMAGE; "
            "use a template with a path on the node, or access=kernelspace"
        )
    found: dict[str, str] = {}
    for option in options:
        key, _, value = option.partition("=")
        known = {"id": _WORD, "conf": re.compile(r"/[A-Za-z0-9_./-]{1,200}")}
        if key not in known or key in found or not known[key].fullmatch(value):
            raise EnvironmentFault(
                f"the disk's address {escape(uri)!r} has the option {escape(option)!r}, not id or conf"
            )
        found[key] = value
    return RbdAddress(pool=pool, image=image, user=found.get("id"), conf=found.get("conf"))


def plan_daemon(address: RbdAddress, *, listening: int, readonly: bool) -> tuple[str, ...]:
    """The daemon's command line; `listening` is the descriptor of a socket that listens already. Pure."""
    access = "on" if readonly else "off"
    keys = {"pool": address.pool, "image": address.image, "user": address.user, "conf": address.conf}
    said = "".join(f",{key}={value}" for key, value in keys.items() if value)
    return (
        "qemu-storage-daemon",
        *("--blockdev", f"driver=rbd,node-name=rbd,read-only={access},discard=unmap,cache.direct=on{said}"),
        *("--blockdev", f"driver=raw,node-name={EXPORT},file=rbd,read-only={access},discard=unmap"),
        *("--nbd-server", f"addr.type=fd,addr.str={listening},max-connections={CONNECTIONS}"),
        *(
            "--export",
            f"type=nbd,id={EXPORT},name={EXPORT},node-name={EXPORT},writable={'off' if readonly else 'on'}",
        ),
    )


@dataclass(slots=True, kw_only=True)
class UserspaceTarget:
    """The same promises as `target.Target`, over NBD."""

    path: Path  # a name for messages, no file
    size: int
    serving: Serving
    socket_path: str
    handle: Any = field(repr=False)

    def connect(self) -> int:
        """A descriptor of one more connection, for the helper's QEMU; the caller closes it."""
        return _connected(self.socket_path, self.serving).detach()

    def chunks(self) -> Iterator[tuple[int, memoryview]]:
        """All of it in order. Raises EnvironmentFault."""
        for offset in range(0, self.size, CHUNK):
            with self._doing(f"reading {self.path} at byte {offset}"):
                data = self.handle.pread(min(CHUNK, self.size - offset), offset)
            yield offset, memoryview(data)

    def write(self, data: memoryview, offset: int) -> None:
        """All of `data` at `offset`. Raises EnvironmentFault, for one when the cluster is full."""
        while data:
            piece = data[:CHUNK]
            with self._doing(f"writing {self.path} at byte {offset}"):
                self.handle.pwrite(bytes(piece), offset)
            data, offset = data[len(piece) :], offset + len(piece)

    def zero(self, start: int, end: int) -> None:
        """Make the bytes from `start` to `end` zeros, giving back the space they took."""
        while start < end:
            count = min(end - start, ZERO_CHUNK)
            with self._doing(f"zeroing {self.path} from byte {start}"):
                self.handle.zero(count, start)
            start += count

    def clear(self) -> bool:
        """Zeros over NBD may be slow or not, which nobody tells; so the whole disk is never cleared beforehand."""
        return False

    def erase(self) -> None:
        self.zero(0, self.size)

    def wipe_ends(self) -> None:
        self.zero(0, min(END, self.size))
        self.zero(max(0, self.size - END), self.size)
        self.sync()

    def sync(self) -> None:
        with self._doing(f"{self.path} could not be made durable"):
            self.handle.flush()

    @contextlib.contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        """A cluster that does not answer is waited for by librbd without end; so the daemon is ended then."""
        late = threading.Timer(ANSWER_S, self.serving.end)
        late.daemon = True
        began = time.monotonic()
        late.start()
        try:
            yield
        except Exception as e:
            if type(e).__module__ != "nbd":
                raise
            if time.monotonic() - began >= ANSWER_S:
                raise EnvironmentFault(f"{what}: Ceph did not answer within {ANSWER_S:g} s; `ceph -s` says more") from e
            raise EnvironmentFault(f"{what}: {e}") from e
        finally:
            late.cancel()


@contextlib.contextmanager
def open_address(address: RbdAddress, *, size: int | None, readonly: bool = False) -> Iterator[UserspaceTarget]:
    """The disk at an address, of at least `size` bytes if Ganeti said so. Raises EnvironmentFault, ToolError.

    When it ends, so has the daemon: nothing writes to the disk any more through it.
    """
    with contextlib.ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="snf-image-", ignore_cleanup_errors=True))
        path = f"{folder}/nbd"
        listening = opened.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(path)
        listening.listen(CONNECTIONS)
        words = plan_daemon(address, listening=listening.fileno(), readonly=readonly)
        try:
            serving = opened.enter_context(serve(words, pass_fds=[listening.fileno()]))
            listening.close()
            handle = _handle(_connected(path, serving))
        except ToolError as e:
            hint = "; install qemu-utils (Debian 13) or qemu-system-common" if e.outcome == "was not found" else ""
            raise EnvironmentFault(f"the disk {address} cannot be opened: {e}{hint}") from e
        real = int(handle.get_size())
        if size is not None and real < size:
            raise EnvironmentFault(
                f"the disk {address} has {real} bytes, though Ganeti says {human(size)}; is the storage damaged?"
            )
        yield UserspaceTarget(path=Path(str(address)), size=real, serving=serving, socket_path=path, handle=handle)


def _connected(path: str, serving: Serving) -> socket.socket:
    """A connection that the daemon has greeted. Raises ToolError when it ended, EnvironmentFault when it is too slow.

    The socket listens before the daemon runs, so connecting says nothing; the first byte of its greeting does. It is
    only looked at: who gets the connection reads it.
    """
    found = socket.socket(socket.AF_UNIX)
    try:
        found.connect(path)
        found.settimeout(0.2)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            serving.check()
            try:
                if found.recv(1, socket.MSG_PEEK):
                    found.settimeout(None)
                    return found
                break
            except TimeoutError:
                continue
            except OSError as e:
                if e.errno != errno.ECONNRESET:
                    raise
                break
        time.sleep(0.2)  # one that ends closes its connections first
        serving.check()
        serving.end()
        raise EnvironmentFault(f"qemu-storage-daemon did not answer within {START_S:g} s; can Ceph be reached?")
    except BaseException:
        found.close()
        raise


def _handle(connection: socket.socket) -> Any:
    """libnbd's handle on a connection, which is its own from then on."""
    try:
        nbd = importlib.import_module("nbd")
    except ImportError as e:
        connection.close()
        raise EnvironmentFault(
            "the disk has only an address for QEMU, and python3-libnbd is not installed on this node"
        ) from e
    handle = nbd.NBD()
    handle.set_export_name(EXPORT)
    try:
        handle.connect_socket(connection.detach())
    except nbd.Error as e:
        raise PeerError(f"qemu-storage-daemon did not speak NBD with us: {e}") from e
    return handle
