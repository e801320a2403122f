"""The hooks that Ganeti 3.0 to 3.2 has, and the event that each leaves.

Source: HPATH of the logical units of Ganeti 3.0.2 and 3.1.0, and their manual of hooks (which names no other for 3.2).
Not here: `watcher` (every five minutes, without a word of what for; its folder has no phase).
"""

from __future__ import annotations

BOTH = ("pre", "post")
POST = ("post",)

#: Ganeti's name of the hook: what it is about, the event once it is done, the phases that there are.
OPERATIONS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "instance-add": ("instance", "instance-created", BOTH),
    "instance-remove": ("instance", "instance-removed", BOTH),
    "instance-start": ("instance", "instance-started", BOTH),
    "instance-stop": ("instance", "instance-stopped", BOTH),
    "instance-reboot": ("instance", "instance-rebooted", BOTH),
    "instance-modify": ("instance", "instance-modified", BOTH),
    "instance-rename": ("instance", "instance-renamed", BOTH),
    "instance-reinstall": ("instance", "instance-reinstalled", BOTH),
    "instance-export": ("instance", "instance-exported", BOTH),
    "instance-migrate": ("instance", "instance-migrated", BOTH),
    "instance-failover": ("instance", "instance-failed-over", BOTH),
    "instance-move": ("instance", "instance-moved", BOTH),
    "instance-change-group": ("instance", "instance-group-changed", BOTH),
    "instance-recreate-disks": ("instance", "instance-disks-recreated", BOTH),
    "disk-grow": ("instance", "instance-disk-grown", BOTH),
    "mirrors-replace": ("instance", "instance-mirrors-replaced", BOTH),
    "network-add": ("network", "network-added", BOTH),
    "network-remove": ("network", "network-removed", BOTH),
    "network-modify": ("network", "network-modified", BOTH),
    "network-rename": ("network", "network-renamed", BOTH),  # 3.1 and later
    "network-connect": ("network", "network-connected", BOTH),
    "network-disconnect": ("network", "network-disconnected", BOTH),
    "node-add": ("node", "node-added", BOTH),
    "node-remove": ("node", "node-removed", BOTH),
    "node-modify": ("node", "node-modified", BOTH),
    "node-migrate": ("node", "node-migrated", BOTH),
    "group-add": ("group", "group-added", BOTH),
    "group-remove": ("group", "group-removed", BOTH),
    "group-modify": ("group", "group-modified", BOTH),
    "group-rename": ("group", "group-renamed", BOTH),
    "group-evacuate": ("group", "group-evacuated", BOTH),
    "cluster-init": ("cluster", "cluster-initialized", POST),
    "cluster-modify": ("cluster", "cluster-modified", BOTH),
    "cluster-rename": ("cluster", "cluster-renamed", BOTH),
    "cluster-verify": ("cluster", "cluster-verified", POST),
    "cluster-destroy": ("cluster", "cluster-destroyed", POST),
    "config-update": ("cluster", "config-updated", POST),
    "master-ip-turnup": ("cluster", "master-ip-turned-up", BOTH),
    "master-ip-turndown": ("cluster", "master-ip-turned-down", BOTH),
}

#: Ganeti runs these on the nodes of a group, of which the master need not be one, or on a node that begins or ceases to
#: be the master. All others that change something run on the master.
NOT_ON_MASTER = ("network-connect", "network-disconnect", "master-ip-turnup", "master-ip-turndown")


def directories() -> list[str]:
    """The folders below /etc/ganeti/hooks that hold our file."""
    return [f"{name}-{phase}.d" for name, (_, _, phases) in OPERATIONS.items() for phase in phases]


def event_type(operation: str, phase: str) -> str:
    about, done, _ = OPERATIONS[operation]
    if phase == "post":
        return done
    return "instance-change-begun" if about == "instance" else "object-change-begun"
