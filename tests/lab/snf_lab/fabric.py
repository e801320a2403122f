"""The lab's network: a switch in a namespace of its own, a cable or two to each node.

    netns switch   br-mgmt 10.78.0.254/24            br-vm 10.78.1.254/24
                      │ m1      │ m2                    │ v1      │ v2
    netns nodeN    eth0 10.78.0.N/24                 eth1 ── br0 10.78.1.N/24 ── taps of the instances

Nothing appears in the host's network namespace and nothing in these leads out of the machine. Namespaces are bound
onto files in the state directory, so that they can be found again. br0 has an address so that a node reaches instances.
"""

from __future__ import annotations

import time
from pathlib import Path

from snf_lab import mounts
from synnefo_light.errors import ToolError
from synnefo_light.run import Runner, run

MANAGEMENT = "10.78.0"
INSTANCES = "10.78.1"
SWITCH_HOST = 254
CLUSTER_HOST = 250
DOMAIN = "lab.test"
CLUSTER_NAME = f"cluster.{DOMAIN}"
CLUSTER_IP = f"{MANAGEMENT}.{CLUSTER_HOST}"
SWITCH_IP = f"{MANAGEMENT}.{SWITCH_HOST}"
INSTANCE_NETWORK = f"{INSTANCES}.0/24"
INSTANCE_GATEWAY = f"{INSTANCES}.{SWITCH_HOST}"


def node_name(number: int) -> str:
    return f"node{number}.{DOMAIN}"


def management_ip(number: int) -> str:
    return f"{MANAGEMENT}.{number}"


def instance_side_ip(number: int) -> str:
    return f"{INSTANCES}.{number}"


def plan_switch() -> tuple[str, ...]:
    """Lines for `ip -batch` inside the switch's namespace."""
    lines = ["link set lo up"]
    for bridge, network in (("br-mgmt", MANAGEMENT), ("br-vm", INSTANCES)):
        lines += [
            f"link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"addr add {network}.{SWITCH_HOST}/24 dev {bridge}",
            f"link set {bridge} up",
        ]
    return tuple(lines)


def plan_node(number: int, *, switch: Path) -> tuple[str, ...]:
    """Lines for `ip -batch` inside the node's namespace; the cables' far ends go to the switch's."""
    return (
        "link set lo up",
        f"link add eth0 type veth peer name m{number} netns {switch}",
        f"addr add {management_ip(number)}/24 dev eth0",
        "link set eth0 up",
        f"link add eth1 type veth peer name v{number} netns {switch}",
        "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        "link set eth1 master br0",
        f"addr add {instance_side_ip(number)}/24 dev br0",
        "link set eth1 up",
        "link set br0 up",
    )


def plan_plug(number: int) -> tuple[str, ...]:
    """Lines for `ip -batch` inside the switch's namespace: put the far ends of a node's cables into the bridges."""
    return (f"link set m{number} master br-mgmt up", f"link set v{number} master br-vm up")


def plan_unplug(number: int) -> tuple[str, ...]:
    """Deleting one end of a cable deletes the other at once, wherever it is and whoever holds that namespace."""
    return (f"link del m{number}", f"link del v{number}")


def inside(namespace: Path) -> list[str]:
    """The words before a command that is to run in a network namespace.

    Not `ip netns exec`: it remounts /sys, which hides the cgroup mounts from whatever is started.
    """
    return ["nsenter", f"--net={namespace}"]


class Fabric:
    """Makes and unmakes the namespaces below one folder. Each call may be repeated."""

    def __init__(self, folder: Path, runner: Runner = run) -> None:
        self._folder = folder
        self._run = runner

    @property
    def switch(self) -> Path:
        return self._folder / "switch"

    def namespace(self, number: int) -> Path:
        return self._folder / f"node{number}"

    def make_switch(self) -> None:
        """The last act writes the marker: without it an earlier attempt is thrown away and made again."""
        made = self._folder / "switch-made"
        if mounts.is_mounted(self.switch) and made.exists():
            return
        made.unlink(missing_ok=True)
        self._bind_new(self.switch)
        self._ip(self.switch, plan_switch())
        made.touch()

    def make_node(self, number: int) -> Path:
        """A fresh namespace with its cables; what a former life of the node left is removed first."""
        self.remove_node(number)
        namespace = self.namespace(number)
        self._bind_new(namespace)
        self._ip(namespace, plan_node(number, switch=self.switch))
        self._ip(self.switch, plan_plug(number))
        return namespace

    def remove_node(self, number: int) -> None:
        """Unplug the cables, then let the namespace go."""
        for line in plan_unplug(number):
            self._ip(self.switch, (line,), ok=(0, 1))
        self._unbind(self.namespace(number))

    def _bind_new(self, file: Path) -> None:
        self._unbind(file)
        file.touch()
        self._run(["unshare", f"--net={file}", "true"], timeout_s=20)

    def _unbind(self, file: Path) -> None:
        deadline = time.monotonic() + 10
        while mounts.is_mounted(file):
            try:
                self._run(["umount", file], timeout_s=20)
            except ToolError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        file.unlink(missing_ok=True)

    def _ip(self, namespace: Path, lines: tuple[str, ...], ok: tuple[int, ...] = (0,)) -> None:
        script = "".join(f"{line}\n" for line in lines).encode()
        self._run([*inside(namespace), "ip", "-batch", "-"], stdin=script, ok=ok, timeout_s=20)
