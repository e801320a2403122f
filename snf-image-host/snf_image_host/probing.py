"""Who else on the node may look into instances' disks: udev, LVM, MD, multipath. Part of `snf-image doctor`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from snf_image_host.findings import Finding, fail, ok, warn
from synnefo_light.files import read_bounded
from synnefo_light.run import Runner
from synnefo_light.units import MIB

RULE: Final = "57-snf-image.rules"
#: In the order of udev(7): a file hides those of its name in later folders.
RULE_FOLDERS: Final = ("etc/udev/rules.d", "run/udev/rules.d", "usr/local/lib/udev/rules.d", "usr/lib/udev/rules.d")
FILTER: Final = "/usr/share/snf-image/lvm-filter.conf"
#: A device of an instance under all its names, as LVM sees it.
NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "drbd": ("/dev/drbd0", "/dev/drbd/by-res/resource0/0", "/dev/block/147:0"),
    "rbd": ("/dev/rbd0", "/dev/rbd/rbd/x.rbd.disk0", "/dev/block/252:0"),
    "nbd": ("/dev/nbd0", "/dev/block/43:0"),
    "loop": ("/dev/loop0", "/dev/block/7:0"),
}
#: What the rule takes for images behind loop devices, and where Ganeti notes its folders of disks.
IMAGES: Final = ("/srv/ganeti/", "/var/lib/snf-image/", "/var/cache/snf-image/")
STORAGE: Final = ("file_storage_dir", "shared_file_storage_dir", "gluster_storage_dir")
_INSTANCES = re.compile(r"(drbd|rbd|nbd)\d+(p\d+)?")


def udev(root: Path = Path("/")) -> Iterator[Finding]:
    """Whether the rule is there, and whether udev's database shows that it held."""
    if not (root / "run/udev/control").exists():
        yield ok("udev", "no udev runs here")
        return
    path = next((p for folder in RULE_FOLDERS if (p := root / folder / RULE).exists()), None)
    if path is None:
        yield fail("udev", f"there is no rule {RULE}", "install the package snf-image-host again")
    elif not read_bounded(path, limit=MIB).strip():
        yield warn("udev", f"{path} switches the rule off", "remove it, or know what you do")
    else:
        yield ok("udev", f"{path}")
    for name in STORAGE:
        noted = root / "var/lib/ganeti" / f"ssconf_{name}"
        folder = noted.read_text().strip() if noted.exists() else ""
        if folder and not f"{folder}/".startswith(IMAGES):
            yield warn(
                "udev",
                f"Ganeti's {name} is {folder}, which the rule does not know",
                f"copy the rule to /etc/udev/rules.d/{RULE} and add {folder}/* to its folders",
            )
    for name in looked_into(root):
        yield warn(
            "udev",
            f"udev has looked into {name}, which is an instance's disk by its name",
            f"run udevadm trigger --action=change /dev/{name}",
        )


def looked_into(root: Path) -> Iterator[str]:
    """Instances' disks of which udev's database holds what blkid found."""
    folder = root / "sys/class/block"
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            number = (entry / "dev").read_text().strip()
            volume, image = _first_line(entry / "dm" / "name"), _first_line(entry / "loop" / "backing_file")
            known = read_bounded(root / "run/udev/data" / f"b{number}", limit=MIB)
        except OSError:
            continue
        ours = _INSTANCES.fullmatch(entry.name) or re.search(r"\.disk\d+(_data|_meta)?$", volume)
        seen = b"\nE:ID_FS_TYPE=" in b"\n" + known or b"\nE:ID_PART_TABLE_TYPE=" in b"\n" + known
        if seen and (ours or image.startswith(IMAGES)):
            yield entry.name


