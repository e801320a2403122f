from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from snf_image_host.params import parse_parameters
from snf_image_host.plan import check_size, check_windows_name, plan_disks, plan_manifest, plan_rename
from snf_image_host.settings import Settings
from snf_image_host.userspace import RbdAddress
from snf_image_host.vm import HelperImage

from synnefo_light.errors import EnvironmentFault, UserError
from synnefo_light.ganeti import OsDisk, OsEnv, parse_os_env
from synnefo_light.log import Secret
from synnefo_light.manifest import CloudInit, Compression, ImageFormat, Source, SourceFormat, Windows
from synnefo_light.tasks import OsFamily, Phase
from synnefo_light.units import MIB, MiB
from tests.task_list import NAMES, ORDER

NONCE = "0123456789abcdef" * 2
SOURCES = {task.name for task in ORDER if task.phase is Phase.SOURCE}
DATA = Path(__file__).parents[2] / "data" / "ganeti" / "ganeti-3.0.2-create-three-nics.env"
WORDS = {"img_id": "debian-12.raw", "img_format": "diskdump"}
IMAGE = HelperImage(folder=Path("/nowhere"), version="1", tasks=ORDER)


def env(**changed: str) -> OsEnv:
    lines = [line for line in DATA.read_text().splitlines() if line and not line.startswith("#")]
    return parse_os_env(dict(line.split("=", 1) for line in lines) | changed)


def disk(index: int, **given: Any) -> OsDisk:
    fields: dict[str, Any] = {
        "uuid": "",
        "size": MiB(1024),
        "path": Path(f"/dev/disk{index}"),
        "uri": None,
        "mode": "rw",
    }
    return OsDisk(index=index, **fields | given)


def manifest_of(parameters: dict[str, str], settings: Settings | None = None) -> Any:
    return plan_manifest(
        env(),
        parse_parameters(WORDS | parameters, tasks=ORDER),
        settings or Settings(),
        sizes=[8 * MIB],
        image=IMAGE,
        nonce=NONCE,
    )


def test_the_manifest_of_what_ganeti_passed() -> None:
    manifest = manifest_of(
        {"img_passwd": "x", "dns_nameservers": "10.0.0.53", "img_properties": '{"OSFAMILY": "linux"}'}
    )
    assert (manifest.instance, manifest.hostname, manifest.nonce, manifest.helper_version) == ("ni", "ni", NONCE, "1")
    assert [d.size for d in manifest.disks] == [8 * MIB]
    first, second, third = manifest.nics
    assert (first.ipv4, first.ipv6, first.nameservers) == ("dhcp", "slaac", ("10.0.0.53",))
    assert (second.ipv4, third.ipv4) == ("dhcp", "dhcp")
    assert manifest.passwords[0].user == "root"
    assert manifest.source is None and manifest.skip == SOURCES


def test_without_dns_parameters_the_nodes_configuration_holds() -> None:
    settings = Settings(nameservers=("192.0.2.1",), search=("site.example",))
    manifest = manifest_of({}, settings)
    assert manifest.nics[0].nameservers == ("192.0.2.1",)
    assert manifest_of({"dns_nameservers": ""}, settings).nics[0].nameservers == ()


def test_without_any_task_there_is_no_manifest() -> None:
    assert manifest_of({"img_properties": '{"EXCLUDE_ALL_TASKS": "yes"}'}) is None
    each = ",".join(f'"EXCLUDE_TASK_{t}": "yes"' for t in NAMES if t not in {"mount", "umount"} | SOURCES)
    assert manifest_of({"img_properties": f"{{{each}}}"}) is None


def test_an_image_that_must_be_converted_needs_the_helper_for_that_alone() -> None:
    source = Source(format=SourceFormat.QCOW2, compression=Compression.NONE, size=MIB)
    asked = parse_parameters(
        WORDS | {"img_id": "x.qcow2", "img_properties": '{"EXCLUDE_ALL_TASKS": "yes", "OSFAMILY": "openbsd"}'},
        tasks=ORDER,
    )
    manifest = plan_manifest(env(), asked, Settings(), sizes=[MIB], image=IMAGE, nonce=NONCE, source=source)
    assert manifest is not None
    assert manifest.source == source and manifest.skip == set(NAMES) - SOURCES
    assert manifest.os_family is None, "what is only copied may be of any family"


