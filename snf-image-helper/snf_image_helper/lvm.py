"""LVM of the image, which only this VM ever looks at: what there is, making it usable for a while, making it larger.

The tools see disk 0 and nothing else, by a filter on their command line, and there is no udev and no lvm.conf they
could ask. A volume is activated when its node is needed and all are deactivated before the partition table changes and
at the end, whatever happened. Only plain (linear) volumes are used: the others need programs that are not here.

Source: lvm.conf(5), lvmreport(7), and dmsetup(8) for the names in /dev/mapper.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from snf_image_helper.disks import Disks
from snf_image_helper.image import VolumeGroup
from snf_image_helper.modules import load
from snf_image_helper.partitions import TableError
from synnefo_light.run import Runner

LVM = "/usr/sbin/lvm"
TIMEOUT_S = 300.0
REPORT_LIMIT = 1 << 20
VOLUMES_LIMIT = 64
_NAME = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,126}")
_CONFIG = (
    'devices {{ filter=["a|^{disk}[0-9]*$|", "r|.*|"] use_devicesfile=0 scan_lvs=0 obtain_device_list_from_udev=0 '
    'external_device_info_source="none" hints="none" }} backup {{ backup=0 archive=0 }} '
    "activation {{ udev_sync=0 udev_rules=0 monitoring=0 }} global {{ event_activation=0 use_lvmpolld=0 }}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalVolume:
    """`name` is "group/volume"; size in bytes."""

    name: str
    size: int
    is_linear: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Volumes:
    """All of a disk's LVM."""

    groups: tuple[VolumeGroup, ...]
    volumes: tuple[LogicalVolume, ...]


def parse_report(raw: bytes, *, disk: str) -> Volumes:
    """What `lvm fullreport` printed about a disk's node ("/dev/vda"). Raises TableError for what must not be used."""
    if len(raw) >= REPORT_LIMIT:
        raise TableError("the image has more of LVM than can be looked at")
    try:
        found = _parse_sections(json.loads(raw)["report"], disk)
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        # lvm(8) prints names as they stand in the image, also such as make no JSON.
        raise TableError(f"the image's LVM is described in a way that cannot be read: {e}") from None
    if len(found.volumes) > VOLUMES_LIMIT:
        raise TableError(f"the image has {len(found.volumes)} logical volumes, at most {VOLUMES_LIMIT} are looked at")
    return found


def _parse_sections(sections: Sequence[Any], disk: str) -> Volumes:
    groups: dict[str, VolumeGroup] = {}
    volumes: list[LogicalVolume] = []
    for section in sections:
        for row in section.get("vg", []):
            name = _checked(row["vg_name"])
            if name in groups:
                raise TableError(f"the image has two volume groups named {name}; one of them must be renamed")
            if int(row["vg_missing_pv_count"]):
                raise TableError(f"the volume group {name} lacks a physical volume, which is not on the image's disk")
            partitions = tuple(sorted((_partition(pv["pv_name"], disk) for pv in section["pv"]), key=lambda n: n or 0))
            groups[name] = VolumeGroup(
                name=name,
                partitions=partitions,
                extent_size=int(row["vg_extent_size"]),
                free_extents=int(row["vg_free_count"]),
            )
            for lv in section.get("lv", []):
                linear = lv["lv_layout"] == "linear" and lv["lv_role"] == "public"
                volumes.append(
                    LogicalVolume(name=f"{name}/{_checked(lv['lv_name'])}", size=int(lv["lv_size"]), is_linear=linear)
                )
    return Volumes(groups=tuple(groups.values()), volumes=tuple(volumes))


def _checked(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise TableError("the image has a name of LVM that LVM itself would not allow")
    return name


def _partition(node: str, disk: str) -> int | None:
    number = node.removeprefix(disk)
    return int(number) if number else None


def node_of(volume: str) -> str:
    """The device node of "group/volume": a hyphen is doubled in /dev/mapper."""
    group, _, name = volume.partition("/")
    return f"/dev/mapper/{group.replace('-', '--')}-{name.replace('-', '--')}"


class VolumeManager:
    """lvm(8), on one disk. Remembers what it activated."""

    def __init__(self, disks: Disks, serial: str, runner: Runner) -> None:
        self._disks = disks
        self._serial = serial
        self._runner = runner
        self._active: set[str] = set()

    def report(self) -> Volumes:
        """Raises ToolError, and TableError for what must not be used."""
        disk = self._disks.node(self._serial)
        columns = (
            *("--configreport", "vg", "-o", "vg_name,vg_extent_size,vg_free_count,vg_missing_pv_count"),
            *("--configreport", "pv", "-o", "pv_name"),
            *("--configreport", "lv", "-o", "lv_name,lv_size,lv_layout,lv_role"),
            *("--configreport", "pvseg", "-o", "pvseg_start", "--configreport", "seg", "-o", "seg_start"),
        )
        shown = self._lvm("fullreport", "--reportformat", "json", "--units", "b", "--nosuffix", *columns)
        return parse_report(shown, disk=disk)

    def node(self, volume: str) -> str:
        """The node of a volume, which is active when this returns."""
        if volume not in self._active:
            self._lvm("lvchange", "--activate", "y", volume)
            self._active.add(volume)
        return node_of(volume)

    def is_active(self, volume: str) -> bool:
        return volume in self._active

    def deactivate(self) -> None:
        """Close what was activated. A second call does nothing."""
        for volume in sorted(self._active):
            self._lvm("lvchange", "--activate", "n", volume)
            self._active.discard(volume)

    def grow(self, volume: str, *, partitions: tuple[int | None, ...]) -> None:
        """Let the physical volumes fill their partitions, and the volume take all that is free then."""
        for number in partitions:
            self._lvm("pvresize", self._disks.partition_node(self._serial, number))
        group = volume.partition("/")[0]
        if any(g.free_extents for g in self.report().groups if g.name == group):
            self._lvm("lvextend", "--extents", "+100%FREE", volume)

    def _lvm(self, command: str, *words: str) -> bytes:
        load("dm_mod")
        config = _CONFIG.format(disk=self._disks.node(self._serial))
        argv = (LVM, command, "--config", config, *words)
        return self._runner(argv, timeout_s=TIMEOUT_S, env={"DM_DISABLE_UDEV": "1", "LVM_SYSTEM_DIR": ""}).stdout
