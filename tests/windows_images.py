"""Images of Windows: faithful fixtures, never a real Windows.

A real NTFS with the files that the product looks at: hives with the keys that sysprep leaves, the folders of Setup.
mkntfs makes it, libntfs-3g fills it without a mount, ntfscat and ntfsinfo read it back.
"""

from __future__ import annotations

import ctypes
import stat
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.disk_images import MIB, Device, Entry, Fifo, File, Folder, Link, run_tool
from tests.registry_hives import Key, at, make_hive, merge

GENERALIZED = "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"
CONFIG = "Windows/System32/config"
TERMINAL_SERVER = r"ControlSet001\Control\Terminal Server"
DATA, JUNCTION = 0x80, 0xA0000003


@dataclass(frozen=True, slots=True, kw_only=True)
class Junction:
    """A folder that stands for another one: target as Windows writes it, C:\\Users."""

    target: str


def system_hive(
    *,
    architecture: str = "AMD64",
    denied: int | None = 0,
    sequence: tuple[int, int] = (1, 1),
    filler_mib: int = 0,
    setup: Mapping[str, str] | None = None,
) -> bytes:
    environment = Key(values={"PROCESSOR_ARCHITECTURE": architecture, "ComSpec": r"%SystemRoot%\system32\cmd.exe"})
    terminal = Key(values={"fDenyTSConnections": denied} if denied is not None else {})
    return make_hive(
        merge(
            at("Select", Key(values={"Current": 1, "Default": 1, "Failed": 0, "LastKnownGood": 1})),
            at(r"ControlSet001\Control\Session Manager\Environment", environment),
            at(TERMINAL_SERVER, terminal),
            at("Setup", Key(values={"SetupType": 2, "CmdLine": "oobe\\windeploy.exe", **(setup or {})})),
            at(r"Setup\Status\SysprepStatus", Key(values={"GeneralizationState": 7, "CleanupState": 2})),
        ),
        sequence=sequence,
        filler_mib=filler_mib,
    )


def software_hive(
    *, version: str = "6.3", major: int | None = 10, state: str = GENERALIZED, filler_mib: int = 0
) -> bytes:
    numbers = {"CurrentMajorVersionNumber": major, "CurrentMinorVersionNumber": 0} if major is not None else {}
    names = {"ProductName": "Windows Server 2019 Standard", "CurrentVersion": version, "CurrentBuildNumber": "17763"}
    return make_hive(
        merge(
            at(r"Microsoft\Windows NT\CurrentVersion", Key(values={**names, **numbers})),
            at(r"Microsoft\Windows\CurrentVersion\Setup\State", Key(values={"ImageState": state})),
        ),
        filler_mib=filler_mib,
    )


def sam_hive(users: Mapping[str, int]) -> bytes:
    names = Key(keys={name: Key(values={"": (rid, b"")}) for name, rid in users.items()})
    return make_hive(at(r"SAM\Domains\Account\Users\Names", names))


def windows(**changed: Entry | Junction | None) -> dict[str, Entry | Junction]:
    """A generalised Windows Server 2019; what is given replaces a file or, with None, removes it."""
    tree: dict[str, Entry | Junction | None] = {
        "bootmgr": File(content=b"MZ"),
        "Program Files": Folder(),
        "ProgramData": Folder(),
        "Users/Default": Folder(),
        "Documents and Settings": Junction(target="C:\\Users"),
        "Windows/explorer.exe": File(content=b"MZ"),
        "Windows/System32/winload.exe": File(content=b"MZ"),
        "Windows/System32/Sysprep/sysprep.exe": File(content=b"MZ"),
        "Windows/Panther/setupact.log": File(content="2026-11-21 12:00:00, Info  SYSPRP\r\n"),
        "Windows/Setup": Folder(),
        f"{CONFIG}/SYSTEM": File(content=system_hive()),
        f"{CONFIG}/SOFTWARE": File(content=software_hive()),
        f"{CONFIG}/SAM": File(content=sam_hive({"Administrator": 500, "Guest": 501, "alice": 1001})),
        **changed,
    }
    return {name: entry for name, entry in tree.items() if entry is not None}


def make_ntfs(path: Path, *, mib: int, tree: Mapping[str, Entry | Junction]) -> Path:
    """A sparse file that is one NTFS file system."""
    path.unlink(missing_ok=True)
    with open(path, "wb") as file:
        file.truncate(mib * MIB)
    run_tool(
        ["mkntfs", "-q", "-Q", "-F", "-L", "System", "-p", "2048", "-H", "255", "-S", "63", "-s", "512", str(path)]
    )
    with _volume(path) as (library, volume):
        made: set[str] = set()
        for name, entry in tree.items():
            for parent in [*Path(name).parents][-2::-1]:
                if str(parent) not in made and str(parent) not in tree:
                    _create(library, volume, str(parent), Folder())
                    made.add(str(parent))
            _create(library, volume, name, entry)
            made.add(name)
    return path


def read_ntfs(filesystem: Path, name: str) -> bytes | None:
    """A file's content by ntfscat; None when there is none."""
    done = subprocess.run(
        ["ntfscat", "-f", str(filesystem), name.lstrip("/")], capture_output=True, timeout=60, check=False
    )
    return done.stdout if done.returncode == 0 else None


def list_ntfs(filesystem: Path, folder: str) -> list[str]:
    """The names in a folder by ntfsls; none when there is no such folder."""
    done = subprocess.run(
        ["ntfsls", "-f", "-p", folder, str(filesystem)], capture_output=True, text=True, timeout=60, check=False
    )
    return sorted(done.stdout.splitlines())


