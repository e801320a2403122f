"""The contract between the host and the helper VM.

Down goes one `Manifest`, framed as a read-only disk: magic, version, length, SHA-256, canonical JSON. It is written by
the host, so the helper may trust it, yet refuses what it does not know: an old helper must not skip half of an order.

Up come `Message`s, one JSON object a line. Every byte of them is hostile, because the helper has read the image:
`parse_message` accepts exactly these shapes, and nothing in a message is acted on except "did it finish".
`Finished` must repeat the manifest's nonce, which only a helper that read the manifest can know.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import ipaddress
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from synnefo_light.errors import ProtocolError
from synnefo_light.log import Secret
from synnefo_light.records import RecordError, build, dump_json, load_json, parse_json, plain
from synnefo_light.tasks import NAME, OsFamily

MAGIC: Final = b"SNFMANI1"
HEADER: Final = struct.Struct("<8sIIQ32s8x")
FRAMED_LIMIT: Final = 8 << 20
LINE_LIMIT: Final = 8192  # 1024 characters may take six bytes each as JSON escapes
TEXT_LIMIT: Final = 1024


class ImageFormat(enum.Enum):
    DISKDUMP = "diskdump"
    EXTDUMP = "extdump"
    NTFSDUMP = "ntfsdump"


class SourceFormat(enum.Enum):
    """What an image's bytes are; never found out by looking at them."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHDX = "vhdx"
    VDI = "vdi"


class Compression(enum.Enum):
    NONE = "none"
    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"
    BZIP2 = "bzip2"


HashingMethod = Literal["yescrypt", "sha512", "sha256", "blowfish", "md5", "sha1"]

_HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NONCE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One disk of the instance, in Ganeti's order; the VM finds it by the virtio serial `snf-disk<index>`."""

    index: int
    size: int  # bytes

    def __post_init__(self) -> None:
        _check(0 <= self.index < 16, f"disk index {self.index} is not within 0 to 15")
        _check(0 < self.size < 1 << 60, f"disk {self.index} cannot have {self.size} bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """How one network card is to be configured inside; addresses carry their prefix length ("10.0.0.5/24")."""

    mac: str
    ipv4: Literal["none", "dhcp", "static"] = "none"
    ipv4_address: str | None = None
    ipv4_gateway: str | None = None
    ipv6: Literal["none", "slaac", "dhcp", "static"] = "none"
    ipv6_address: str | None = None
    ipv6_gateway: str | None = None
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    mtu: int | None = None

    def __post_init__(self) -> None:
        _check(_MAC.fullmatch(self.mac) is not None, f"MAC {self.mac!r} is not six lower-case hex pairs")
        _check((self.ipv4 == "static") == (self.ipv4_address is not None), "static IPv4 and an address go together")
        _check((self.ipv6 == "static") == (self.ipv6_address is not None), "static IPv6 and an address go together")
        addresses = (self.ipv4_address, self.ipv4_gateway, self.ipv6_address, self.ipv6_gateway, *self.nameservers)
        for text in filter(None, addresses):
            _check("%" not in text, f"address {text!r} has a scope; give it without % and what follows")
        for text in filter(None, (self.ipv4_address, self.ipv4_gateway)):
            ipaddress.IPv4Interface(text)
        for text in filter(None, (self.ipv6_address, self.ipv6_gateway)):
            ipaddress.IPv6Interface(text)
        for text in self.nameservers:
            ipaddress.ip_address(text)
        for text in self.search:
            _check(_HOSTNAME.fullmatch(text) is not None, f"search domain {text!r} is not a domain name")
        _check(self.mtu is None or 68 <= self.mtu <= 65536, f"MTU {self.mtu} is not within 68 to 65536")


@dataclass(frozen=True, slots=True, kw_only=True)
class Password:
    """A password for a user, in clear (the helper hashes it) or ready hashed (crypt(5))."""

    user: str
    clear: Secret | None = None
    hashed: Secret | None = None

    def __post_init__(self) -> None:
        _check(_USER.fullmatch(self.user) is not None, f"user {self.user!r} is not a user name")
        _check((self.clear is None) != (self.hashed is None), "give a password either in clear or hashed")
        if self.hashed is not None:
            shown = self.hashed.reveal()
            _check(
                re.fullmatch(r"[!-9;-~]{1,512}", shown) is not None,
                "the password hash has characters shadow(5) cannot hold",
            )
        if self.clear is not None:
            _check(
                "\0" not in self.clear.reveal() and len(self.clear.reveal()) <= 511,
                "the password has a NUL or over 511 characters",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedFile:
    """One file of img_personality. `contents` is base64; owner and group are names or numbers of the image."""

    path: str
    contents: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o440

    def __post_init__(self) -> None:
        _check(
            self.path.startswith("/") and "\0" not in self.path and len(self.path) <= 4096,
            f"path {self.path!r} is not absolute",
        )
        _check(".." not in self.path.split("/"), f"path {self.path!r} must not contain '..'")
        _check(not self.path.endswith("/"), f"path {self.path!r} names a folder, not a file")
        _check(0 <= self.mode <= 0o7777, f"mode {self.mode} is not within 0 to 4095 (octal 7777)")
        for name in (self.owner, self.group):
            _check(
                re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?", name) is not None,
                f"{name!r} is not a user or group name",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Swap space: on partition `partition` of `size_mib` at the end of disk 0, on the whole disk `disk`, or in a file
    of `file_mib` in the root file system."""

    partition: int | None = None
    size_mib: int | None = None
    disk: int | None = None
    file_mib: int | None = None

    def __post_init__(self) -> None:
        by_partition = self.partition is not None and self.size_mib is not None
        ways = (by_partition, self.disk is not None, self.file_mib is not None)
        _check(sum(ways) == 1, "swap is a partition with a size, or a disk, or a file with a size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An image that the helper writes onto disk 0: the read-only disk with the serial `snf-source` holds its bytes."""

    format: SourceFormat = SourceFormat.RAW
    compression: Compression = Compression.NONE
    size: int  # bytes, exactly; the disk is rounded up to whole sectors

    def __post_init__(self) -> None:
        _check(0 < self.size < 1 << 60, f"an image cannot have {self.size} bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudInit:
    """Input for cloud-init instead of changed system files. `userdata` is base64, empty for none."""

    userdata: str = ""

    def __post_init__(self) -> None:
        _check_base64(self.userdata, "the user-data of cloud-init")


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """What only Windows is asked. `answer_file` is base64 and replaces ours; with `ignore_unattend` it, or ours,
    replaces the image's."""

    product_key: Secret | None = None
    answer_file: str | None = None
    ignore_unattend: bool = False
    timezone: str = "GMT Standard Time"

    def __post_init__(self) -> None:
        _check_base64(self.answer_file or "", "the answer file")
        _check(0 < len(self.timezone) <= 80 and self.timezone.isprintable(), "the time zone is not a name of Windows")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the host asks of the helper for one instance."""

    version: Literal[1] = 1
    helper_version: str
    nonce: str
    instance: str
    hostname: str
    image_format: ImageFormat = ImageFormat.DISKDUMP
    source: Source | None = None  # None: disk 0 holds the image already
    os_family: OsFamily | None = None  # None: the helper must find out
    root_partition: int | None = None  # 1-based; None: the helper must find out
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...] = ()
    users: tuple[str, ...] = ("root",)
    passwords: tuple[Password, ...] = ()
    hashing: HashingMethod = "sha512"
    authorized_keys: str = ""
    files: tuple[InjectedFile, ...] = ()
    swap: Swap | None = None
    cloud_init: CloudInit | None = None  # None: system files are changed
    nm_networking: bool = False  # NetworkManager's files, whatever the image seems to use
    custom_task: str | None = None  # base64 of a program; the node's administrator allowed it
    ntfs_resize: Literal["boot", "offline", "offline-nocheck"] = "boot"
    windows: Windows | None = None
    skip: frozenset[str] = frozenset()  # names of tasks

    def __post_init__(self) -> None:
        _check(_NONCE.fullmatch(self.nonce) is not None, "the nonce is not 32 hex digits")
        _check(
            0 < len(self.hostname) <= 253 and _HOSTNAME.fullmatch(self.hostname) is not None,
            f"hostname {self.hostname!r} is not a host name",
        )
        _check(len(self.disks) > 0, "there is no disk")
        _check([d.index for d in self.disks] == list(range(len(self.disks))), "disks are not numbered 0, 1, 2, ...")
        _check(
            self.root_partition is None or 1 <= self.root_partition <= 128,
            f"root partition {self.root_partition} is not within 1 to 128",
        )
        for user in self.users:
            _check(_USER.fullmatch(user) is not None, f"user {user!r} is not a user name")
        for name in self.skip:
            _check(NAME.fullmatch(name) is not None, f"{name!r} is not a task's name")
        _check_base64(self.custom_task or "", "the custom task")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """First message: the VM runs and Python is up."""

    helper_version: str
    mode: Literal["run", "selftest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStarted:
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """The running task has done so much. At most 100 of them a task."""

    task: str
    done: int  # bytes
    total: int  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The running task has written the image onto disk 0, whose first `size` bytes it is. At most one."""

    task: str
    size: int  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDone:
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSkipped:
    task: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    task: str | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Last message when something went wrong. `changed`: whether bytes of the disk were already changed."""

    task: str | None
    reason: str
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Last message when all went well, with the manifest's nonce."""

    nonce: str


Message = Hello | TaskStarted | Progressed | Measured | TaskDone | TaskSkipped | Warned | Failed | Finished

_KINDS: Final[Mapping[str, type[Message]]] = {
    "hello": Hello,
    "task-started": TaskStarted,
    "progressed": Progressed,
    "measured": Measured,
    "task-done": TaskDone,
    "task-skipped": TaskSkipped,
    "warned": Warned,
    "failed": Failed,
    "finished": Finished,
}
_NAMES: Final = {cls: name for name, cls in _KINDS.items()}


def encode(manifest: Manifest) -> bytes:
    """The manifest as the bytes of its disk, a multiple of 512. Raises ProtocolError over 8 MiB, or for no text."""
    try:
        payload = dump_json(manifest)
    except RecordError as e:
        raise ProtocolError(f"the manifest cannot be written: {e}") from None
    header = HEADER.pack(MAGIC, manifest.version, 0, len(payload), hashlib.sha256(payload).digest())
    size = -(-(len(header) + len(payload)) // 512) * 512
    if size > FRAMED_LIMIT:
        raise ProtocolError(
            f"the manifest takes {size} bytes, at most {FRAMED_LIMIT} fit; inject less or smaller files"
        )
    return (header + payload).ljust(size, b"\0")


def decode(raw: bytes) -> Manifest:
    """The bytes of the manifest's disk as a Manifest. Raises ProtocolError naming what is wrong."""
    if len(raw) < HEADER.size:
        raise ProtocolError(f"the manifest has {len(raw)} bytes, its header alone takes {HEADER.size}")
    magic, version, reserved, length, digest = HEADER.unpack_from(raw)
    if magic != MAGIC or reserved:
        raise ProtocolError("the manifest disk does not begin as a manifest does")
    if version != 1:
        raise ProtocolError(f"the manifest has version {version}, this helper understands version 1")
    payload = raw[HEADER.size : HEADER.size + length]
    if len(payload) != length or hashlib.sha256(payload).digest() != digest:
        raise ProtocolError("the manifest is damaged: its length or its SHA-256 does not agree")
    try:
        return parse_json(payload, Manifest, limit=FRAMED_LIMIT)
    except RecordError as e:
        raise ProtocolError(f"the manifest says: {e}") from None


def encode_message(message: Message, *, seq: int) -> bytes:
    """One line for the channel, cut to fit: texts over 1024 characters lose their end. `seq` counts from 1."""
    fields = plain(message)
    assert isinstance(fields, dict)
    short = {k: _short(v) if isinstance(v, str) else v for k, v in fields.items()}
    return dump_json({"seq": seq, "type": _NAMES[type(message)], **short}) + b"\n"


def parse_message(line: bytes, *, seq: int) -> Message:
    """One line from the helper, without its newline. Raises ProtocolError; the line is hostile input.

    `seq` is the number this message must carry: a lost or doubled message is an error.
    """
    try:
        data = load_json(line, limit=LINE_LIMIT)
        if not isinstance(data, dict):
            raise RecordError("a message is a JSON object")
        got, kind = data.pop("seq", None), data.pop("type", None)
        if type(got) is not int or got != seq:
            raise RecordError(f"message number {seq} was due")
        if not isinstance(kind, str) or kind not in _KINDS:
            raise RecordError("the type of the message is not known")
        message: Message = build(data, _KINDS[kind])
        _bound(message)
        return message
    except RecordError as e:
        raise ProtocolError(f"the helper VM broke its protocol: {e}") from None


def _short(text: str) -> str:
    return text[:TEXT_LIMIT].encode("utf-8", "replace").decode()


def _bound(message: Message) -> None:
    for name in message.__dataclass_fields__:
        value = getattr(message, name)
        if isinstance(value, str) and len(value) > TEXT_LIMIT:
            raise RecordError(f"{name} has over {TEXT_LIMIT} characters")
    task = getattr(message, "task", None)
    if task is not None and NAME.fullmatch(task) is None:
        raise RecordError("the task is not one of ours")
    if isinstance(message, Progressed) and not 0 <= message.done <= message.total < 1 << 60:
        raise RecordError("the progress is not within its total")
    if isinstance(message, Measured) and not 0 < message.size < 1 << 60:
        raise RecordError("the size is none that a disk has")


def _check_base64(text: str, what: str) -> None:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{what} is not base64") from None


def _check(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)


HASHING_METHODS: Final[tuple[str, ...]] = get_args(HashingMethod)
