"""What Ganeti says to the scripts that it calls, parsed once.

Sources: ganeti-os-interface(7) and ganeti-extstorage-interface(7) of 3.0 and 3.1, and the environments both were seen
to pass. Values come from the cluster's administrators and, through instance names, tags and parameters, from whoever
may create instances; so they are bounded and checked, and the error names the variable.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NewType, TypedDict

from synnefo_light.errors import ProtocolError
from synnefo_light.files import read_bounded
from synnefo_light.resource_names import ALLOWED, is_name
from synnefo_light.units import MiB

OS_API_VERSION: Final = 20
COUNT_LIMIT: Final = 32
#: A link to the files of the version that the node runs.
SHARE: Final = Path("/etc/ganeti/share")
#: Ganeti writes it on every node.
CLUSTER: Final = Path("/var/lib/ganeti/ssconf_cluster_name")

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


def parse_version(target: str) -> tuple[int, int]:
    """Ganeti's version from where Debian's /etc/ganeti/share leads, as /usr/share/ganeti/3.0. Raises ProtocolError."""
    found = re.fullmatch(r"(?:.*/)?([0-9]{1,3})\.([0-9]{1,3})", target)
    if not found:
        raise ProtocolError(f"{SHARE} leads to {target[:200]!r}, which names no version of Ganeti")
    return int(found[1]), int(found[2])


def installed_version(share: Path = SHARE) -> tuple[int, int] | None:
    """Of the Ganeti on this node; None where it is not Debian's. Raises ProtocolError for a link that names none."""
    try:
        return parse_version(str(share.readlink()))
    except OSError:
        return None