def clusters(filesystem: Path) -> tuple[int, int]:
    """How many clusters NTFS has, and the size of each, by ntfsinfo."""
    shown = run_tool(["ntfsinfo", "-f", "-m", str(filesystem)]).decode()
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in shown.splitlines())}
    return int(fields["Volume Size in Clusters"]), int(fields["Cluster Size"])


def flags(filesystem: Path) -> int:
    """The volume's flags by ntfsinfo; bit 0 asks for chkdsk."""
    shown = run_tool(["ntfsinfo", "-f", "-m", str(filesystem)]).decode()
    (line,) = (line for line in shown.splitlines() if "Volume Flags" in line)
    return int(line.split(":")[1].split()[0], 16)


def spoil_journal(filesystem: Path) -> None:
    """Leave the journal as a Windows that lost its power does: a client is open and nothing says that it is clean."""
    area = struct.pack(
        "<QHHHHIHHQIHHI",
        0,
        1,
        NO_CLIENT,
        0,
        0,
        67 - (4 << 20).bit_length(),
        0x40 + 0xA0,
        0x40,
        4 << 20,
        0,
        0x30,
        0x40,
        1,
    )
    client = struct.pack("<QQHHH6xI", 0, 0, NO_CLIENT, NO_CLIENT, 0, 8) + "NTFS".encode("utf-16-le").ljust(128, b"\0")
    page = bytearray(4096)
    struct.pack_into("<4sHHQIIHhH", page, 0, b"RSTR", 0x1E, 9, 0, 4096, 4096, 0x30, 1, 1)
    page[0x30 : 0x30 + len(area)] = area
    page[0x70 : 0x70 + len(client)] = client
    struct.pack_into("<H", page, 0x1E, 1)
    for sector in range(8):  # the update sequence: the last word of each sector moves to the array
        struct.pack_into("<H", page, 0x20 + 2 * sector, struct.unpack_from("<H", page, sector * 512 + 510)[0])
        struct.pack_into("<H", page, sector * 512 + 510, 1)
    with _volume(filesystem) as (library, volume):
        node = library.ntfs_inode_open(volume, ctypes.c_uint64(2))
        _write(library, ctypes.c_void_p(node), bytes(page) * 2)
        assert library.ntfs_inode_close(ctypes.c_void_p(node)) == 0


NO_CLIENT = 0xFFFF


@contextmanager
def _volume(path: Path) -> Iterator[tuple[ctypes.CDLL, ctypes.c_void_p]]:
    library = ctypes.CDLL("libntfs-3g.so.89", use_errno=True)
    for name in ("ntfs_mount", "ntfs_pathname_to_inode", "ntfs_create", "ntfs_attr_open", "ntfs_inode_open"):
        getattr(library, name).restype = ctypes.c_void_p
    for name in ("ntfs_create_symlink", "ntfs_create_device"):
        getattr(library, name).restype = ctypes.c_void_p
    library.ntfs_attr_pwrite.restype = ctypes.c_int64
    volume = ctypes.c_void_p(library.ntfs_mount(str(path).encode(), ctypes.c_ulong(0)))
    assert volume, f"{path} cannot be opened as NTFS"
    try:
        yield library, volume
    finally:
        assert library.ntfs_umount(volume, 0) == 0


def _create(library: ctypes.CDLL, volume: ctypes.c_void_p, path: str, entry: Entry | Junction) -> None:
    parent, _, base = path.rpartition("/")
    folder = ctypes.c_void_p(library.ntfs_pathname_to_inode(volume, None, f"/{parent}".encode()))
    assert folder, f"{parent} is not there"
    name = base.encode("utf-16-le")
    basic = (folder, ctypes.c_uint32(0), name, ctypes.c_uint8(len(name) // 2))
    match entry:
        case Folder() | Junction():
            made = library.ntfs_create(*basic, ctypes.c_uint32(stat.S_IFDIR))
        case File():
            made = library.ntfs_create(*basic, ctypes.c_uint32(stat.S_IFREG))
        case Fifo():
            made = library.ntfs_create(*basic, ctypes.c_uint32(stat.S_IFIFO))
        case Link(target=target):
            made = library.ntfs_create_symlink(*basic, target.encode("utf-16-le"), ctypes.c_int(len(target)))
        case Device(kind=kind, major=major, minor=minor):
            mode = stat.S_IFCHR if kind == "c" else stat.S_IFBLK
            made = library.ntfs_create_device(*basic, ctypes.c_uint32(mode), ctypes.c_uint64(major << 8 | minor))
    assert made, f"{path} cannot be made: {ctypes.get_errno()}"
    node = ctypes.c_void_p(made)
    if isinstance(entry, File):
        _write(library, node, entry.content if isinstance(entry.content, bytes) else entry.content.encode())
    if isinstance(entry, Junction):
        data = _junction(entry.target)
        assert library.ntfs_set_ntfs_reparse_data(node, data, ctypes.c_size_t(len(data)), 0) == 0
    assert library.ntfs_inode_close_in_dir(node, folder) == 0
    assert library.ntfs_inode_close(folder) == 0


def _write(library: ctypes.CDLL, node: object, content: bytes) -> None:
    data = ctypes.c_void_p(library.ntfs_attr_open(node, DATA, b"", 0))
    assert library.ntfs_attr_pwrite(data, ctypes.c_int64(0), ctypes.c_int64(len(content)), content) == len(content)
    library.ntfs_attr_close(data)


def _junction(target: str) -> bytes:
    """A mount point of NTFS: its own name of the folder, and one to show."""
    full, shown = (f"\\??\\{target}".encode("utf-16-le"), target.encode("utf-16-le"))
    names = full + b"\0\0" + shown + b"\0\0"
    lengths = struct.pack("<HHHH", 0, len(full), len(full) + 2, len(shown))
    return struct.pack("<IHH", JUNCTION, len(lengths) + len(names), 0) + lengths + names
