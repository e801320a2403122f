"""Ganeti on the lab's nodes: made, grown, given a network, checked. What is there already is left as it is.

The cluster runs file, sharedfile, ext and diskless instances under KVM's code paths. Where the kernel's KVM cannot run
a kernel, `kvm_path` names QEMU's plain binary, which then emulates (TCG): Ganeti does not notice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from snf_lab import fabric
from snf_lab.node import Node
from snf_lab.nspawn import FILE_STORAGE, SHARED_STORAGE
from synnefo_light.errors import EnvironmentFault, ToolError

NETWORK = "lab-net"
BRIDGE = "br0"
MAC_PREFIX = "aa:00:78"
RAPI_USER = "lab"
RAPI_PASSWORD = "lab"
RAPI_USERS = "/var/lib/ganeti/rapi/users"
DAEMON_UTIL = "/usr/lib/ganeti/daemon-util"

#: The kernel of some machines has no /proc/sysrq-trigger, which Ganeti's check of a node wants.
IGNORED = "ENODESETUP"

#: Small instances and many of them are the lab's daily bread.
LEAST = "cpu-count=1,disk-count=0,disk-size=1,memory-size=16,nic-count=0,spindle-use=1"
MOST = "cpu-count=8,disk-count=16,disk-size=1048576,memory-size=32768,nic-count=8,spindle-use=12"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accel:
    """What runs instances here, and why."""

    kvm: bool
    reason: str

    @property
    def name(self) -> str:
        return "kvm" if self.kvm else "tcg"

    @property
    def kvm_path(self) -> str:
        """QEMU called as `kvm` takes KVM, called by its own name it emulates."""
        return "/usr/bin/kvm" if self.kvm else "/usr/bin/qemu-system-x86_64"


def parse_accel(text: str) -> Accel:
    """The line of JSON that `snf-image accel` prints. Raises EnvironmentFault when it is something else."""
    try:
        answer = json.loads(text)
        kvm = {"kvm": True, "tcg": False}[answer["accel"]]
    except (ValueError, KeyError, TypeError) as e:
        raise EnvironmentFault(f"snf-image accel said {text[:200]!r}, not which accelerator works") from e
    return Accel(kvm=kvm, reason=str(answer.get("reason", "snf-image accel says so")))


def read_accel(node: Node) -> Accel:
    if not node.exists("/usr/sbin/snf-image"):
        return Accel(kvm=False, reason="snf-image is not installed on the node, so KVM was not tried")
    return parse_accel(node.run(["snf-image", "accel"], timeout_s=120).text)


def plan_init(accel: Accel) -> list[str]:
    hypervisor = {
        "kernel_path": "",  # no kernel of the host's: instances boot from their disks
        "serial_console": "true",
        "vnc_bind_address": "",
        "vhost_net": "false",  # on by default since Ganeti 3.1, and not every kernel has it
        "kvm_path": accel.kvm_path,
    }
    return [
        "gnt-cluster",
        "init",
        "--master-netdev=eth0",
        "--master-netmask=32",
        "--enabled-hypervisors=kvm",
        "--enabled-disk-templates=file,sharedfile,ext,diskless",
        f"--file-storage-dir={FILE_STORAGE}",
        f"--shared-file-storage-dir={SHARED_STORAGE}",
        f"--nic-parameters=mode=bridged,link={BRIDGE}",
        f"--hypervisor-parameters=kvm:{','.join(f'{key}={value}' for key, value in hypervisor.items())}",
        f"--ipolicy-bounds-specs=min:{LEAST}/max:{MOST}",
        "--ipolicy-vcpu-ratio=64",
        "--no-etc-hosts",
        f"--mac-prefix={MAC_PREFIX}",
        fabric.CLUSTER_NAME,
    ]


def plan_network(nodes: int) -> tuple[list[str], list[str]]:
    """Make the instances' network, whose addresses of nodes are taken, and connect it to all groups."""
    taken = ",".join(fabric.instance_side_ip(n) for n in range(1, nodes + 1))
    add = [
        *["gnt-network", "add", f"--network={fabric.INSTANCE_NETWORK}", f"--gateway={fabric.INSTANCE_GATEWAY}"],
        *[f"--add-reserved-ips={taken}", NETWORK],
    ]
    return add, ["gnt-network", "connect", f"--nic-parameters=mode=bridged,link={BRIDGE}", NETWORK]


def has_ganeti_state(node: Node) -> bool:
    """Has the node been part of a cluster, or of an attempt at one?"""
    return node.exists("/var/lib/ganeti/server.pem")


def make(master: Node, accel: Accel, *, max_nodes: int) -> None:
    """A cluster of one node, with RAPI user and network. When it dies half-way, the node must be made anew."""
    master.run(plan_init(accel), timeout_s=300)
    user = f"{RAPI_USER} {RAPI_PASSWORD} write\n".encode()
    master.write(RAPI_USERS, user, mode=0o640, owner="gnt-rapi:gnt-masterd")
    for words in plan_network(max_nodes):
        master.run(words, timeout_s=120)


def members(master: Node) -> list[str]:
    return master.run(["gnt-node", "list", "--no-headers", "--output=name"], timeout_s=60).text.split()


def add_node(master: Node, node: Node) -> None:
    """Let the master's SSH key in, then let Ganeti do its own joining over SSH."""
    key = master.read("/root/.ssh/id_rsa.pub")
    node.run(["sh", "-ec", "umask 077; mkdir -p /root/.ssh; cat >>/root/.ssh/authorized_keys"], stdin=key, timeout_s=20)
    master.run(["gnt-node", "add", "--no-ssh-key-check", node.name], timeout_s=300)
    start_daemons([node], master=master)


def start_daemons(nodes: Sequence[Node], *, master: Node) -> None:
    """Start what Ganeti has to run and does not, on nodes that are on.

    The node daemon first and everywhere: the master's daemons ask the others for their vote and give up after a minute.
    `gnt-node add` leaves out confd, which the watcher would start minutes later.
    """
    for node in nodes:
        node.run([DAEMON_UTIL, "check-and-start", "ganeti-noded"], timeout_s=60)
    for node in sorted(nodes, key=lambda n: n.number != master.number):
        for daemon in node.run([DAEMON_UTIL, "list-start-daemons"]).text.split():
            # 11: not the master's business here.
            node.run([DAEMON_UTIL, "check-and-start", daemon], ok=(0, 11), timeout_s=180)


def verify(master: Node) -> None:
    """Raises EnvironmentFault with Ganeti's own words unless the cluster is in order."""
    try:
        master.run(["gnt-cluster", "redist-conf"], timeout_s=120)  # every node has the RAPI users, or verify complains
        master.run(["gnt-cluster", "verify", f"--ignore-errors={IGNORED}"], timeout_s=300)
    except ToolError:
        shown = master.run(
            ["gnt-cluster", "verify", f"--ignore-errors={IGNORED}", "--error-codes"], ok=range(256), timeout_s=300
        ).text
        lines = [line.strip() for line in shown.splitlines() if "ERROR" in line] or ["no line with ERROR"]
        raise EnvironmentFault(f"gnt-cluster verify is not clean: {'; '.join(lines[:5])}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    name: str
    node: str
    status: str


def instances(master: Node) -> list[Instance]:
    columns = ["gnt-instance", "list", "--no-headers", "--separator=:", "--output=name,pnode,status"]
    rows = [line.split(":") for line in master.run(columns, timeout_s=60).text.splitlines()]
    return [Instance(name=row[0], node=row[1], status=row[2]) for row in rows]
