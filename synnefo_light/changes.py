"""What an operation of Ganeti changed: the details of the events that its hooks leave.

Each has the thing before and after, as far as Ganeti said it, and the differences. hooks/snf_hooks writes these as JSON
without importing this module (an import costs more than the hook may take); its tests read every document back by it.
Texts are as Ganeti gives them, with what cannot be printed as escapes, cut at 256 characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: Events whose detail is an InstanceChange, and those whose detail is an ObjectChange.
InstanceEventType = Literal[
    "instance-change-begun",
    "instance-created",
    "instance-removed",
    "instance-started",
    "instance-stopped",
    "instance-rebooted",
    "instance-modified",
    "instance-renamed",
    "instance-reinstalled",
    "instance-exported",
    "instance-migrated",
    "instance-failed-over",
    "instance-moved",
    "instance-group-changed",
    "instance-disk-grown",
    "instance-disks-recreated",
    "instance-mirrors-replaced",
]
ObjectEventType = Literal[
    "object-change-begun",
    "network-added",
    "network-removed",
    "network-modified",
    "network-renamed",
    "network-connected",
    "network-disconnected",
    "node-added",
    "node-removed",
    "node-modified",
    "node-migrated",
    "group-added",
    "group-removed",
    "group-modified",
    "group-renamed",
    "group-evacuated",
    "cluster-initialized",
    "cluster-modified",
    "cluster-renamed",
    "cluster-verified",
    "cluster-destroyed",
    "config-updated",
    "master-ip-turned-up",
    "master-ip-turned-down",
]

#: What a change is of. For "nic", "disk", "tag", "backend", "hypervisor" and "property" `item` says which one.
ChangeKind = Literal[
    "nic",
    "disk",
    "tag",
    "backend",
    "hypervisor",
    "primary",
    "secondaries",
    "status",
    "name",
    "os",
    "disk-template",
    "property",
]
#: What Ganeti has hooks for besides instances.
ObjectKind = Literal["network", "node", "group", "cluster"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference. A NIC or disk that was modified has one for each field."""

    kind: ChangeKind
    action: Literal["added", "removed", "modified"]
    item: str = ""  # UUID of a NIC or disk, or "#0" where Ganeti gives none; the tag; the parameter
    field: str = ""  # of a NIC or disk: "ip", "size"
    before: str | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    index: int
    uuid: str = ""
    name: str = ""
    mac: str = ""
    ip: str = ""
    mode: str = ""
    link: str = ""
    vlan: str = ""
    network: str = ""
    network_uuid: str = ""
    subnet: str = ""
    gateway: str = ""
    subnet6: str = ""
    gateway6: str = ""
    mac_prefix: str = ""
    network_tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    index: int
    uuid: str = ""  # Ganeti gives none when an instance is added
    name: str = ""
    size: int = 0  # MiB
    mode: str = ""
    type: str = ""  # "file", "ext", ...
    volume: str = ""  # name or path, as the type has it
    provider: str = ""  # of "ext"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    name: str
    primary: str
    secondaries: tuple[str, ...] = ()
    status: str  # as asked for: "up", "down", "offline"
    os: str = ""
    hypervisor: str = ""
    disk_template: str = ""
    tags: tuple[str, ...] = ()
    nics: tuple[Nic, ...] | None = None  # None: not known
    disks: tuple[Disk, ...] = ()
    backend: Mapping[str, str] = field(default_factory=dict)
    hypervisor_parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceChange:
    """What an operation on an instance did, or, when it begins, is to do."""

    operation: str  # Ganeti's name of the hook: "instance-add"
    instance: str  # after a rename its new name
    before: Instance | None  # None: there was none
    after: Instance | None  # None: it is gone
    changes: tuple[Change, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)  # how it was asked for
    left_out: tuple[str, ...] = ()  # what was too long for one event


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectChange:
    """What an operation on something else did, or is to do; None: there was or is none, or Ganeti does not say."""

    operation: str
    kind: ObjectKind
    name: str | None
    before: Mapping[str, str] | None
    after: Mapping[str, str] | None
    changes: tuple[Change, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
