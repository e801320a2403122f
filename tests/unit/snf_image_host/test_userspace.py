"""Addresses of disks without a path, and the daemon that is started for one."""

from __future__ import annotations

import pytest
from snf_image_host.userspace import RbdAddress, open_address, parse_address, plan_daemon

from synnefo_light import run
from synnefo_light.errors import EnvironmentFault

VOLUME = "de5ba6d5-a2eb-4318-b980-718b7ecef57d.ext.disk0"


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        (f"rbd:volumes/{VOLUME}", RbdAddress(pool="volumes", image=VOLUME)),
        (f"rbd:volumes/{VOLUME}:id=ganeti", RbdAddress(pool="volumes", image=VOLUME, user="ganeti")),
        ("rbd:a/b:conf=/etc/ceph/x.conf:id=u", RbdAddress(pool="a", image="b", user="u", conf="/etc/ceph/x.conf")),
    ],
)
def test_an_address_is_taken_apart(uri: str, address: RbdAddress) -> None:
    assert parse_address(uri) == address


@pytest.mark.parametrize(
    "uri",
    [
        *("", "rbd:", "rbd:pool", "rbd:/image", "rbd:pool/", "rbd:pool/namespace/image", "rbd:pool/image@snapshot"),
        *(
            "rbd:po,ol/image",
            "rbd:pool/im age",
            "rbd:pool/image\n",
            "rbd:-pool/image",
            "nbd:unix:/x",
            "/dev/sda",
            "json:{}",
        ),
    ],
)
def test_what_is_no_address_of_an_image_is_refused(uri: str) -> None:
    with pytest.raises(EnvironmentFault, match="not rbd:POOL/IMAGE"):
        parse_address(uri)


@pytest.mark.parametrize(
    "option", ["mon_host=10.0.0.1", "id=", "id=a,b", "id=u:id=v", "conf=relative", "conf=/x,y", "keyring=/k", ""]
)
def test_an_option_that_could_name_another_cluster_is_refused(option: str) -> None:
    with pytest.raises(EnvironmentFault, match="not id or conf"):
        parse_address(f"rbd:pool/image:{option}")


def test_the_daemon_is_told_that_the_disk_is_raw_and_serves_it_once_more_than_to_us() -> None:
    words = plan_daemon(RbdAddress(pool="p", image="i", user="u", conf="/c"), listening=7, readonly=False)
    drives = [words[n + 1] for n, word in enumerate(words) if word == "--blockdev"]
    assert [drive.split(",")[0] for drive in drives] == ["driver=rbd", "driver=raw"]
    assert drives[0].endswith("pool=p,image=i,user=u,conf=/c")
    assert words[words.index("--nbd-server") + 1] == "addr.type=fd,addr.str=7,max-connections=2"
    assert words[words.index("--export") + 1].endswith("writable=on")


def test_a_disk_that_is_only_read_is_served_so() -> None:
    words = plan_daemon(RbdAddress(pool="p", image="i"), listening=7, readonly=True)
    assert all("read-only=on" in words[n + 1] for n, word in enumerate(words) if word == "--blockdev")
    assert words[words.index("--export") + 1].endswith("writable=off")


def test_a_daemon_that_is_not_installed_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PATH", "/nowhere")
    says = r"cannot be opened: qemu-storage-daemon was not found; install qemu-utils \(Debian 13\)"
    with (
        pytest.raises(EnvironmentFault, match=says),
        open_address(RbdAddress(pool="volumes", image=VOLUME), size=None),
    ):
        pass
