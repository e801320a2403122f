"""Which stack an image has, and what is done about it. The texts themselves are in tests/golden."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from snf_image_helper.actions import Action, MakeFolder, RemoveFile, Warn, WriteFile
from snf_image_helper.distribution import NetworkStack, network_stack
from snf_image_helper.image import Entry, Kind, RootPath
from snf_image_helper.renderers import is_on_link
from snf_image_helper.tasks.network import plan

from tests.unit.snf_image_helper.fake_image import Link, fake_image, manifest

Tree = dict[str, str | bytes | Link | None]
IFUPDOWN: Tree = {"usr/sbin/ifup": "", "etc/network/interfaces": "auto ens3\n"}
NETWORKD: Tree = {
    "etc/systemd/system/multi-user.target.wants/systemd-networkd.service": Link("/lib/systemd/system/x.service"),
    "etc/systemd/network": None,
}
NETPLAN: Tree = {"usr/sbin/netplan": "", "etc/netplan/50-cloud-init.yaml": "network: {}\n"}
NIC = {"mac": "aa:00:00:00:00:01", "ipv4": "dhcp"}


def planned(tree: Tree, *nics: Mapping[str, object]) -> list[Action]:
    return list(plan(fake_image(tree), manifest(nics=[dict(nic) for nic in nics or [NIC]])))


def paths(actions: list[Action]) -> list[str]:
    return [str(a.path) for a in actions if isinstance(a, WriteFile)]


@pytest.mark.parametrize(
    ("tree", "stack"),
    [
        (IFUPDOWN, NetworkStack.IFUPDOWN),
        (NETWORKD, NetworkStack.NETWORKD),
        (NETPLAN, NetworkStack.NETPLAN),
        ({**IFUPDOWN, **NETWORKD}, NetworkStack.NETWORKD),
        ({**IFUPDOWN, **NETWORKD, **NETPLAN}, NetworkStack.NETPLAN),
        ({"usr/lib/systemd/systemd-networkd": ""}, None),
        ({"sbin/ifup": ""}, NetworkStack.IFUPDOWN),
    ],
)
def test_the_stack_is_the_one_that_works_at_boot(tree: Tree, stack: NetworkStack | None) -> None:
    assert network_stack(fake_image(tree).files) is stack


def test_an_unknown_stack_is_left_alone_with_a_warning() -> None:
    (action,) = planned({})
    assert isinstance(action, Warn)


def test_cards_without_addresses_change_nothing() -> None:
    assert planned(IFUPDOWN, {"mac": "aa:00:00:00:00:01"}) == []


def test_interfaces_are_replaced_and_the_images_are_kept_once() -> None:
    actions = planned(IFUPDOWN)
    assert paths(actions) == ["/etc/network/interfaces.before-snf-image", "/etc/network/interfaces"]
    (first, second) = actions
    assert isinstance(first, WriteFile) and isinstance(second, WriteFile) and first.content == b"auto ens3\n"
    again = planned({**IFUPDOWN, "etc/network/interfaces": second.content})
    assert paths(again) == ["/etc/network/interfaces"]
    third = planned({**IFUPDOWN, "etc/network/interfaces.before-snf-image": "auto ens3\n"})
    assert paths(third) == ["/etc/network/interfaces"]


def test_netplans_other_files_are_put_aside() -> None:
    actions = planned(NETPLAN)
    assert paths(actions) == ["/etc/netplan/50-cloud-init.yaml.before-snf-image", "/etc/netplan/90-snf-image.yaml"]
    assert RemoveFile(path=RootPath("etc/netplan/50-cloud-init.yaml")) in actions


@pytest.mark.parametrize(
    ("tree", "path"), [(NETPLAN, "etc/netplan/50-cloud-init.yaml"), (IFUPDOWN, "etc/network/interfaces")]
)
def test_what_is_put_aside_keeps_its_mode_and_owner(tree: Tree, path: str) -> None:
    """A netplan file of 0600 may hold the key of a wireless network."""
    entry = Entry(kind=Kind.FILE, mode=0o600, owner=3, group=4)
    actions = plan(fake_image(tree, entries={path: entry}), manifest(nics=[NIC]))
    (aside,) = (a for a in actions if isinstance(a, WriteFile) and a.path.endswith(".before-snf-image"))
    assert (aside.mode, aside.owner) == (0o600, (3, 4))


def test_networkd_gets_one_file_a_card_and_they_sort_first() -> None:
    second = {**NIC, "mac": "aa:00:00:00:00:02"}
    assert paths(planned(NETWORKD, NIC, second)) == [
        "/etc/systemd/network/00-snf-image-0.network",
        "/etc/systemd/network/00-snf-image-1.network",
    ]


def test_cloud_init_is_told_to_leave_the_network_alone() -> None:
    tree: Tree = {**NETPLAN, "usr/bin/cloud-init": "", "etc/cloud/cloud.cfg.d": None}
    assert "/etc/cloud/cloud.cfg.d/99-snf-image-network.cfg" in paths(planned(tree))


DNS = {**NIC, "nameservers": ["10.0.0.2"]}


@pytest.mark.parametrize(
    ("tree", "nic", "written"),
    [
        (IFUPDOWN, DNS, True),
        (IFUPDOWN, NIC, False),
        ({**IFUPDOWN, "usr/sbin/resolvconf": ""}, DNS, False),
        ({**NETWORKD, "etc/systemd/system/multi-user.target.wants/systemd-resolved.service": Link("x")}, DNS, False),
        (NETWORKD, DNS, True),
    ],
)
def test_resolv_conf_is_written_where_nobody_else_does(tree: Tree, nic: Mapping[str, object], written: bool) -> None:
    assert ("/etc/resolv.conf" in paths(planned(tree, nic))) is written


def test_resolv_conf_takes_the_place_of_a_stale_link() -> None:
    actions = planned({**IFUPDOWN, "etc/resolv.conf": Link("/run/systemd/resolve/stub-resolv.conf")}, DNS)
    assert actions.index(RemoveFile(path=RootPath("etc/resolv.conf"))) < len(actions) - 1


@pytest.mark.parametrize(
    ("address", "gateway", "on_link"),
    [
        ("10.0.0.5/24", "10.0.0.1", True),
        ("10.0.0.5/24", "10.0.1.1", False),
        ("10.0.0.5/32", "169.254.1.1", False),
        ("2001:db8::5/64", "2001:db8::1", True),
        ("2001:db8::5/64", "fe80::1", True),
        ("2001:db8::5/128", "2001:db8:1::1", False),
    ],
)
def test_a_gateway_outside_of_the_prefix_is_seen(address: str, gateway: str, on_link: bool) -> None:
    assert is_on_link(address, gateway) is on_link


def test_on_systemd_ifup_waits_for_udev_to_make_the_cards() -> None:
    actions = planned({**IFUPDOWN, "usr/lib/systemd/systemd": ""})
    assert isinstance(actions[-2], MakeFolder)
    assert paths(actions)[-1] == "/etc/systemd/system/networking.service.d/snf-image.conf"
    drop_in = actions[-1]
    assert isinstance(drop_in, WriteFile) and b"ExecStartPre=udevadm settle" in drop_in.content
