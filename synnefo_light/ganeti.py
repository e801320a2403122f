"""What Ganeti says to the scripts that it calls, parsed once.

Sources: ganeti-os-interface(7) of 3.0 and 3.1, and the environments both were seen to pass. Values come from the
cluster's administrators and, through instance names, tags and parameters, from whoever may create instances; so they
are bounded and checked, and the error names the variable.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from synnefo_light.errors import ProtocolError
from synnefo_light.units import MiB

OS_API_VERSION: Final = 20
COUNT_LIMIT: Final = 32

_INSTANCE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OsDisk:
    """One disk: a path on this node, or only a URI that QEMU understands (userspace access)."""

    index: int
    uuid: str
    size: MiB | None  # DISK_n_SIZE, since Ganeti 3.0
    path: Path | None
    uri: str | None
    mode: Literal["rw", "ro"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OsNic:
    index: int
    mac: str
    mode: str  # bridged, routed, openvswitch
    link: str
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address | None
    network: str | None
    subnet: ipaddress.IPv4Network | None
    gateway: ipaddress.IPv4Address | None
    subnet6: ipaddress.IPv6Network | None
    gateway6: ipaddress.IPv6Address | None
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OsEnv:
    """The environment of an OS definition's create, import, export and rename scripts."""

    instance: str
    uuid: str
    old_name: str | None  # rename only
    reinstall: bool
    hypervisor: str
    variant: str
    disks: tuple[OsDisk, ...]
    nics: tuple[OsNic, ...]
    parameters: Mapping[str, str]  # OSP_*, names in lower case
    debug: int


def os_parameters(environ: Mapping[str, str]) -> dict[str, str]:
    """The OS parameters: OSP_IMG_ID and its like, as {"img_id": value}. Empty values stay: unset and empty differ."""
    return {name[4:].lower(): value for name, value in environ.items() if name.startswith("OSP_")}


def os_variant(environ: Mapping[str, str]) -> str:
    return environ.get("OS_VARIANT", "") or "default"


def parse_os_env(environ: Mapping[str, str]) -> OsEnv:
    """The environment of a create, import, export or rename script. Raises ProtocolError naming the variable."""
    version = _required(environ, "OS_API_VERSION")
    if version != str(OS_API_VERSION):
        raise ProtocolError(f"Ganeti speaks OS API {version!r}, this OS definition understands {OS_API_VERSION}")
    old_name = environ.get("OLD_INSTANCE_NAME")
    return OsEnv(
        instance=_matching(environ, "INSTANCE_NAME", _INSTANCE, "an instance name"),
        uuid=_matching(environ, "INSTANCE_UUID", _UUID, "a UUID"),
        old_name=old_name or None,
        reinstall=environ.get("INSTANCE_REINSTALL", "0") not in ("", "0"),
        hypervisor=environ.get("HYPERVISOR", ""),
        variant=os_variant(environ),
        disks=tuple(_disk(environ, n) for n in range(_count(environ, "DISK_COUNT"))),
        nics=tuple(_nic(environ, n) for n in range(_count(environ, "NIC_COUNT"))),
        parameters=os_parameters(environ),
        debug=_count(environ, "DEBUG_LEVEL", limit=100) if environ.get("DEBUG_LEVEL") else 0,
    )


def _disk(environ: Mapping[str, str], n: int) -> OsDisk:
    path = environ.get(f"DISK_{n}_PATH")
    if path and not path.startswith("/"):
        raise ProtocolError(f"Ganeti passed DISK_{n}_PATH={path!r}, which is not an absolute path")
    size = environ.get(f"DISK_{n}_SIZE")
    mode = environ.get(f"DISK_{n}_ACCESS", "rw").lower()
    if mode not in ("rw", "ro"):
        raise ProtocolError(f"Ganeti passed DISK_{n}_ACCESS={mode!r}, which is neither rw nor ro")
    return OsDisk(
        index=n,
        uuid=environ.get(f"DISK_{n}_UUID", ""),
        size=MiB(_count(environ, f"DISK_{n}_SIZE", limit=1 << 40)) if size else None,
        path=Path(path) if path else None,
        uri=environ.get(f"DISK_{n}_URI") or None,
        mode="rw" if mode == "rw" else "ro",
    )


def _nic(environ: Mapping[str, str], n: int) -> OsNic:
    name = f"NIC_{n}_"
    mac = _required(environ, f"{name}MAC").lower()
    if _MAC.fullmatch(mac) is None:
        raise ProtocolError(f"Ganeti passed {name}MAC={mac!r}, which is not a MAC address")
    try:
        ip = environ.get(f"{name}IP")
        subnet, subnet6 = environ.get(f"{name}NETWORK_SUBNET"), environ.get(f"{name}NETWORK_SUBNET6")
        gateway, gateway6 = environ.get(f"{name}NETWORK_GATEWAY"), environ.get(f"{name}NETWORK_GATEWAY6")
        return OsNic(
            index=n,
            mac=mac,
            mode=environ.get(f"{name}MODE", ""),
            link=environ.get(f"{name}LINK", ""),
            ip=ipaddress.ip_address(ip) if ip and ip.lower() != "none" else None,
            network=environ.get(f"{name}NETWORK_NAME") or None,
            subnet=ipaddress.IPv4Network(subnet) if subnet else None,
            gateway=ipaddress.IPv4Address(gateway) if gateway else None,
            subnet6=ipaddress.IPv6Network(subnet6) if subnet6 else None,
            gateway6=ipaddress.IPv6Address(gateway6) if gateway6 else None,
            tags=tuple(sorted(environ.get(f"{name}NETWORK_TAGS", "").split())),
        )
    except ValueError as e:
        raise ProtocolError(f"Ganeti passed an address for NIC {n} that is none: {e}") from None


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if not value:
        raise ProtocolError(f"{name} is not set; this script is called by Ganeti, see ganeti-os-interface(7)")
    return value


def _matching(environ: Mapping[str, str], name: str, shape: re.Pattern[str], what: str) -> str:
    value = _required(environ, name)
    if len(value) > 255 or shape.fullmatch(value) is None:
        raise ProtocolError(f"Ganeti passed {name}={value[:255]!r}, which is not {what}")
    return value


def _count(environ: Mapping[str, str], name: str, *, limit: int = COUNT_LIMIT) -> int:
    value = _required(environ, name)
    if not value.isascii() or not value.isdigit() or int(value) > limit:
        raise ProtocolError(f"Ganeti passed {name}={value[:40]!r}, which is not a number from 0 to {limit}")
    return int(value)