def test_each_order_reaches_the_manifest() -> None:
    properties = (
        '{"OSFAMILY": "windows", "CLOUD_INIT": 1, "NM_NETWORKING": 1, "OFFLINE_NTFSRESIZE": 1, "CUSTOM_TASK": "eA==",'
        '"IGNORE_UNATTEND": "yes"}'
    )
    given = {"img_format": "ntfsdump", "os_product_key": "abcde-12345-ABCDE-12345-ABCDE", "cloud_userdata": "eHg="}
    asked = parse_parameters(WORDS | given | {"img_properties": properties}, tasks=ORDER)
    settings = Settings(windows_timezone="GTB Standard Time")
    manifest = plan_manifest(env(), asked, settings, sizes=[MIB], image=IMAGE, nonce=NONCE, answer_file=b"<unattend/>")
    assert manifest is not None
    assert (manifest.image_format, manifest.os_family, manifest.root_partition) == (
        ImageFormat.NTFSDUMP,
        OsFamily.WINDOWS,
        1,
    )
    assert (manifest.cloud_init, manifest.nm_networking) == (CloudInit(userdata="eHg="), True)
    assert (manifest.ntfs_resize, manifest.custom_task, manifest.users) == ("offline", "eA==", ("Administrator",))
    assert manifest.windows == Windows(
        product_key=Secret("ABCDE-12345-ABCDE-12345-ABCDE"),
        answer_file="PHVuYXR0ZW5kLz4=",
        ignore_unattend=True,
        timezone="GTB Standard Time",
    )


