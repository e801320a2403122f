"""What a deployed guest says of itself, and whether that is what was asked for. Everything here is pure.

The guest runs `SCRIPT` (over SSH) and prints one `name=value` per line. `plan_checks` holds it against the order and
against what was in the image before: a claim, what was seen, what was expected, and whether they agree.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snf_lab.guest_image import GuestFacts
from synnefo_light.errors import PeerError

MIB = 1 << 20

# sh with the path of the injected file as $1. A command that fails leaves its value empty: that is a failed check then,
# not a failed script.
SCRIPT = r"""
say() { printf '%s=%s\n' "$1" "$2"; }
file=$1
say hostname "$(hostname)"
say hostname_file "$(cat /etc/hostname)"
say own_name "$(getent hosts "$(hostname)" | awk '{print $1; exit}')"
say machine_id "$(cat /etc/machine-id)"
say user "$(id -un)"
say root_bytes "$(df --block-size=1 --output=size / | tail -n 1 | tr -d ' ')"
root=$(findmnt --noheadings --output SOURCE /)
disk=$(lsblk --noheadings --list --inverse --output NAME,TYPE "${root%%\[*}" | awk '$2 == "disk" {print $1; exit}')
say disk_bytes "$(blockdev --getsize64 "/dev/$disk")"
say address "$(ip -4 -oneline address show scope global | awk '{print $4}' | xargs)"
say gateway "$(ip -4 route show default | awk '{print $3; exit}')"
if ping -c 1 -W 5 -q "$(ip -4 route show default | awk '{print $3; exit}')" >/dev/null 2>&1
then say gateway_answers yes; else say gateway_answers no; fi
for key in /etc/ssh/ssh_host_*_key.pub; do say host_key "$(ssh-keygen -l -f "$key" | awk '{print $2}')"; done
say file_owner "$(stat --format '%U:%G' "$file")"
say file_mode "$(stat --format '%a' "$file")"
say file_content "$(base64 --wrap=0 "$file")"
say release "$(. /etc/os-release; echo "$VERSION_CODENAME")"
"""

SINGLE = (
    "hostname",
    "hostname_file",
    "own_name",
    "machine_id",
    "user",
    "root_bytes",
    "disk_bytes",
    "address",
    "gateway",
    "gateway_answers",
    "file_owner",
    "file_mode",
    "file_content",
    "release",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What was asked of the deployment."""

    hostname: str
    address: str
    prefix: int
    gateway: str
    disk_size: int  # bytes
    file_owner: str
    file_mode: int
    file_content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the guest says, and what was seen of it from outside."""

    hostname: str
    hostname_file: str
    own_name: str
    machine_id: str
    user: str
    root_bytes: int
    disk_bytes: int
    address: str
    gateway: str
    gateway_answers: bool
    host_keys: tuple[str, ...]
    file_owner: str
    file_mode: int
    file_content: bytes
    release: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    claim: str
    seen: str
    expected: str
    ok: bool


def parse_seen(text: str) -> Seen:
    """What `SCRIPT` printed. Raises PeerError when a value is missing, twice there, unknown or malformed."""
    values: dict[str, str] = {}
    keys: list[str] = []
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if name == "host_key" and equals:
            keys.append(value)
        elif name not in SINGLE or not equals or name in values:
            raise PeerError(f"the guest said {line[:80]!r}, which is no answer to what it was asked")
        else:
            values[name] = value
    missing = [name for name in SINGLE if name not in values]
    if missing:
        raise PeerError(f"the guest did not say its {missing[0]}")
    return Seen(
        hostname=values["hostname"],
        hostname_file=values["hostname_file"],
        own_name=values["own_name"],
        machine_id=values["machine_id"],
        user=values["user"],
        root_bytes=_number(values, "root_bytes"),
        disk_bytes=_number(values, "disk_bytes"),
        address=values["address"],
        gateway=values["gateway"],
        gateway_answers=values["gateway_answers"] == "yes",
        host_keys=tuple(keys),
        file_owner=values["file_owner"],
        file_mode=_number(values, "file_mode", base=8),
        file_content=_content(values["file_content"]),
        release=values["release"],
    )


def _number(values: Mapping[str, str], name: str, *, base: int = 10) -> int:
    try:
        return int(values[name] or "0", base)
    except ValueError:
        raise PeerError(f"the guest said {name}={values[name][:40]!r}, which is not a number") from None


def _content(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise PeerError("the guest's answer about the injected file is not base64") from None


def plan_checks(
    seen: Seen,
    *,
    expected: Expected,
    image: GuestFacts,
    console_answer: str,
    presented_key: str,
) -> tuple[Check, ...]:
    """Each claim of the demo. `console_answer` is "USER HOSTNAME" after logging in with the password at the serial
    console, `presented_key` the fingerprint with which sshd answered, from outside."""
    kept = sorted(set(seen.host_keys) & set(image.host_key_fingerprints))
    address = f"{expected.address}/{expected.prefix}"
    return (
        _same("it is called what the instance is called", seen.hostname, expected.hostname),
        _same("its name leads to itself", seen.own_name, "127.0.1.1"),
        _same("the password opens the serial console", console_answer, f"root {expected.hostname}"),
        _same("the key opens SSH", seen.user, "root"),
        Check(
            claim="the root fills the disk",
            seen=f"{seen.root_bytes // MIB} of {seen.disk_bytes // MIB} MiB",
            expected=f"over 90 % of {expected.disk_size // MIB} MiB",
            ok=seen.disk_bytes == expected.disk_size and seen.root_bytes > 0.9 * expected.disk_size,
        ),
        Check(
            claim="the machine-id is its own",
            seen=seen.machine_id,
            expected=f"32 hex digits, not {image.machine_id[:8]}...",
            ok=is_machine_id(seen.machine_id) and seen.machine_id != image.machine_id,
        ),
        Check(
            claim="the SSH host keys are its own",
            seen=f"{len(seen.host_keys)} keys, {len(kept)} of the image",
            expected="one or more, none of the image",
            ok=bool(seen.host_keys) and not kept,
        ),
        Check(
            claim="sshd answers with one of them",
            seen=presented_key,
            expected="one of the guest's keys",
            ok=presented_key in seen.host_keys,
        ),
        _same("the injected file has its content", shown(seen.file_content), shown(expected.file_content)),
        _same("... and its owner", seen.file_owner, expected.file_owner),
        _same("... and its mode", f"{seen.file_mode:04o}", f"{expected.file_mode:04o}"),
        _same("the card has the address of the pool", seen.address, address),
        _same("the gateway is the network's", seen.gateway, expected.gateway),
        _same("... and answers", "yes" if seen.gateway_answers else "no", "yes"),
        _same("it runs the image's release", seen.release, image.release),
    )


def is_machine_id(text: str) -> bool:
    return len(text) == 32 and set(text) <= set("0123456789abcdef") and set(text) != {"0"}


def shown(content: bytes) -> str:
    """A file's content, short enough for a table."""
    text = repr(content.decode("utf-8", "replace"))
    return text if len(text) <= 40 else f"{text[:30]}... ({len(content)} bytes)"


def _same(claim: str, seen: str, expected: str) -> Check:
    return Check(claim=claim, seen=seen or "nothing", expected=expected, ok=seen == expected)


def checks_table(checks: Sequence[Check]) -> tuple[tuple[str, ...], ...]:
    """Rows for a table; what was expected is said only where it was not seen."""
    return tuple(
        ("ok" if check.ok else "FAILED", check.claim, check.seen if check.ok else f"{check.seen}; not {check.expected}")
        for check in checks
    )
