"""Environments such as Ganeti 3.0 and 3.1 give to hooks: names and shapes are theirs, values are ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snf_hooks.environment import Hook
from snf_hooks.translate import event_from_hook

from synnefo_light.events import Event, from_json

MASTER = "node1.example.org"
NIC_A = "0a000000-0000-4000-8000-00000000000a"
NIC_B = "0b000000-0000-4000-8000-00000000000b"
DISK_A = "da000000-0000-4000-8000-00000000000a"
DISK_B = "db000000-0000-4000-8000-00000000000b"
NOON_NS = 1_767_268_800_000_000_000  # 2026-01-01T12:00:00Z

OPCODES = {
    "instance-add": "OP_INSTANCE_CREATE",
    "instance-modify": "OP_INSTANCE_SET_PARAMS",
    "disk-grow": "OP_INSTANCE_GROW_DISK",
    "instance-start": "OP_INSTANCE_STARTUP",
    "network-connect": "OP_NETWORK_CONNECT",
}


def nic(index: int, uuid: str, **given: str) -> dict[str, str]:
    values = {"UUID": uuid, "MAC": f"aa:00:00:00:00:0{index}", "MODE": "bridged", "LINK": "br0", "IP": "", "VLAN": ""}
    return {f"INSTANCE_NIC{index}_{key}": value for key, value in (values | given).items()}


def disk(index: int, uuid: str, **given: str) -> dict[str, str]:
    values = {"UUID": uuid, "SIZE": "1024", "MODE": "rw", "DEV_TYPE": "ext", "PROVIDER": "archipelago"}
    values["ID"] = f"{uuid}.ext.disk{index}"
    return {f"INSTANCE_DISK{index}_{key}": value for key, value in (values | given).items()}


def instance(**given: str) -> dict[str, str]:
    """Variables of an instance with a NIC and a disk, and parameters of which some must not leave the node."""
    return {
        "INSTANCE_NAME": "web1",
        "INSTANCE_PRIMARY": MASTER,
        "INSTANCE_SECONDARIES": "",
        "INSTANCE_STATUS": "up",
        "INSTANCE_OS_TYPE": "snf-image+default",
        "INSTANCE_HYPERVISOR": "kvm",
        "INSTANCE_DISK_TEMPLATE": "ext",
        "INSTANCE_MINMEM": "512",
        "INSTANCE_MAXMEM": "512",
        "INSTANCE_MEMORY": "512",
        "INSTANCE_VCPUS": "1",
        "INSTANCE_TAGS": "shop blue",
        "INSTANCE_NIC_COUNT": "1",
        "INSTANCE_DISK_COUNT": "1",
        "INSTANCE_BE_maxmem": "512",
        "INSTANCE_BE_minmem": "512",
        "INSTANCE_BE_vcpus": "1",
        "INSTANCE_HV_acpi": "True",
        "INSTANCE_HV_boot_order": "disk",
        "INSTANCE_HV_cdrom_image_path": "",
        "INSTANCE_HV_vnc_password_file": "/etc/ganeti/SECRET",
        "INSTANCE_HV_spice_password_file": "/etc/ganeti/SECRET",
        "INSTANCE_HV_kernel_args": "ro token=SECRET",
        "INSTANCE_HV_kvm_extra": "-object secret,id=s,data=SECRET",
        **nic(0, NIC_A),
        **disk(0, DISK_A),
        **given,
    }


def environment(
    operation: str, phase: str, before: Mapping[str, str], after: Mapping[str, str] | None = None, **common: str
) -> dict[str, str]:
    """What the hook's process is given."""
    given = {
        "HOOKS_VERSION": "2",
        "HOOKS_PATH": operation,
        "HOOKS_PHASE": phase,
        "OP_CODE": OPCODES.get(operation, "OP_" + operation.upper().replace("-", "_")),
        "CLUSTER": "cluster.example.org",
        "MASTER": MASTER,
        "DATA_DIR": "/nonexistent",
        **common,
        **before,
    }
    found = {"PATH": "/sbin:/bin:/usr/sbin:/usr/bin", **{f"GANETI_{key}": value for key, value in given.items()}}
    if phase == "post":
        found |= {f"GANETI_POST_{key}": value for key, value in (before if after is None else after).items()}
    return found


def document(
    environ: Mapping[str, str], *, call: str = "call", remembered: dict[str, str] | None = None
) -> dict[str, Any]:
    return event_from_hook(Hook(environ), node="node1", call=call, now_ns=NOON_NS, remembered=remembered)


def event(environ: Mapping[str, str], *, call: str = "call", remembered: dict[str, str] | None = None) -> Event:
    """The event of an environment, read back by the contract."""
    from snf_hooks.document import to_bytes

    return from_json(to_bytes(document(environ, call=call, remembered=remembered)))
