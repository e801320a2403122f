"""The tables of snf-image(7) about snf-image 0.22+: complete, and true of the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from snf_image_host.params import PARAMETERS, parse_parameters
from snf_image_host.plan import check_parameters
from snf_image_host.properties import PROPERTIES
from snf_image_host.settings import Settings
from snf_image_host.vm import HelperImage

from synnefo_light.errors import UserError
from tests.task_list import ORDER

PAGE = (Path(__file__).resolve().parents[3] / "man" / "snf-image.7.md").read_text()
SECTION = PAGE.partition("\n# COMING FROM SNF-IMAGE\n")[2].partition("\n# ")[0]
HELPER = HelperImage(folder=Path("/nowhere"), version="1", tasks=ORDER)
STATUSES = {"same", "extended", "stricter", "refused", "gone"}

#: What snf-image had, from its documentation and its code.
FORMATS = {"diskdump", "extdump", "ntfsdump"}
SCHEMES = {"local://", "file://", "http://", "https://", "ftp://", "ftps://", "pithos://", "pithosmap://"}
PARAMETERS_THERE = {
    *("img_id", "img_format", "img_passwd", "img_passwd_hash", "auth_keys", "img_properties", "inst_properties"),
    *("img_personality", "config_url", "os_product_key", "os_answer_file", "cloud_userdata"),
}
PROPERTIES_THERE = {
    *("OSFAMILY", "ROOT_PARTITION", "USERS", "DO_SYNC", "IGNORE_UNATTEND", "USE_DEFAULT_UNATTEND", "SWAP"),
    *("ALLOW_MOUNTED_TASK_OVERWRITING", "OFFLINE_NTFSRESIZE", "OFFLINE_NTFSRESIZE_NOCHECK", "PASSWD_HASHING_METHOD"),
    *("CLOUD_INIT", "CUSTOM_TASK", "NM_NETWORKING", "EXCLUDE_ALL_TASKS", "EXCLUDE_MOUNTED_TASKS"),
    *("EXCLUDE_FILESYSTEMRESIZE_TASKS", "EXCLUDE_TASK_<NAME>"),
}
TASKS_THERE = {
    *("FixPartitionTable", "FilesystemResizeUnmounted", "MountImage", "InitializeDatasource", "InstallUnattend"),
    *("FilesystemResizeMounted", "AddSwap", "AssignHostname", "ChangeMachineId", "ChangePassword"),
    *("ConfigureNetwork", "DeleteSSHKeys", "DisableRemoteDesktopConnections", "SELinuxAutorelabel"),
    *("EnforcePersonality", "RunCustomTask", "UmountImage", "FilesystemResizeAfterUmount"),
}
SETTINGS_THERE = {
    *("IMAGE_DEBUG", "CLOUD_INIT_DEBUG", "VERSION_CHECK", "HELPER_DIR", "HELPER_SOFT_TIMEOUT", "HELPER_HARD_TIMEOUT"),
    *("HELPER_USER", "HELPER_MEMORY", "HELPER_DEBUG", "MULTISTRAP_CONFIG", "MULTISTRAP_APTPREFDIR", "UNATTEND"),
    *("XEN_SCRIPTS_DIR", "XEN_CMD", "PROGRESS_MONITOR", "DHCP_TAGS", "STATEFUL_DHCPV6_TAGS", "VARIANTS_DIR"),
    *("STATELESS_DHCPV6_TAGS", "DEFAULT_NIC_CONFIG", "WINDOWS_TIMEZONE", "KVM", "CURL", "DD", "LOSETUP", "TIMEOUT"),
    *("TAR", "PARTED", "BLOCKDEV", "MD5SUM", "IMAGE_DIR", "PITHOS_*", "PITHCAT_UMASK", "RBD_CEPH_CONF"),
    *("RBD_BLOCK_SIZE", "QEMU_NBD"),
}


def rows(title: str) -> dict[str, tuple[str, str]]:
    """Name by name of a table: status and note."""
    _, _, rest = SECTION.partition(f"\n**{title}**\n")
    assert rest, f"there is no table {title}"
    lines = [line for line in rest.partition("\n**")[0].splitlines() if line.startswith("|")][2:]
    found: dict[str, tuple[str, str]] = {}
    for line in lines:
        names, status, note = (cell.strip() for cell in line.strip("|").split("|"))
        for name in names.split(", "):
            assert name not in found, f"{name} stands twice"
            found[name] = (status, note)
    return found


@pytest.mark.parametrize(
    ("title", "there"),
    [
        ("Formats and sources", FORMATS | SCHEMES | {"NAME", "null"}),
        ("OS parameters", PARAMETERS_THERE),
        ("Properties", PROPERTIES_THERE),
        ("Tasks", TASKS_THERE),
        ("Settings", SETTINGS_THERE),
    ],
)
def test_each_thing_of_snf_image_has_a_row_and_a_status(title: str, there: set[str]) -> None:
    found = rows(title)
    assert set(found) == there
    for name, (status, note) in found.items():
        assert status in STATUSES, name
        assert note or status == "same", f"{name} is {status}: why?"


def accepted(**given: str) -> bool:
    base = {"img_id": "x.raw", "img_format": "diskdump"}
    try:
        settings = Settings(allow_custom_task=True)
        check_parameters(parse_parameters(base | given, tasks=ORDER), settings, HELPER)
    except UserError:
        return False
    return True


def test_what_is_not_refused_is_a_parameter_of_ours() -> None:
    assert {n for n, (status, _) in rows("OS parameters").items() if status != "refused"} <= {
        p.name for p in PARAMETERS
    }


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_format_is_accepted(name: str) -> None:
    assert rows("Formats and sources")[name][0] == "same"
    assert accepted(img_format=name)


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_a_scheme_is_accepted_or_refused_as_the_table_says(scheme: str) -> None:
    status, _ = rows("Formats and sources")[scheme]
    named = f"{scheme}{'0' * 64}/4096" if scheme == "pithosmap://" else f"{scheme}host/name.raw"
    assert accepted(img_id=named) is (status != "refused")


@pytest.mark.parametrize("name", sorted(PROPERTIES_THERE - {"EXCLUDE_TASK_<NAME>"}))
def test_a_property_is_accepted_or_refused_as_the_table_says(name: str) -> None:
    values = {"OSFAMILY": "linux", "ROOT_PARTITION": "1", "USERS": "root", "PASSWD_HASHING_METHOD": "sha512"}
    values |= {"SWAP": "2:512", "CUSTOM_TASK": "eA=="}
    status, _ = rows("Properties")[name]
    assert name in {p.name for p in PROPERTIES}
    assert accepted(img_properties=f'{{"{name}": "{values.get(name, "yes")}"}}') is (status != "refused")


@pytest.mark.parametrize("name", sorted(TASKS_THERE))
def test_a_task_exists_and_is_left_out_by_its_name(name: str) -> None:
    assert name in {task.snf_image for task in ORDER}
    framing = name in ("MountImage", "UmountImage")
    assert accepted(img_properties=f'{{"EXCLUDE_TASK_{name}": "yes"}}') is not framing


@pytest.mark.parametrize("name", sorted(SETTINGS_THERE))
def test_a_setting_has_keys_of_ours_or_is_gone(name: str) -> None:
    status, note = rows("Settings")[name]
    keys = set(re.findall(r"(?<!\*)\*(\w+)\*(?!\*)", note))
    known = {f.name for f in dataclasses.fields(Settings)} | {p.name for p in PARAMETERS}
    assert keys <= known
    assert keys if status != "gone" else True