def cluster_name(file: Path = CLUSTER) -> str:
    """The cluster that this node is of, or "" where no such name is written down; nothing stops working without it."""
    try:
        text = read_bounded(file, limit=1024).decode("ascii", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return text if len(text) <= 255 and _INSTANCE.fullmatch(text) else ""


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


# --- ExtStorage providers: ganeti-extstorage-interface(7)

#: Ganeti passes these to every script of a provider beside the user's own keys.
EXT_OWN_PARAMETERS: Final = frozenset({"provider", "access"})

_METADATA = re.compile(r"[A-Za-z0-9_+.-]{0,128}")
#: 16 TiB; Ganeti itself knows no limit.
VOLUME_LIMIT: Final = MiB(16 << 20)

VolumeName = NewType("VolumeName", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeEnv:
    """The environment of attach, detach, remove and close, and what all others have too."""

    volume: VolumeName  # VOL_NAME: "UUID.ext.diskN", or that of a snapshot Ganeti asked for
    uuid: str | None  # VOL_UUID: the disk's own, which OS scripts know as DISK_n_UUID; snapshot gets none
    cname: str | None  # VOL_CNAME: the user's name for the disk, if it has one
    access: Literal["kernelspace", "userspace"]  # EXTP_ACCESS
    params: Mapping[str, str]  # the user's keys, EXTP_ORIGIN as "origin"; the same on every call of a disk's life


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateEnv(VolumeEnv):
    size: MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowEnv(VolumeEnv):
    old: MiB  # VOL_SIZE: what it has now, by Ganeti's book
    new: MiB  # VOL_NEW_SIZE: absolute


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEnv(VolumeEnv):
    exclusive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SetInfoEnv(VolumeEnv):
    text: str  # VOL_METADATA: "originstname+" and the instance's name


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotEnv(VolumeEnv):
    snapshot: VolumeName  # VOL_SNAPSHOT_NAME: attached and removed later as if it were a volume
    size: MiB


def is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def parse_volume_name(text: str, *, named: str) -> VolumeName:
    """Raises ProtocolError; `named` is what the message calls it."""
    if not is_name(text):
        raise ProtocolError(f"{named}={text[:255]!r} cannot name a volume, which is {ALLOWED}")
    return VolumeName(text)


def parse_volume_env(environ: Mapping[str, str]) -> VolumeEnv:
    """The environment of attach, detach, remove and close. Raises ProtocolError naming the variable."""
    return VolumeEnv(**_volume(environ))


def parse_create_env(environ: Mapping[str, str]) -> CreateEnv:
    """Raises ProtocolError naming the variable."""
    return CreateEnv(**_volume(environ), size=_volume_size(environ, "VOL_SIZE"))


def parse_grow_env(environ: Mapping[str, str]) -> GrowEnv:
    """Raises ProtocolError naming the variable, also when the volume would become smaller."""
    old, new = _volume_size(environ, "VOL_SIZE"), _volume_size(environ, "VOL_NEW_SIZE")
    if new < old:
        raise ProtocolError(f"VOL_NEW_SIZE={new} is less than VOL_SIZE={old}; a volume can only grow")
    return GrowEnv(**_volume(environ), old=old, new=new)


def parse_open_env(environ: Mapping[str, str]) -> OpenEnv:
    """Raises ProtocolError naming the variable."""
    exclusive = _ext_required(environ, "VOL_OPEN_EXCLUSIVE")
    if exclusive not in ("True", "False"):
        raise ProtocolError(f"VOL_OPEN_EXCLUSIVE={exclusive[:40]!r} is neither True nor False")
    return OpenEnv(**_volume(environ), exclusive=exclusive == "True")


def parse_set_info_env(environ: Mapping[str, str]) -> SetInfoEnv:
    """Raises ProtocolError naming the variable."""
    text = environ.get("VOL_METADATA", "")
    if _METADATA.fullmatch(text) is None:
        raise ProtocolError(f"VOL_METADATA={text[:255]!r} is not up to 128 letters, digits and _ + . -")
    return SetInfoEnv(**_volume(environ), text=text)


def parse_snapshot_env(environ: Mapping[str, str]) -> SnapshotEnv:
    """Raises ProtocolError naming the variable."""
    return SnapshotEnv(
        **_volume(environ),
        snapshot=parse_volume_name(_ext_required(environ, "VOL_SNAPSHOT_NAME"), named="VOL_SNAPSHOT_NAME"),
        size=_volume_size(environ, "VOL_SNAPSHOT_SIZE"),
    )


class _Volume(TypedDict):
    volume: VolumeName
    uuid: str | None
    cname: str | None
    access: Literal["kernelspace", "userspace"]
    params: Mapping[str, str]


def _volume(environ: Mapping[str, str]) -> _Volume:
    access = environ.get("EXTP_ACCESS", "kernelspace")
    if access not in ("kernelspace", "userspace"):
        raise ProtocolError(f"EXTP_ACCESS={access[:40]!r} is neither kernelspace nor userspace")
    uuid = environ.get("VOL_UUID")
    if uuid and _UUID.fullmatch(uuid) is None:
        raise ProtocolError(f"VOL_UUID={uuid[:255]!r} is not a UUID")
    return _Volume(
        volume=parse_volume_name(_ext_required(environ, "VOL_NAME"), named="VOL_NAME"),
        uuid=uuid or None,
        cname=environ.get("VOL_CNAME") or None,
        access="userspace" if access == "userspace" else "kernelspace",
        params=parse_parameters(environ),
    )


def parse_parameters(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's keys: EXTP_ORIGIN as "origin"."""
    params = {name[5:].lower(): value for name, value in environ.items() if name.startswith("EXTP_")}
    return {name: value for name, value in params.items() if name not in EXT_OWN_PARAMETERS}


def _volume_size(environ: Mapping[str, str], name: str) -> MiB:
    value = _ext_required(environ, name)
    if not value.isascii() or not value.isdigit() or len(value) > 12 or not 1 <= int(value) <= VOLUME_LIMIT:
        raise ProtocolError(f"{name}={value[:40]!r} is not a size in MiB from 1 to {VOLUME_LIMIT} (16 TiB)")
    return MiB(int(value))


def _ext_required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if not value:
        raise ProtocolError(f"{name} is not set; this script is called by Ganeti, see ganeti-extstorage-interface(7)")
    return value
