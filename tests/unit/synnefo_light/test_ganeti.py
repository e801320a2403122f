from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from synnefo_light.errors import ProtocolError
from synnefo_light.ganeti import installed_version, parse_os_env, parse_version

DATA = Path(__file__).parents[2] / "data" / "ganeti"


def environ(name: str = "ganeti-3.0.2-create-three-nics.env") -> dict[str, str]:
    lines = (DATA / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_what_ganeti_3_0_2_passed_is_understood() -> None:
    env = parse_os_env(environ())
    assert (env.instance, env.variant, env.reinstall, env.debug) == ("ni", "default", False, 0)
    (disk,) = env.disks
    assert (disk.size, disk.mode, disk.uri) == (8, "rw", None)
    assert str(disk.path).endswith(".file.disk0")
    first, second, third = env.nics
    assert first.ip == ipaddress.ip_address("10.50.0.4")
    assert first.subnet == ipaddress.ip_network("10.50.0.0/24")
    assert first.gateway6 == ipaddress.ip_address("2001:db8:50::1")
    assert first.tags == ("ip-less-routed", "nfdhcpd")
    assert (second.network, second.ip) == (None, ipaddress.ip_address("10.1.1.1"))
    assert (third.mode, third.link) == ("routed", "100")
    assert env.parameters == {"hostname": "x", "secret": "s", "userdata": "u"}


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("OS_API_VERSION", "21", "OS API '21'"),
        ("INSTANCE_NAME", "../etc", "INSTANCE_NAME="),
        ("INSTANCE_NAME", "", "INSTANCE_NAME is not set"),
        ("INSTANCE_UUID", "1", "INSTANCE_UUID="),
        ("DISK_COUNT", "1000", "DISK_COUNT="),
        ("DISK_COUNT", "-1", "DISK_COUNT="),
        ("DISK_COUNT", "²", "DISK_COUNT="),
        ("DISK_0_PATH", "disk", "DISK_0_PATH="),
        ("DISK_0_SIZE", "big", "DISK_0_SIZE="),
        ("DISK_0_ACCESS", "x", "DISK_0_ACCESS="),
        ("NIC_0_MAC", "zz", "NIC_0_MAC="),
        ("NIC_0_IP", "10.0.0.300", "NIC 0"),
        ("NIC_0_NETWORK_SUBNET", "10.0.0.1/24", "NIC 0"),
    ],
)
def test_what_ganeti_would_never_pass_is_refused_by_name(name: str, value: str, named: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_os_env(environ() | {name: value})
    assert named in str(caught.value)


def test_a_uri_only_disk_has_no_path() -> None:
    changed = {k: v for k, v in environ().items() if k != "DISK_0_PATH"} | {"DISK_0_URI": "rbd:a/b"}
    (disk,) = parse_os_env(changed).disks
    assert (disk.path, disk.uri) == (None, "rbd:a/b")


def test_the_version_is_where_the_share_leads() -> None:
    assert parse_version("/usr/share/ganeti/3.0") == (3, 0) < parse_version("3.10")
    with pytest.raises(ProtocolError, match="names no version"):
        parse_version("/usr/share/ganeti/default")


def test_a_node_without_debians_ganeti_has_no_version(tmp_path: Path) -> None:
    share = tmp_path / "share"
    assert installed_version(share) is None
    share.symlink_to("/usr/share/ganeti/3.1")
    assert installed_version(share) == (3, 1)