def _first_line(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def lvm(runner: Runner) -> Iterator[Finding]:
    program = shutil.which("lvmconfig")
    if program is None:
        yield ok("lvm", "LVM is not installed")
        return
    keys = ("devices/global_filter", "devices/scan_lvs", "devices/use_devicesfile")
    said = runner([program, "--type", "full", *keys], timeout_s=30).text
    listed = Path("/etc/lvm/devices/system.devices").exists()
    yield judge_lvm(parse_lvmconfig(said), listed=listed)


def parse_lvmconfig(text: str) -> dict[str, list[str]]:
    """What lvmconfig(8) prints, a key a line: its strings, or its number as one."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals:
            strings = re.findall(r'"((?:[^"\\]|\\.)*)"', value)
            found[key] = [re.sub(r"\\(.)", r"\1", s) for s in strings] if strings else [value.strip()]
    return found


def judge_lvm(config: Mapping[str, Collection[str]], *, listed: bool) -> Finding:
    """`listed`: there is a file of devices. Pure."""
    if config.get("use_devicesfile") == ["1"] and listed:
        return ok("lvm", "LVM uses the devices of system.devices only")
    if config.get("scan_lvs") == ["1"]:
        return warn(
            "lvm",
            "LVM looks for volume groups inside logical volumes, those of instances among them (scan_lvs)",
            f"set what {FILTER} says in /etc/lvm/lvmlocal.conf",
        )
    open_to = [kind for kind, names in NAMES.items() if accepts(config.get("global_filter", []), names)]
    if open_to:
        return warn(
            "lvm",
            f"LVM looks for volume groups inside devices of instances ({', '.join(open_to)})",
            f"set what {FILTER} says in /etc/lvm/lvmlocal.conf",
        )
    return ok("lvm", "LVM looks into no device of an instance")


def accepts(patterns: Iterable[str], names: Iterable[str]) -> bool:
    """Whether a filter of lvm.conf(5) lets a device with these names through.

    A name is accepted or rejected by the first pattern that it matches; a device is used when one name is accepted, and
    also when none matches at all.
    """
    rejected = False
    for name in names:
        verdict = next((p[0] for p in patterns if len(p) > 2 and re.search(_expression(p), name)), None)
        if verdict == "a":
            return True
        rejected = rejected or verdict == "r"
    return not rejected


def _expression(pattern: str) -> str:
    """The regular expression between a pattern's delimiters: "r|^/dev/x|", "a(^/dev/y)"."""
    closing = {"(": ")", "[": "]", "{": "}"}.get(pattern[1], pattern[1])
    return pattern[2:].removesuffix(closing)


def mdadm(root: Path = Path("/")) -> Iterator[Finding]:
    if not any((root / folder / "mdadm").exists() for folder in ("sbin", "usr/sbin")):
        return
    path = root / "etc/mdadm/mdadm.conf"
    text = read_bounded(path, limit=MIB).decode("utf-8", "replace") if path.exists() else ""
    yield judge_mdadm(text)


def judge_mdadm(text: str) -> Finding:
    """mdadm.conf(5): arrays that it does not name are assembled from any device unless AUTO or DEVICE says no. Pure."""
    words = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    auto = any(w[0].upper() == "AUTO" and "-all" in [x.lower() for x in w[1:]] for w in words)
    devices = [x for w in words if w[0].upper() == "DEVICE" for x in w[1:]]
    if auto or (devices and "partitions" not in devices):
        return ok("mdadm", "MD assembles the arrays only that mdadm.conf names, or from devices that it names")
    return warn(
        "mdadm",
        "mdadm --assemble --scan takes members of arrays from any device, instances' disks among them",
        "name your arrays in /etc/mdadm/mdadm.conf (mdadm --detail --scan), and add the line: AUTO -all",
    )


def multipath(root: Path = Path("/")) -> Iterator[Finding]:
    if not any((root / folder / "multipathd").exists() for folder in ("sbin", "usr/sbin")):
        return
    path = root / "etc/multipath.conf"
    text = read_bounded(path, limit=MIB).decode("utf-8", "replace") if path.exists() else ""
    if re.search(r'devnode\s+"[^"]*(drbd|rbd)', text) or re.search(r'find_multipaths\s+"?(yes|strict|on)', text):
        yield ok("multipath", "multipath leaves devices of instances alone")
    else:
        yield warn(
            "multipath",
            "multipath may claim devices of instances",
            'add to /etc/multipath.conf: blacklist { devnode "^(drbd|rbd|nbd|loop)" }',
        )
