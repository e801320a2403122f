"""Variables of one phase as the thing that they tell of. Only what is named here leaves the hook.

Hypervisor parameters are let through by name, and only those that choose among few values: not paths of passwords and
certificates, not free text that may hold a secret (kvm_extra, kernel_args). OS parameters Ganeti does not give hooks.
"""

from __future__ import annotations

from snf_hooks.environment import COUNT_LIMIT, clean, name, number, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from snf_hooks.environment import Variables

    View = dict[str, Any]

BACKEND = ("always_failover", "auto_balance", "maxmem", "minmem", "spindle_use", "vcpus")
HYPERVISOR = (
    *("acpi", "boot_order", "cpu_cap", "cpu_cores", "cpu_mask", "cpu_sockets", "cpu_threads", "cpu_type"),
    *("cpu_weight", "disk_aio", "disk_cache", "disk_discard", "disk_type", "keymap", "kvm_flag"),
    *("kvm_pci_reservations", "machine_version", "migration_bandwidth", "migration_downtime", "migration_mode"),
    *("nic_type", "pae", "reboot_behavior", "scsi_controller_type", "security_model", "serial_console"),
    *("serial_speed", "soundhw", "startup_timeout", "usb_mouse", "use_bootloader", "use_chroot", "use_guest_agent"),
    *("use_localtime", "user_shutdown", "vga", "vhost_net", "vif_type", "viridian", "virtio_net_queues", "vnc_tls"),
    *("vnc_bind_address", "vnet_hdr", "cdrom_disk_type", "spice_bind", "spice_use_tls", "spice_use_vdagent"),
)
#: A path is told; an address may have a password in it and is not.
HYPERVISOR_PATHS = ("cdrom_image_path", "cdrom2_image_path")
#: How an operation was asked for.
OPTIONS = (
    *("ADD_MODE", "SRC_NODE", "EXPORT_MODE", "EXPORT_NODE", "EXPORT_DO_SHUTDOWN", "REMOVE_INSTANCE", "REBOOT_TYPE"),
    *("FORCE", "TIMEOUT", "SHUTDOWN_TIMEOUT", "IGNORE_CONSISTENCY", "IGNORE_SECONDARIES", "FAILOVER_CLEANUP"),
    *("MIGRATE_LIVE", "MIGRATE_CLEANUP", "ALLOW_RUNTIME_CHANGES", "DISK", "AMOUNT", "ABSOLUTE", "MODE"),
    *("TARGET_NODE", "TARGET_GROUPS", "OLD_PRIMARY", "NEW_PRIMARY", "OLD_SECONDARY", "NEW_SECONDARY"),
    *("NEW_DISK_TEMPLATE", "RUNTIME_MEMORY"),
)
#: What is told of things other than instances.
PROPERTIES = {
    "network": (
        *("NETWORK_SUBNET", "NETWORK_GATEWAY", "NETWORK_SUBNET6", "NETWORK_GATEWAY6", "NETWORK_MAC_PREFIX"),
        *("NETWORK_TAGS", "GROUP_NAME", "GROUP_NETWORK_MODE", "GROUP_NETWORK_LINK", "GROUP_NETWORK_VLAN"),
    ),
    "node": (*("NODE_PIP", "NODE_SIP", "MASTER_CANDIDATE", "MASTER_CAPABLE", "VM_CAPABLE", "OFFLINE", "DRAINED"),),
    "group": ("NEW_ALLOC_POLICY",),
    "cluster": (
        *("NEW_VG_NAME", "CLUSTER_TAGS", "MASTER_NETDEV", "MASTER_IP", "MASTER_NETMASK", "CLUSTER_IP_VERSION"),
    ),
}
_STATUS = {"True": "up", "False": "down"}  # in instance-add, where it says whether the instance is to be started
_NIC_TEXTS = (
    *(("uuid", "UUID"), ("name", "NAME"), ("mac", "MAC"), ("ip", "IP"), ("mode", "MODE"), ("link", "LINK")),
    *(("vlan", "VLAN"), ("network", "NETWORK_NAME"), ("network_uuid", "NETWORK_UUID"), ("subnet", "NETWORK_SUBNET")),
    *(("gateway", "NETWORK_GATEWAY"), ("subnet6", "NETWORK_SUBNET6"), ("gateway6", "NETWORK_GATEWAY6")),
    ("mac_prefix", "NETWORK_MAC_PREFIX"),
)
_DISK_TEXTS = (
    *(("uuid", "UUID"), ("name", "NAME"), ("mode", "MODE"), ("type", "DEV_TYPE"), ("volume", "ID")),
    ("provider", "PROVIDER"),
)
_MIB_LIMIT = 1 << 40


