"""Windows fixtures in the helper VM: NTFS by mkntfs, hives by our own writer; read back by ntfscat, reged and xmllint.

No real Windows boots here: what is checked is what it would find.
"""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import windows_images
from tests.disk_images import MIB, Entry, File
from tests.filesystem_images import cut_out, make_filesystem
from tests.layouts import MICROSOFT_DATA, MICROSOFT_RESERVED, Part, lay_out
from tests.real.snf_image_helper import virtual_machine
from tests.windows_images import (
    CONFIG,
    Junction,
    make_ntfs,
    read_ntfs,
    software_hive,
    spoil_journal,
    system_hive,
    windows,
)

pytestmark = pytest.mark.vm

NTFS_MIB, DISK_MIB = 40, 96
RECOVERY = "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC"
ASKED: dict[str, object] = {
    "hostname": "web1.example.org",
    "os_family": "windows",
    "root_partition": 1,
    "users": ["Administrator"],
    "passwords": [{"user": "Administrator", "clear": "correct <horse>"}, {"user": "alice", "clear": 'a"b%c^d&e'}],
    "windows": {"product_key": "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE", "timezone": "W. Europe Standard Time"},
    "nics": [{"mac": "aa:00:00:00:00:01", "ipv4": "static", "ipv4_address": "10.0.0.5/24", "ipv4_gateway": "10.0.0.1"}],
    "files": [{"path": "/ProgramData/site/motd.txt", "contents": base64.b64encode(b"hello\r\n").decode()}],
}
NAMESPACE = "urn:schemas-microsoft-com:unattend"


def disk_of(folder: Path, tree: Mapping[str, Entry | Junction] | None = None) -> Path:
    """A Windows on the only partition of an MBR disk, which has grown since."""
    filesystem = make_ntfs(folder / "ntfs", mib=NTFS_MIB, tree=tree if tree is not None else windows())
    return disk_from(folder, filesystem)


def disk_from(folder: Path, filesystem: Path) -> Path:
    disk = folder / "disk"
    lay_out(disk, (Part(mib=NTFS_MIB + 1, kind="ntfs", filesystem=filesystem),), table="mbr", disk_mib=DISK_MIB)
    return disk


def ntfs_of(disk: Path) -> Path:
    return cut_out(disk, disk.with_name("after"), first_mib=1)


