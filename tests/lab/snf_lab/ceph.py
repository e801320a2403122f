"""A real Ceph on one machine without systemd: one monitor, one OSD, cephx on; for labs and tests.

    FOLDER/ceph.conf, admin.keyring          the administrator's side: the daemons and `Ceph.run`
    FOLDER/client.conf, client.keyring       a client with `profile rbd` and no more, as a node gets it
    FOLDER/mon/ osd/                         what the daemons keep
    FOLDER/run/{mon.a,osd.0}.pid  log/       found again by these: a cluster is stopped by whoever comes next

There is no manager daemon: block devices, objects, snapshots, locks and the blocklist work without one.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snf_lab import processes
from snf_lab.host_packages import HostPackage, parse_installed
from snf_lab.node import Node
from synnefo_light.errors import EnvironmentFault, ToolError
from synnefo_light.run import Completed, Runner, run

#: On the machine where the daemons run.
DAEMONS = (
    HostPackage(name="ceph-mon", reason="the monitor of the lab's Ceph"),
    HostPackage(name="ceph-osd", reason="the object store of the lab's Ceph"),
    HostPackage(name="ceph-common", reason="commands for the lab's Ceph"),
)
#: On each node that uses the cluster.
CLIENT_PACKAGES = ("ceph-common", "python3-rados", "python3-rbd", "python3-libnbd", "qemu-block-extra", "qemu-utils")

#: Pools: disks, a second one whose data lie apart from their metadata, and the store. No hyphens: Ganeti 3.1.
POOLS = ("volumes", "data", "store")
CLIENT = "ganeti"
START_TIMEOUT_S = 90.0
MONITOR_PORT, OLD_MONITOR_PORT = 3300, 6789

STORE_CONF = "/etc/synnefo-light/snf-store.toml"
NODE_CONF = "/etc/ceph/ceph.conf"

DaemonName = Literal["mon.a", "osd.0"]
DAEMON_NAMES: tuple[DaemonName, ...] = ("mon.a", "osd.0")
Objectstore = Literal["memstore", "bluestore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a cluster is asked to be."""

    folder: Path
    fsid: str
    address: str = "127.0.0.1"
    ports: tuple[int, int] = (MONITOR_PORT, OLD_MONITOR_PORT)
    objectstore: Objectstore = "memstore"
    size: int = 8 << 30  # of the OSD; bluestore's file is sparse

    @property
    def monitors(self) -> str:
        return f"[v2:{self.address}:{self.ports[0]},v1:{self.address}:{self.ports[1]}]"


def render_conf(shape: Shape) -> str:
    """The daemons' configuration, and their administrator's."""
    folder = shape.folder
    return f"""[global]
fsid = {shape.fsid}
mon host = {shape.monitors}
public addr = {shape.address}
cluster addr = {shape.address}
ms bind ipv6 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
mon warn on insecure global id reclaim allowed = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon data avail warn = 5
mon data avail crit = 2
osd crush chooseleaf type = 0
osd objectstore = {shape.objectstore}
bluestore block size = {shape.size}
memstore device bytes = {shape.size}
osd memory target = 1073741824
osd class update on start = false
osd client watch timeout = 10
paxos propose interval = 0.05
paxos min wait = 0.01
mon data = {folder}/mon
osd data = {folder}/osd
run dir = {folder}/run
pid file = {folder}/run/$name.pid
log file = {folder}/log/$name.log
mon cluster log file = {folder}/log/cluster.log
log to stderr = false
err to stderr = true

[client]
keyring = {folder}/admin.keyring
log file = /dev/null

[mon]
admin socket = {folder}/run/$name.asok

[osd]
admin socket = {folder}/run/$name.asok

[mon.a]
keyring = {folder}/mon/keyring

[osd.0]
keyring = {folder}/osd/keyring
"""


def render_client_conf(shape: Shape, *, keyring: str | Path) -> str:
    """What a client needs to know, and nothing of the daemons."""
    return f"""[global]
fsid = {shape.fsid}
mon host = {shape.monitors}
auth client required = cephx

[client.{CLIENT}]
keyring = {keyring}
"""