def instance(variables: Variables) -> View:
    """An instance as one phase tells of it. Raises HookError."""
    status = clean(variables.get("INSTANCE_STATUS", ""), 32)
    return {
        "name": name(variables, "INSTANCE_NAME"),
        "primary": name(variables, "INSTANCE_PRIMARY"),
        "secondaries": words(variables.get("INSTANCE_SECONDARIES", "")),
        "status": _STATUS.get(status, status),
        "os": clean(variables.get("INSTANCE_OS_TYPE", "")),
        "hypervisor": clean(variables.get("INSTANCE_HYPERVISOR", "")),
        "disk_template": clean(variables.get("INSTANCE_DISK_TEMPLATE", "")),
        "tags": words(variables.get("INSTANCE_TAGS", "")),
        "nics": nics(variables),
        "disks": disks(variables),
        # INSTANCE_MAXMEM and its like are not these: in the first phase of a change they are the new values already.
        "backend": _parameters(variables, "INSTANCE_BE_", BACKEND),
        "hypervisor_parameters": {
            **_parameters(variables, "INSTANCE_HV_", HYPERVISOR),
            **{
                key: path
                for key, path in _parameters(variables, "INSTANCE_HV_", HYPERVISOR_PATHS).items()
                if not path or path.startswith("/")
            },
        },
    }


def nics(variables: Variables) -> list[View]:
    found = []
    for index in range(number(variables, "INSTANCE_NIC_COUNT", COUNT_LIMIT)):
        prefix = f"INSTANCE_NIC{index}_"
        nic: View = {"index": index}
        nic.update((key, clean(variables.get(prefix + variable, ""))) for key, variable in _NIC_TEXTS)
        nic["network_tags"] = words(variables.get(f"{prefix}NETWORK_TAGS", ""))
        found.append(nic)
    return found


def disks(variables: Variables) -> list[View]:
    found = []
    for index in range(number(variables, "INSTANCE_DISK_COUNT", COUNT_LIMIT)):
        prefix = f"INSTANCE_DISK{index}_"
        disk: View = {"index": index}
        disk.update((key, clean(variables.get(prefix + variable, ""))) for key, variable in _DISK_TEXTS)
        disk["size"] = number(variables, f"{prefix}SIZE", _MIB_LIMIT)
        found.append(disk)
    return found


def properties(variables: Variables, about: str) -> dict[str, str]:
    """What Ganeti tells of a network, node, group or cluster; what was not asked for is "None" there and left out."""
    found = {}
    for variable in PROPERTIES[about]:
        value = clean(variables.get(variable, "None"), 4096)
        if value != "None":
            found[variable.lower().removeprefix(f"{about}_")] = value
    return found


def options(variables: Variables) -> dict[str, str]:
    """How an operation was asked for. In an export to another cluster EXPORT_NODE has the secrets of the transfer."""
    told = {key.lower(): clean(variables[key]) for key in OPTIONS if key in variables}
    if told.get("export_mode") != "local":
        told.pop("export_node", None)
    return told


def _parameters(variables: Variables, prefix: str, names: tuple[str, ...]) -> dict[str, str]:
    return {key: clean(variables[prefix + key]) for key in names if prefix + key in variables}