def test_a_linux_is_told_nothing_of_windows() -> None:
    assert manifest_of({"img_properties": '{"OSFAMILY": "linux"}'}).windows is None
    assert manifest_of({}).windows == Windows(), "what is not known yet may be Windows"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a-name-of-sixteen", "has 17 characters"),
        ("12345.example.org", "has digits only"),
        ("web_1", "has other characters"),
    ],
)
def test_a_name_that_no_windows_can_have_is_refused(name: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        check_windows_name(name)
    words = WORDS | {"img_properties": '{"OSFAMILY": "windows"}'}
    asked = parse_parameters(words, tasks=ORDER)
    if "_" not in name:  # which Ganeti does not let through
        with pytest.raises(UserError, match=why):
            plan_manifest(env(INSTANCE_NAME=name), asked, Settings(), sizes=[MIB], image=IMAGE, nonce=NONCE)


@pytest.mark.parametrize("name", ["fifteen-letters", "web1.a-very-long-domain.example.org", "1a"])
def test_a_name_that_windows_can_have(name: str) -> None:
    check_windows_name(name)
    asked = parse_parameters(WORDS | {"img_properties": '{"OSFAMILY": "windows"}'}, tasks=ORDER)
    planned = plan_manifest(env(INSTANCE_NAME=name), asked, Settings(), sizes=[MIB], image=IMAGE, nonce=NONCE)
    assert planned is not None and planned.hostname == name


def test_a_rename_only_writes_the_host_name() -> None:
    asked = parse_parameters(WORDS | {"img_passwd": "x", "auth_keys": "ssh-rsa A"}, tasks=ORDER)
    manifest = plan_rename(env(), asked, Settings(), sizes=[MIB], image=IMAGE, nonce=NONCE)
    assert manifest is not None
    assert set(NAMES) - manifest.skip == {"mount", "hostname", "umount"}
    assert (manifest.passwords, manifest.authorized_keys, manifest.files) == ((), "", ())


@pytest.mark.parametrize("family", ["windows", "freebsd", "openbsd"])
def test_a_rename_leaves_other_families_than_linux_alone(family: str) -> None:
    asked = parse_parameters(WORDS | {"img_properties": f'{{"OSFAMILY": "{family}"}}'}, tasks=ORDER)
    assert plan_rename(env(), asked, Settings(), sizes=[MIB], image=IMAGE, nonce=NONCE) is None


@pytest.mark.parametrize("excluded", ["EXCLUDE_ALL_TASKS", "EXCLUDE_MOUNTED_TASKS", "EXCLUDE_TASK_AssignHostname"])
def test_a_rename_leaves_an_image_alone_that_asks_for_it(excluded: str) -> None:
    asked = parse_parameters(WORDS | {"img_properties": f'{{"{excluded}": "yes"}}'}, tasks=ORDER)
    assert plan_rename(env(), asked, Settings(), sizes=[MIB], image=IMAGE, nonce=NONCE) is None


def test_a_rename_does_nothing_when_the_configuration_says_noop() -> None:
    assert (
        plan_rename(
            env(), parse_parameters(WORDS, tasks=ORDER), Settings(rename="noop"), sizes=[1], image=IMAGE, nonce=NONCE
        )
        is None
    )


def test_the_vm_sees_the_first_disk_only() -> None:
    (planned,) = plan_disks([disk(0), disk(1), disk(2)], swap_disk=None)
    assert (planned.index, planned.path, planned.size, planned.readonly) == (0, Path("/dev/disk0"), 1024 * MIB, False)


def test_the_vm_sees_disks_up_to_the_swap_disk_and_may_write_no_other() -> None:
    planned = plan_disks([disk(0), disk(1), disk(2), disk(3)], swap_disk=2)
    assert [(d.index, d.readonly) for d in planned] == [(0, False), (1, True), (2, False)]


def test_a_path_is_preferred_to_an_address() -> None:
    both, only = plan_disks([disk(0, uri="rbd:a/b"), disk(1, path=None, uri="rbd:a/b:id=u")], swap_disk=1)
    assert both.path == Path("/dev/disk0")
    assert only.path == RbdAddress(pool="a", image="b", user="u")


@pytest.mark.parametrize(
    ("disks", "swap", "error", "sentence"),
    [
        ([], None, UserError, "no disk"),
        ([disk(0)], 1, UserError, "SWAP names disk 1, but the instance has 1; add --disk 1:size=1G"),
        ([disk(0, path=None, uri="gluster://a/b")], None, EnvironmentFault, "'gluster://a/b', which is not rbd:POOL/"),
        ([disk(0, path=None)], None, EnvironmentFault, "neither a path nor an address"),
        ([disk(0, mode="ro")], None, UserError, "mode=ro"),
    ],
)
def test_disks_that_cannot_be_used(
    disks: list[OsDisk], swap: int | None, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        plan_disks(disks, swap_disk=swap)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("size", "fits"), [(1, True), (20 * MIB, True), (20 * MIB + 1, False), (0, False)])
def test_an_image_must_fit(size: int, fits: Literal[True, False]) -> None:
    if fits:
        check_size("x.raw", size=size, disk=20 * MIB, instance="web1")
    else:
        with pytest.raises(UserError):
            check_size("x.raw", size=size, disk=20 * MIB, instance="web1")


def test_what_stands_before_an_image_takes_room_too() -> None:
    check_size("x.ext4", size=19 * MIB, lead=MIB, disk=20 * MIB, instance="web1")
    with pytest.raises(UserError, match="needs 21 MiB; ask for --disk 0:size=21M"):
        check_size("x.ext4", size=19 * MIB + 1, lead=MIB, disk=20 * MIB, instance="web1")


def test_the_sentence_about_an_image_that_does_not_fit_says_what_would() -> None:
    with pytest.raises(UserError) as caught:
        check_size("debian.raw", size=2 << 30, disk=1 << 30, instance="web1")
    assert str(caught.value) == (
        "disk 0 of web1 is 1024 MiB, but the image debian.raw needs 2048 MiB; ask for --disk 0:size=2048M or more"
    )