class Ceph:
    """The cluster in one folder. `enter` are words before each program, to run it in a network namespace."""

    def __init__(self, folder: Path, *, enter: Sequence[str] = (), runner: Runner = run) -> None:
        self.folder = folder
        self._enter = tuple(enter)
        self._runner = runner

    @property
    def conf(self) -> Path:
        """The administrator's ceph.conf."""
        return self.folder / "ceph.conf"

    @property
    def client_conf(self) -> Path:
        """The ceph.conf of client `CLIENT`, whose keyring lies beside it."""
        return self.folder / "client.conf"

    @property
    def client_keyring(self) -> Path:
        return self.folder / "client.keyring"

    @property
    def admin_keyring(self) -> Path:
        return self.folder / "admin.keyring"

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: bytes | None = None,
        ok: Collection[int] = (0,),
        timeout_s: float = 30.0,
    ) -> Completed:
        """Run `ceph`, `rados` or `rbd` as the administrator."""
        words = [*self._enter, argv[0], "--conf", self.conf, *argv[1:]]
        return self._runner(words, stdin=stdin, ok=ok, timeout_s=timeout_s)

    def pids(self) -> dict[str, int]:
        """The daemons that run, by name: "mon.a", "osd.0"."""
        found = {}
        for file in self.folder.glob("run/*.pid"):
            pid = _read_pid(file)
            if pid is not None and self._is_ours(pid):
                found[file.stem] = pid
        return found

    def start(self, shape: Shape) -> None:
        """Make the cluster and return when it has stored an object. One that was made is started where it was stopped.

        Raises EnvironmentFault when it is not there in time; nothing of it is left then.
        """
        running = self.pids()
        if self._made.exists():
            for daemon in DAEMON_NAMES:
                if daemon not in running:
                    self.start_daemon(daemon)
            self._store_an_object()
            return
        self.remove()
        for name in ("mon", "osd", "run", "log"):
            (self.folder / name).mkdir(parents=True)
        try:
            self._make(shape)
        except ToolError as e:
            self.remove()
            raise EnvironmentFault(f"a Ceph in {self.folder} could not be made: {e}") from e

    def start_daemon(self, name: DaemonName) -> None:
        """Start a daemon that was stopped; its data are as they were (memstore's are gone)."""
        kind, _, identity = name.partition(".")
        self._runner([*self._enter, f"ceph-{kind}", "--conf", self.conf, "-i", identity], timeout_s=30)

    def stop(self, *names: str) -> None:
        """End these daemons, all when none is named, as a power cut would: what they acknowledged stays."""
        wanted = [pid for name, pid in self.pids().items() if not names or name in names]
        processes.kill_all(lambda: [pid for pid in wanted if self._is_ours(pid)])

    def remove(self) -> None:
        """Stop it and remove all of it. Repeating it is harmless."""
        self.stop()
        if self.folder.exists():
            shutil.rmtree(self.folder)

    # --- parts of start

    @property
    def _made(self) -> Path:
        """Written when the cluster has been made to its end."""
        return self.folder / "made"

    def _make(self, shape: Shape) -> None:
        self.conf.write_text(render_conf(shape))
        self._make_keys(shape)
        self._start_monitor(shape)
        self._start_osd()
        for pool in POOLS:
            self.run(["ceph", "osd", "pool", "create", pool])
        self._make_client(shape)
        self._store_an_object()
        self._made.touch()

    def _make_keys(self, shape: Shape) -> None:
        folder = self.folder
        every = [word for service in ("mon", "osd", "mgr") for word in ("--cap", service, "allow *")]
        tool: list[str | Path] = ["ceph-authtool", "--create-keyring", "--gen-key"]
        self._runner([*tool, folder / "mon.keyring", "-n", "mon.", "--cap", "mon", "allow *"], timeout_s=20)
        self._runner([*tool, self.admin_keyring, "-n", "client.admin", *every], timeout_s=20)
        merge: list[str | Path] = [
            "ceph-authtool",
            folder / "mon.keyring",
            "--import-keyring",
            self.admin_keyring,
        ]
        self._runner(merge, timeout_s=20)
        create: list[str | Path] = [
            "monmaptool",
            "--create",
            "--addv",
            "a",
            shape.monitors,
            "--fsid",
            shape.fsid,
            folder / "monmap",
        ]
        self._runner(create, timeout_s=20)

    def _start_monitor(self, shape: Shape) -> None:
        folder = self.folder
        make: list[str | Path] = [*self._enter, "ceph-mon", "--conf", self.conf, "-i", "a", "--mkfs"]
        self._runner([*make, "--monmap", folder / "monmap", "--keyring", folder / "mon.keyring"], timeout_s=30)
        # Without its keyring the monitor turns cephx off for what it asks of others, and says nothing.
        shutil.copy(folder / "mon.keyring", folder / "mon" / "keyring")
        self.start_daemon("mon.a")
        self._wait(["ceph", "--connect-timeout", "5", "mon", "stat"], "")

    def _start_osd(self) -> None:
        folder, identity = self.folder, str(uuid.uuid4())
        key = self._runner(["ceph-authtool", "--gen-print-key"], timeout_s=20).text.strip()
        self.run(["ceph", "osd", "new", identity, "-i", "-"], stdin=json.dumps({"cephx_secret": key}).encode())
        keyring = folder / "osd" / "keyring"
        keyring.write_text(f"[osd.0]\n\tkey = {key}\n")
        make: list[str | Path] = [*self._enter, "ceph-osd", "--conf", self.conf, "-i", "0", "--mkfs"]
        self._runner([*make, "--osd-uuid", identity], timeout_s=60)
        self.start_daemon("osd.0")
        self._wait(["ceph", "osd", "stat"], "1 up")

    def _make_client(self, shape: Shape) -> None:
        caps = ("mon", "profile rbd", "osd", "profile rbd")
        made = self.run(["ceph", "auth", "get-or-create", f"client.{CLIENT}", *caps])
        self.client_keyring.write_bytes(made.stdout)
        self.client_keyring.chmod(0o600)
        self.client_conf.write_text(render_client_conf(shape, keyring=self.client_keyring))

    def _store_an_object(self) -> None:
        self.run(["rados", "--pool", POOLS[0], "put", "first", "-"], stdin=b"1", timeout_s=START_TIMEOUT_S)
        self.run(["rados", "--pool", POOLS[0], "rm", "first"])

    def _wait(self, argv: Sequence[str], said: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if said in self.run(argv).text:
                    return
            except ToolError:
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > deadline:
                raise EnvironmentFault(f"{' '.join(argv)} did not say {said!r} within {START_TIMEOUT_S:g} s")
            time.sleep(0.1)

    def _is_ours(self, pid: int) -> bool:
        """A PID that was written down may belong to another program by now."""
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return words[0].startswith(b"ceph-") and os.fsencode(self.conf) in words


def render_store_conf(user: str) -> str:
    """/etc/synnefo-light/snf-store.toml of a node whose volumes and store are in the lab's Ceph."""
    return f"""engine = "rados"
[ceph]
user = "{user}"
pool = "{POOLS[0]}"
store_pool = "{POOLS[2]}"
"""


def introduce(node: Node, cluster: Ceph, *, user: str) -> None:
    """Give a node what a client needs: packages, configuration, key; and have it keep volumes and store there.

    `user`: CLIENT, or admin where Ganeti cannot tell QEMU of another. A second call changes nothing.
    """
    shown = node.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\\n", *CLIENT_PACKAGES], ok=(0, 1)
    )
    if not set(CLIENT_PACKAGES) <= parse_installed(shown.text):
        install = ["apt-get", "install", "--yes", "--no-install-recommends", *CLIENT_PACKAGES]
        node.run(install, timeout_s=600, env={"DEBIAN_FRONTEND": "noninteractive"})
    keyring = f"/etc/ceph/ceph.client.{user}.keyring"
    conf = cluster.client_conf.read_text().replace(str(cluster.client_keyring), keyring)
    node.write(NODE_CONF, conf.replace(f"[client.{CLIENT}]", f"[client.{user}]").encode())
    theirs = cluster.client_keyring if user == CLIENT else cluster.admin_keyring
    node.write(keyring, theirs.read_bytes(), mode=0o600)
    if node.exists("/usr/sbin/snf-store"):
        node.write(STORE_CONF, render_store_conf(user).encode())
        node.run(["snf-store", "init"], timeout_s=120)


def new_fsid() -> str:
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


def free_ports() -> tuple[int, int]:
    """Two TCP ports that nobody listens on at 127.0.0.1."""
    with socket.socket() as one, socket.socket() as other:
        for opened in (one, other):
            opened.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _read_pid(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
