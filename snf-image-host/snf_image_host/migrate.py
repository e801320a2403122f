"""An old snf-image's configuration, as ours: read as KEY=value lines, never run. Pure.

The old files were sourced by a shell. Here an assignment is taken with the shell's quoting rules; whatever a shell
would have to work out ($, backquotes, commands) is refused with its line: only the administrator knows what it gave.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal

from snf_image_host.params import KNOWN
from snf_image_host.settings import Settings, Variant
from synnefo_light import config
from synnefo_light.errors import ConfigError
from synnefo_light.log import escape

Value = str | int | list[str]

_NAME = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=")
#: MiB that snf-image gave its helper when nobody said anything.
OLD_MEMORY: Final = 512
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    name: str
    value: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """A file of ours: its text (TOML, the remarks as comments), and whether something of the old one is lost."""

    kind: Literal["configuration", "variant"]
    text: str
    lost: bool


class OldConfigError(ConfigError):
    """A line that is more than an assignment."""


def parse_assignments(text: str, *, name: str) -> list[Assignment]:
    """The assignments of a file, the last of a name counts; its lines may end as those of Windows do.

    Raises OldConfigError naming file and line.
    """
    text = text.replace("\r\n", "\n")
    found: dict[str, Assignment] = {}
    position = 0
    while position < len(text):
        blank = re.compile(r"(?:[ \t\n;]|\\\n|#[^\n]*)+").match(text, position)
        if blank:
            position = blank.end()
            continue
        line = text.count("\n", 0, position) + 1
        match = _NAME.match(text, position)
        if match is None:
            word = escape(text[position:].split("\n", 1)[0], limit=60)
            raise OldConfigError(f"{name}:{line}: '{word}' is not an assignment; write what it comes to as KEY=value")
        try:
            value, position = _value(text, match.end())
        except ValueError as e:
            raise OldConfigError(f"{name}:{line}: the value of {match[1]} {e}") from None
        found[match[1]] = Assignment(name=match[1], value=value, line=line)
    return list(found.values())


def _value(text: str, position: int) -> tuple[str, int]:
    """The word that begins at `position`, unquoted, and where it ends. Raises ValueError."""
    parts: list[str] = []
    while position < len(text) and text[position] not in " \t\n;":
        char = text[position]
        if char == "'":
            end = text.find("'", position + 1)
            if end < 0:
                raise ValueError("has a quote that does not end")
            parts.append(text[position + 1 : end])
            position = end + 1
        elif char == '"':
            part, position = _double_quoted(text, position + 1)
            parts.append(part)
        elif char == "\\":
            parts.append(text[position + 1 : position + 2].replace("\n", ""))
            position += 2
        elif char in "$`&|<>()" or (char == "~" and not parts):
            raise ValueError(f"has a {char} that only a shell can work out; write what it comes to")
        else:
            parts.append(char)
            position += 1
    return "".join(parts), position


def _double_quoted(text: str, position: int) -> tuple[str, int]:
    parts: list[str] = []
    while position < len(text):
        char = text[position]
        if char == '"':
            return "".join(parts), position + 1
        if char in "$`":
            raise ValueError(f"has a {char} that only a shell can work out; write what it comes to")
        if char == "\\" and text[position + 1 : position + 2] in ("\\", '"', "$", "`", "\n"):
            parts.append(text[position + 1].replace("\n", ""))
            position += 2
            continue
        parts.append(char)
        position += 1
    raise ValueError("has a quote that does not end")


def plan_migration(text: str, *, name: str) -> Migrated:
    """A configuration, or a variant when it presets OS parameters. Raises OldConfigError."""
    assignments = parse_assignments(text, name=name)
    if any(_parameter(a.name) in KNOWN for a in assignments):
        return _variant(assignments, name)
    keys: dict[str, Value] = {}
    remarks: list[str] = []
    lost = False
    for assignment in assignments:
        rule = RULES.get(assignment.name) or next(
            (r for p, r in PREFIXES.items() if assignment.name.startswith(p)), None
        )
        if rule is None:
            remarks.append(f"{assignment.name}: snf-image did not read this either, as far as is known")
            continue
        given = rule.take(assignment.value)
        keys |= given
        if rule.remark:
            remarks.append(f"{assignment.name}: {rule.remark}")
        if not given and not rule.needless:
            lost = True
            if not rule.remark:
                remarks.append(f"{assignment.name}: '{escape(assignment.value, limit=80)}' cannot be carried over")
    standard = {f.name: getattr(Settings(), f.name) for f in fields(Settings)}
    shown = {k: v for k, v in keys.items() if v != _plain(standard[k])}
    text = _render(name, remarks, shown)
    return _checked(text, "configuration", Settings, lost=lost)


def _variant(assignments: list[Assignment], name: str) -> Migrated:
    keys = {_parameter(a.name): a.value for a in assignments if _parameter(a.name) in KNOWN}
    strangers = [a.name for a in assignments if _parameter(a.name) not in KNOWN]
    remarks = [f"{stranger}: no OS parameter; it cannot be carried over" for stranger in strangers]
    if {"img_passwd", "img_passwd_hash"} & keys.keys():
        remarks.append("this presets a password for every instance of the variant; keep the file to root (chmod 600)")
    return _checked(_render(name, remarks, keys, table="parameters"), "variant", Variant, lost=bool(strangers))


def _parameter(name: str) -> str:
    return name.lower().removeprefix("osp_")


def _checked(
    text: str, kind: Literal["configuration", "variant"], into: type[Settings | Variant], *, lost: bool
) -> Migrated:
    """What is printed must be what we read; where it is not, the reason stands above it."""
    try:
        config.parse(text.encode(), into, name="it")
    except ConfigError as e:
        return Migrated(kind=kind, text=f"# REFUSED: {e}\n{text}", lost=True)
    return Migrated(kind=kind, text=text, lost=lost)


def _render(name: str, remarks: list[str], keys: Mapping[str, Value], *, table: str = "") -> str:
    lines = [f"# from {escape(name)}", *(f"# {remark}" for remark in remarks), *([f"[{table}]"] if table else [])]
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value if isinstance(value, int) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What becomes of an old variable: keys of ours (none: it is lost, or `needless`), and a remark."""

    take: Callable[[str], dict[str, Value]] = lambda value: {}
    remark: str = ""
    needless: bool = False