def asked_in(answers: bytes, folder: Path, expression: str) -> str:
    """The text at an XPath over the answer file, by xmllint; u: stands for the namespace of answer files."""
    file = folder / "unattend.xml"
    file.write_bytes(answers)
    path = re.sub(r"u:(\w+)", rf"*[local-name()='\1' and namespace-uri()='{NAMESPACE}']", expression)
    done = subprocess.run(
        ["xmllint", "--nonet", "--xpath", f"string({path})", file],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.removesuffix("\n")


def component(phase: str, name: str) -> str:
    return f"/u:unattend/u:settings[@pass='{phase}']/u:component[@name='{name}'][@processorArchitecture='amd64']"


def registry(hive: bytes, folder: Path, key: str) -> str:
    """A key of a hive as a .reg file, by reged of chntpw."""
    (folder / "hive").write_bytes(hive)
    done = subprocess.run(
        ["reged", "-x", folder / "hive", "HKLM", key, folder / "out.reg"], capture_output=True, timeout=60, check=False
    )
    assert (folder / "out.reg").exists(), done
    return (folder / "out.reg").read_text("latin-1")


def test_a_windows_image_becomes_the_instance_that_was_asked_for(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    outcome = virtual_machine.run(disk, asked=ASKED)
    assert outcome.finished, outcome.console
    after = ntfs_of(disk)

    answers = read_ntfs(after, "Windows/Panther/unattend.xml")
    assert answers is not None
    shell = "Microsoft-Windows-Shell-Setup"
    said = {
        "ComputerName": asked_in(answers, tmp_path, f"{component('specialize', shell)}/u:ComputerName"),
        "ProductKey": asked_in(answers, tmp_path, f"{component('specialize', shell)}/u:ProductKey"),
        "TimeZone": asked_in(answers, tmp_path, f"{component('specialize', shell)}/u:TimeZone"),
    }
    assert said == {
        "ComputerName": "web1",
        "ProductKey": "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE",
        "TimeZone": "W. Europe Standard Time",
    }
    password = f"{component('oobeSystem', shell)}/u:UserAccounts/u:AdministratorPassword"
    value = base64.b64decode(asked_in(answers, tmp_path, f"{password}/u:Value")).decode("utf-16-le")
    assert value == "correct <horse>AdministratorPassword"
    assert asked_in(answers, tmp_path, f"{password}/u:PlainText") == "false"
    run = f"{component('specialize', 'Microsoft-Windows-Deployment')}/u:RunSynchronous/u:RunSynchronousCommand"
    assert asked_in(answers, tmp_path, f"{run}/u:Path") == r"cmd.exe /c %WINDIR%\SnfScripts\Specialize.cmd"

    card = f"{component('specialize', 'Microsoft-Windows-TCPIP')}/u:Interfaces/u:Interface"
    assert asked_in(answers, tmp_path, f"{card}/u:Identifier") == "AA-00-00-00-00-01"
    assert asked_in(answers, tmp_path, f"{card}/u:UnicastIpAddresses/u:IpAddress") == "10.0.0.5/24"

    script = read_ntfs(after, "Windows/SnfScripts/specialize/10-passwords.cmd")
    assert script == b'@echo off\r\nnet user ^"alice^" ^"a\\^"b%%c^^d^&e^" /y\r\n'
    assert b"diskpart" in (read_ntfs(after, "Windows/SnfScripts/specialize/20-extend-filesystem.cmd") or b"")
    assert b"Finish.cmd" in (read_ntfs(after, "Windows/Setup/Scripts/SetupComplete.cmd") or b"")
    assert read_ntfs(after, "ProgramData/site/motd.txt") == b"hello\r\n"

    system = read_ntfs(after, f"{CONFIG}/SYSTEM")
    assert system is not None
    assert '"fDenyTSConnections"=dword:00000001' in registry(system, tmp_path, windows_images.TERMINAL_SERVER)
    restore = read_ntfs(after, "Windows/SnfScripts/finish/50-remote-desktop.cmd") or b""
    assert b"/v fDenyTSConnections /t REG_DWORD /d 0 /f" in restore

    # Its partition has grown; its file system grows at its first boot.
    table = subprocess.run(["sfdisk", "-l", "-o", "Size", disk], capture_output=True, text=True, check=True).stdout
    assert f"{DISK_MIB - 1}M" in table
    assert windows_images.flags(after) == 0


def test_windows_is_found_among_the_partitions_of_a_gpt(tmp_path: Path) -> None:
    """As Setup lays them out for UEFI; nobody says what the image is, so the password is for the default of Linux."""
    system = make_ntfs(tmp_path / "ntfs", mib=NTFS_MIB, tree=windows())
    recovery = make_ntfs(tmp_path / "recovery", mib=8, tree={"Recovery/WindowsRE/winre.wim": File(content=b"MSWIM")})
    esp = make_filesystem(tmp_path / "esp", "vfat", mib=8, label="SYSTEM", tree={"EFI/Boot/bootx64.efi": File()})
    parts = (
        Part(mib=9, kind=RECOVERY, filesystem=recovery),
        Part(mib=8, kind="uefi", filesystem=esp),
        Part(mib=16, kind=MICROSOFT_RESERVED),
        Part(mib=NTFS_MIB + 1, kind=MICROSOFT_DATA, filesystem=system),
    )
    disk = tmp_path / "disk"
    places = lay_out(disk, parts, disk_mib=DISK_MIB + 40)
    asked = {"hostname": "web1", "users": ["root"], "passwords": [{"user": "root", "clear": "pw"}]}
    outcome = virtual_machine.run(disk, asked={**asked, "ntfs_resize": "offline"})
    assert outcome.finished, outcome.console
    after = cut_out(disk, tmp_path / "after", first_mib=places[4])
    count, size = windows_images.clusters(after)
    assert count * size > (DISK_MIB + 40 - places[4] - 3) * MIB
    assert b"AdministratorPassword" in (read_ntfs(after, "Windows/Panther/unattend.xml") or b"")
    assert outcome.warnings == []
    subprocess.run(["sgdisk", "--verify", disk], check=True, capture_output=True, timeout=60)


def test_what_holds_a_password_is_for_system_and_administrators_alone(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    outcome = virtual_machine.run(disk, asked=ASKED)
    assert outcome.finished, outcome.console
    after = ntfs_of(disk)
    for name in ("/Windows/Panther/unattend.xml", "/Windows/SnfScripts/specialize/10-passwords.cmd"):
        done = subprocess.run(
            ["ntfssecaudit", "-vv", after, name], capture_output=True, text=True, timeout=60, check=False
        )
        rights = re.findall(r"Acc rgts (0x[0-9a-f]+).*?dec (S-[0-9-]+)", done.stdout, re.S)
        readers = {sid for mask, sid in rights if int(mask, 16) & 1}  # FILE_READ_DATA
        assert readers == {"S-1-5-18", "S-1-5-32-544"}, done.stdout


def test_a_second_run_changes_nothing_that_the_first_did(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    names = [
        "Windows/Panther/unattend.xml",
        "Windows/Setup/Scripts/SetupComplete.cmd",
        "Windows/SnfScripts/finish/50-remote-desktop.cmd",
        f"{CONFIG}/SYSTEM",
    ]
    assert virtual_machine.run(disk, asked=ASKED).finished
    before = {name: read_ntfs(ntfs_of(disk), name) for name in names}
    assert None not in before.values()
    outcome = virtual_machine.run(disk, asked=ASKED)
    assert outcome.finished, outcome.console
    assert {name: read_ntfs(ntfs_of(disk), name) for name in names} == before


@pytest.mark.parametrize(("how", "checked"), [("offline", True), ("offline-nocheck", False)])
def test_ntfs_is_grown_without_windows_where_that_is_asked_for(tmp_path: Path, how: str, checked: bool) -> None:
    disk = disk_of(tmp_path)
    outcome = virtual_machine.run(disk, asked={**ASKED, "ntfs_resize": how})
    assert outcome.finished, outcome.console
    after = ntfs_of(disk)
    count, size = windows_images.clusters(after)
    assert count * size > (DISK_MIB - 2) * MIB
    assert bool(windows_images.flags(after) & 1) is checked
    assert read_ntfs(after, "Windows/SnfScripts/specialize/20-extend-filesystem.cmd") is None
    assert read_ntfs(after, "Windows/Panther/unattend.xml")


def test_a_hibernated_windows_is_refused(tmp_path: Path) -> None:
    tree = {**windows(), "hiberfil.sys": File(content=b"hibr".ljust(8192, b"\0"))}
    outcome = virtual_machine.run(disk_of(tmp_path, tree), asked=ASKED)
    assert outcome.failed is not None and "hibernated" in outcome.failed.reason, outcome.console
    assert outcome.failed.task == "mount"


def test_a_journal_that_is_not_clean_is_thrown_away_with_a_warning(tmp_path: Path) -> None:
    filesystem = make_ntfs(tmp_path / "ntfs", mib=NTFS_MIB, tree=windows())
    spoil_journal(filesystem)
    outcome = virtual_machine.run(disk_from(tmp_path, filesystem), asked=ASKED)
    assert outcome.finished, outcome.console
    assert any("not unmounted cleanly" in text for text in outcome.warnings), outcome.console


def test_a_registry_as_large_as_that_of_a_real_windows_fits_the_helpers_memory(tmp_path: Path) -> None:
    tree = windows()
    tree[f"{CONFIG}/SYSTEM"] = File(content=system_hive(filler_mib=20))
    tree[f"{CONFIG}/SOFTWARE"] = File(content=software_hive(filler_mib=90))
    filesystem = make_ntfs(tmp_path / "ntfs", mib=180, tree=tree)
    disk = tmp_path / "disk"
    lay_out(disk, (Part(mib=181, kind="ntfs", filesystem=filesystem),), table="mbr")
    outcome = virtual_machine.boot(disk, asked=ASKED)
    assert outcome.finished, outcome.console
    system = read_ntfs(ntfs_of(disk), f"{CONFIG}/SYSTEM")
    assert system is not None and len(system) > 20 * MIB
    assert '"fDenyTSConnections"=dword:00000001' in registry(system, tmp_path, windows_images.TERMINAL_SERVER)


def test_a_broken_hive_fails_the_task_and_names_the_hive(tmp_path: Path) -> None:
    whole = system_hive()
    broken = whole[:4096] + bytes(64) + whole[4160:]
    tree = {**windows(), f"{CONFIG}/SYSTEM": File(content=broken)}
    outcome = virtual_machine.run(disk_of(tmp_path, tree), asked=ASKED)
    assert outcome.failed is not None, outcome.console
    assert outcome.failed.task == "unattend"
    assert outcome.failed.reason.startswith("/Windows/System32/config/SYSTEM of the image cannot be used as a hive")
