"""qemu-img as we use it: its command lines, and what it says, parsed. Nothing runs here.

Every command names the format (-f), so that nothing is found out by looking at a stranger's bytes, and runs under
limits. Direct input and output (-T none, -t none): the VM's memory would only be one more place to copy through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from snf_image_helper.source_headers import Header, SourceError
from synnefo_light.manifest import SourceFormat
from synnefo_light.records import RecordError, load_json
from synnefo_light.units import MIB

#: Address space: 200 MiB are used, most of it stacks that are never touched. Past it qemu-img aborts.
SPACE = 768 * MIB
OUTPUT_LIMIT = 1 << 20
LIMITS: Final = ("/usr/bin/prlimit", f"--as={SPACE}", "--core=0", "--nofile=64", "--")
#: One malloc arena: each thread of the pool would reserve 64 MiB of address space. It is faster, too.
ENVIRONMENT: Final[Mapping[str, str]] = {"MALLOC_ARENA_MAX": "1"}
PROGRAM: Final = (*LIMITS, "/usr/bin/qemu-img")
#: What `qemu-img check` may exit with: no errors, space lost but nothing wrong, a format that cannot be checked.
CHECKED: Final = (0, 3, 63)

#: All that qemu-img says of a whole image in one file ("children" since 8.1). Any other key is of something that we do
#: not accept: backing-filename, full-backing-filename, encrypted ...
KEYS: Final = frozenset(
    (
        *("filename", "format", "virtual-size", "actual-size", "cluster-size", "format-specific"),
        *("dirty-flag", "compressed", "snapshots", "children"),
    )
)
SPECIFIC: Final[Mapping[SourceFormat, frozenset[str]]] = {
    SourceFormat.QCOW2: frozenset(
        ("compat", "compression-type", "lazy-refcounts", "refcount-bits", "corrupt", "extended-l2", "bitmaps")
    ),
    SourceFormat.VMDK: frozenset(("cid", "parent-cid", "create-type", "extents")),
    SourceFormat.VHDX: frozenset(),
    SourceFormat.VDI: frozenset(),
}
NO_PARENT = 0xFFFFFFFF
_PERCENT = re.compile(rb"\((\d{1,3})\.\d\d/100%\)")


def info_command(kind: SourceFormat, node: str) -> tuple[str, ...]:
    return (*PROGRAM, "info", "--output=json", "-f", kind.value, node)


def check_command(kind: SourceFormat, node: str) -> tuple[str, ...]:
    """What `info` does not see: references behind the end of a file that was cut, for one."""
    return (*PROGRAM, "check", "-f", kind.value, node)


def convert_command(kind: SourceFormat, node: str, target: str) -> tuple[str, ...]:
    """Into a disk that is there and reads as zeros: what is zero in the image is not written."""
    exists = ("-n", "--target-is-zero")
    return (*PROGRAM, "convert", "-p", *exists, "-T", "none", "-t", "none", "-f", kind.value, "-O", "raw", node, target)


def parse_info(raw: bytes, *, kind: SourceFormat, node: str, header: Header) -> None:
    """Hold what `qemu-img info` says against the header as we read it. Raises SourceError when they differ."""
    try:
        said = load_json(raw, limit=OUTPUT_LIMIT)
    except RecordError as e:
        raise SourceError(f"qemu-img describes the image in a way that cannot be read: {e}") from None
    if not isinstance(said, dict):
        raise SourceError("qemu-img describes the image by no JSON object")
    if strange := sorted(said.keys() - KEYS):
        raise SourceError(f"the image has a {strange[0]}, which is not accepted")
    if said.get("format") != kind.value or said.get("filename") != node:
        raise SourceError(f"qemu-img takes the image for {said.get('format')!r}, not for {kind.value}")
    if said.get("virtual-size") != -(-header.virtual_size // 512) * 512:
        raise SourceError(
            f"qemu-img sees a disk of {said.get('virtual-size')} bytes in the image, its header says "
            f"{header.virtual_size}"
        )
    specific = said.get("format-specific", {})
    data = specific.get("data", {}) if isinstance(specific, dict) else None
    if not isinstance(data, dict):
        raise SourceError("qemu-img describes the format of the image by no JSON object")
    if strange := sorted(data.keys() - SPECIFIC[kind]):
        raise SourceError(f"the image has a {strange[0]}, which is not accepted")
    if data.get("corrupt", False) is not False:
        raise SourceError("the image is marked as corrupt; repair it with qemu-img check -r all")
    if kind is SourceFormat.VMDK:
        _vmdk(data, node)
    if any(child != node for child in _children(said.get("children", []))):
        raise SourceError("the image is made of more than its own file")


def _children(listed: object) -> list[object]:
    """The files that qemu-img has opened, each by its name; None for one that it does not describe."""
    if not isinstance(listed, list):
        return [None]
    described = [child.get("info") if isinstance(child, dict) else None for child in listed]
    return [info.get("filename") if isinstance(info, dict) else None for info in described]


def _vmdk(data: Mapping[str, object], node: str) -> None:
    extents = data.get("extents")
    alone = isinstance(extents, list) and len(extents) == 1 and isinstance(extents[0], dict)
    if not alone or not isinstance(extents, list) or extents[0].get("filename") != node:
        raise SourceError("the image is a VMDK whose extents are other files; make it one file")
    if data.get("parent-cid") != NO_PARENT:
        raise SourceError("the image is a VMDK with a parent, so it is not whole; flatten it")


def parse_percent(tail: bytes) -> int | None:
    """The last percentage in the end of what `convert -p` printed; None when there is none."""
    found = _PERCENT.findall(tail)
    return min(int(found[-1]), 100) if found else None