def _as(key: str) -> Callable[[str], dict[str, Value]]:
    return lambda value: {key: value} if value else {}


def _words_as(key: str) -> Callable[[str], dict[str, Value]]:
    return lambda value: {key: value.split()}


def _limits(value: str) -> dict[str, Value]:
    match = re.fullmatch(r"(\d{1,6})([smhd]?)", value)
    return {"kvm_limit_s": int(match[1]) * _UNITS[match[2]]} if match else {}


def _memory(value: str) -> dict[str, Value]:
    """Ours needs less than the old helper; what somebody gave it beyond the usual was for large file systems."""
    given = int(value) if re.fullmatch(r"[0-9]{1,6}", value) else 0
    return {"memory_mib": given} if given > OLD_MEMORY else {}


def _lone_nic(value: str) -> dict[str, Value]:
    words = set(value.split("+")) - {""}
    by_ipv6 = {"dhcpv6": "dhcp", "slaac": "slaac", "slaac_dhcp": "slaac"}
    if not words <= {"dhcp", *by_ipv6} or len(words - {"dhcp"}) > 1:
        return {}
    ipv6: list[Value] = [by_ipv6[word] for word in sorted(words - {"dhcp"})]
    return {"lone_nic_ipv4": "dhcp" if "dhcp" in words else "none", "lone_nic_ipv6": ipv6[0] if ipv6 else "none"}


RULES: Final[Mapping[str, Rule]] = {
    "IMAGE_DIR": Rule(take=_as("image_dir")),
    "HELPER_SOFT_TIMEOUT": Rule(take=_limits, remark="the limit under KVM; tcg_limit_s is the one without"),
    "HELPER_HARD_TIMEOUT": Rule(remark="not needed: at the limit the helper VM is killed at once", needless=True),
    "HELPER_USER": Rule(take=_as("user"), remark="the package has a user of its own, snf-image, which is better"),
    "HELPER_MEMORY": Rule(
        take=_memory, remark=f"only more than the {OLD_MEMORY} MiB of before is carried over", needless=True
    ),
    "HELPER_DIR": Rule(
        remark="not needed: the helper VM is another one and comes with its package; see helper_dir", needless=True
    ),
    "HELPER_DEBUG": Rule(remark="there is no shell in the helper VM; see snf-image report, and gnt-instance --debug"),
    "IMAGE_DEBUG": Rule(remark="not needed: give --debug to gnt-instance", needless=True),
    "CLOUD_INIT_DEBUG": Rule(remark="cannot be carried over: give user-data that sets cloud-init's logging"),
    "VERSION_CHECK": Rule(remark="not needed: the versions of both halves are always compared", needless=True),
    "PROGRESS_MONITOR": Rule(take=_as("progress_monitor")),
    "DHCP_TAGS": Rule(take=_words_as("dhcp_tags")),
    "STATEFUL_DHCPV6_TAGS": Rule(take=_words_as("stateful_dhcpv6_tags")),
    "STATELESS_DHCPV6_TAGS": Rule(
        remark="not needed: instances follow what router advertisements say of DHCPv6", needless=True
    ),
    "DEFAULT_NIC_CONFIG": Rule(take=_lone_nic),
    "WINDOWS_TIMEZONE": Rule(take=_as("windows_timezone")),
    "UNATTEND": Rule(remark="cannot be carried over: give the OS parameter os_answer_file, also in a variant"),
    "VARIANTS_DIR": Rule(remark="give the variants' files to this command; ours are in variants_dir", needless=True),
    **{
        name: Rule(remark="not needed: this program is not used, or found by its name", needless=True)
        for name in (
            *("KVM", "CURL", "DD", "LOSETUP", "TIMEOUT", "TAR", "PARTED", "BLOCKDEV", "MD5SUM"),
            *("KPARTX", "SFDISK", "INSTALL_MBR", "QEMU_NBD"),
        )
    },
}
PREFIXES: Final[Mapping[str, Rule]] = {
    "MULTISTRAP_": Rule(remark="not needed: the helper VM comes with the package", needless=True),
    "XEN_": Rule(remark="cannot be carried over: the helper VM needs KVM or QEMU on the node"),
    "PITHOS_": Rule(remark="cannot be carried over: images of Pithos belong to the store of images"),
    "PITHCAT_": Rule(remark="cannot be carried over: images of Pithos belong to the store of images"),
    "RBD_": Rule(remark="cannot be carried over: RBD disks need access=kernelspace, so that the node has a path"),
}
