"""Which stack an image has, and what is done about it. The texts themselves are in tests/golden."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from snf_image_helper.actions import Action, MakeFolder, RemoveFile, Symlink, Warn, WriteFile
from snf_image_helper.image import Entry, ImageError, Kind, RootPath
from snf_image_helper.network import NetworkStack, network_stack
from snf_image_helper.network.cards import is_on_link
from snf_image_helper.shell_variables import set_variables
from snf_image_helper.tasks.network import plan

from tests.guests.trees import GUESTS
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


def tree_after(tree: Tree, actions: list[Action]) -> Tree:
    tree = {str(RootPath(name)): what for name, what in tree.items()}
    for action in actions:
        match action:
            case WriteFile(path=path, content=content):
                tree[str(path)] = content
            case Symlink(path=path, target=target):
                tree[str(path)] = Link(target)
            case RemoveFile(path=path):
                tree.pop(str(path), None)
            case MakeFolder(path=path):
                tree.setdefault(str(path), None)
    return tree


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
        "/etc/systemd/network/0-snf-image-0.network",
        "/etc/systemd/network/0-snf-image-1.network",
    ]


def test_what_networkd_would_take_before_ours_is_put_aside_or_masked() -> None:
    folder = "etc/systemd/network"
    tree: Tree = {
        **NETWORKD,
        f"{folder}/0-eth.network": "[Match]\nName=en*\n",
        f"{folder}/00-br0.network": "[Match]\nName=br0\n",
        f"{folder}/0-off.network": Link("/dev/null"),
        f"{folder}/0-a.link": "",
        "usr/lib/systemd/network/0-eth.network": "[Match]\nName=*\n",
        "usr/lib/systemd/network/0-off.network": "",
        "usr/lib/systemd/network/80-wifi.network": "",
    }
    actions = planned(tree)
    assert paths(actions) == [f"/{folder}.before-snf-image/0-eth.network", f"/{folder}/0-snf-image-0.network"]
    removed = actions.index(RemoveFile(path=RootPath(f"{folder}/0-eth.network")))
    assert [a for a in actions if isinstance(a, Symlink)] == [
        Symlink(path=RootPath(f"{folder}/0-eth.network"), target="/dev/null")
    ]
    assert removed < actions.index(Symlink(path=RootPath(f"{folder}/0-eth.network"), target="/dev/null"))


WANTS = "etc/systemd/system/multi-user.target.wants"
BOTH: Tree = {
    **NETWORKD,
    f"{WANTS}/NetworkManager.service": Link("/usr/lib/systemd/system/NetworkManager.service"),
    "usr/sbin/NetworkManager": "",
}


@pytest.mark.parametrize("forced", [False, True])
def test_of_networkd_and_network_manager_one_configures_the_cards_and_the_other_is_told(forced: bool) -> None:
    tree = dict(BOTH)
    for nm_networking in (not forced, forced):  # the second deployment takes back what the first one said
        actions = list(plan(fake_image(tree), manifest(nics=[NIC], nm_networking=nm_networking)))
        tree = tree_after(tree, actions)
    networkd = str(tree["/etc/systemd/network/0-snf-image-0.network"])
    assert ("Unmanaged=yes" in networkd) is forced and ("DHCP=ipv4" in networkd) is not forced
    told = str(tree.get("/etc/NetworkManager/conf.d/90-snf-image.conf"))
    assert told == "None" if forced else "match-device=mac:AA:00:00:00:00:01\\nmanaged=0" in told


UBUNTU: Tree = {
    **NETPLAN,
    **BOTH,
    "usr/lib/NetworkManager/conf.d/10-globally-managed-devices.conf": "[keyfile]\nunmanaged-devices=*\n",
    "etc/systemd/system/network-online.target.wants/systemd-networkd-wait-online.service": Link("x"),
}
OF_NETWORK_MANAGER = [
    "/etc/NetworkManager/conf.d/10-globally-managed-devices.conf",
    "/etc/NetworkManager/system-connections/snf-image-0.nmconnection",
    "/etc/systemd/network/0-snf-image-0.network",
    "/etc/systemd/system/systemd-networkd-wait-online.service.d/snf-image.conf",
]


def test_netplan_takes_back_what_an_earlier_deployment_said_for_network_manager() -> None:
    """networkd would leave alone the cards that netplan gives it: our file comes before netplan's own in /run."""
    edited = {"/etc/NetworkManager/system-connections/snf-image-7.nmconnection": "[connection]\n"}
    image_own = "/etc/NetworkManager/conf.d/10-globally-managed-devices.conf"
    forced = tree_after(UBUNTU, list(plan(fake_image(UBUNTU), manifest(nics=[NIC], nm_networking=True))))
    assert set(OF_NETWORK_MANAGER) <= forced.keys()
    after = tree_after({**forced, **edited}, planned({**forced, **edited}))
    assert not {*OF_NETWORK_MANAGER, *edited} & after.keys() and "/etc/netplan/90-snf-image.yaml" in after
    own: Tree = {**UBUNTU, image_own: "[keyfile]\n"}
    assert image_own in tree_after(own, planned(own))


def test_nothing_waits_for_networkd_where_network_manager_has_the_cards() -> None:
    actions = list(plan(fake_image(UBUNTU), manifest(nics=[{"mac": NIC["mac"]}, NIC], nm_networking=True)))
    (drop_in,) = (a for a in actions if isinstance(a, WriteFile) and a.path == OF_NETWORK_MANAGER[3])
    assert drop_in.content.endswith(b"[Unit]\nConditionPathExists=!/etc/systemd/network/0-snf-image-1.network\n")
    assert "/etc/systemd/network/0-snf-image-1.network" in paths(actions)
    without = {name: what for name, what in UBUNTU.items() if "wait-online" not in name}
    assert OF_NETWORK_MANAGER[3] not in paths(list(plan(fake_image(without), manifest(nics=[NIC], nm_networking=True))))


def test_the_file_of_a_card_that_is_gone_does_not_stay() -> None:
    second = {**NIC, "mac": "aa:00:00:00:00:02"}
    before = tree_after(NETWORKD, planned(NETWORKD, NIC, second))
    assert RemoveFile(path=RootPath("etc/systemd/network/0-snf-image-1.network")) in planned(before, NIC)


def test_rhel_8_reads_no_keyfile_of_an_earlier_deployment_beside_its_ifcfg_file() -> None:
    rhel: Tree = {**GUESTS["rhel-8"], "usr/sbin/NetworkManager": ""}
    forced = tree_after(rhel, list(plan(fake_image(rhel), manifest(nics=[NIC], nm_networking=True))))
    after = tree_after(forced, planned(forced))
    assert OF_NETWORK_MANAGER[1] in forced and OF_NETWORK_MANAGER[1] not in after
    assert "/etc/sysconfig/network-scripts/ifcfg-nic0" in after


@pytest.mark.parametrize("mask", [Link("/dev/null"), ""])
def test_a_masked_unit_does_not_start(mask: str | Link) -> None:
    tree: Tree = {**BOTH, "etc/systemd/system/systemd-networkd.service": mask}
    assert network_stack(fake_image(BOTH).files) is NetworkStack.NETWORKD
    assert network_stack(fake_image(tree).files) is NetworkStack.NETWORK_MANAGER
    own: Tree = {**BOTH, "etc/systemd/system/systemd-networkd.service": "[Unit]\n"}
    assert network_stack(fake_image(own).files) is NetworkStack.NETWORKD


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
    made = [str(a.path) for a in actions if isinstance(a, MakeFolder)]
    assert made[-3:] == [f"/etc/systemd{more}" for more in ("", "/system", "/system/networking.service.d")]
    assert paths(actions)[-1] == "/etc/systemd/system/networking.service.d/snf-image.conf"
    drop_in = actions[-1]
    assert isinstance(drop_in, WriteFile) and b"ExecStartPre=udevadm settle" in drop_in.content


STACKS = {
    "debian-12": NetworkStack.IFUPDOWN,
    "ubuntu-24.04": NetworkStack.NETPLAN,
    "fedora-41": NetworkStack.NETWORK_MANAGER,
    "rhel-8": NetworkStack.IFCFG_RH,
    "rhel-9": NetworkStack.NETWORK_MANAGER,
    "rhel-10": NetworkStack.NETWORK_MANAGER,
    "opensuse-15.6": NetworkStack.IFCFG_SUSE,
    "opensuse-16": NetworkStack.NETWORK_MANAGER,
    "arch": NetworkStack.NETWORKD,
    "alpine-3.20": NetworkStack.IFUPDOWN_NG,
    "gentoo": NetworkStack.NETIFRC,
}


def test_every_distribution_has_its_own_stack() -> None:
    assert {name: network_stack(fake_image(tree).files) for name, tree in GUESTS.items()} == STACKS


CONNECTIONS = "/etc/NetworkManager/system-connections"


def test_network_managers_other_files_are_put_aside_where_it_does_not_look() -> None:
    actions = planned(GUESTS["rhel-9"])
    assert actions[0] == MakeFolder(path=RootPath(f"{CONNECTIONS}.before-snf-image"), mode=0o700)
    assert paths(actions) == [
        f"{CONNECTIONS}.before-snf-image/eth0.nmconnection",
        f"{CONNECTIONS}/snf-image-0.nmconnection",
    ]
    assert RemoveFile(path=RootPath(f"{CONNECTIONS}/eth0.nmconnection")) in actions
    own = actions[-1]
    assert isinstance(own, WriteFile) and (own.mode, own.owner) == (0o600, (0, 0))


def test_keyfiles_may_be_forced_on_an_image_with_another_stack() -> None:
    tree: Tree = {**IFUPDOWN, **NETPLAN, "usr/sbin/NetworkManager": "", "etc/NetworkManager": None}
    actions = list(plan(fake_image(tree), manifest(nics=[NIC], nm_networking=True)))
    assert paths(actions) == [
        "/etc/netplan/50-cloud-init.yaml.before-snf-image",
        "/etc/network/interfaces.before-snf-image",
        "/etc/network/interfaces",
        f"{CONNECTIONS}/snf-image-0.nmconnection",
    ]
    assert MakeFolder(path=RootPath(CONNECTIONS)) in actions
    interfaces = next(a for a in actions if isinstance(a, WriteFile) and a.path == "/etc/network/interfaces")
    assert b"iface lo inet loopback" in interfaces.content and b"auto mac" not in interfaces.content


def test_network_manager_of_ubuntu_is_let_to_the_cards() -> None:
    name = "NetworkManager/conf.d/10-globally-managed-devices.conf"
    tree: Tree = {**NETPLAN, "usr/sbin/NetworkManager": "", "etc/NetworkManager": None}
    ubuntu: Tree = {**tree, f"usr/lib/{name}": "[keyfile]\nunmanaged-devices=*,except:type:wifi\n"}
    assert f"/etc/{name}" not in paths(list(plan(fake_image(tree), manifest(nics=[NIC], nm_networking=True))))
    (own,) = [
        action
        for action in plan(fake_image(ubuntu), manifest(nics=[NIC], nm_networking=True))
        if isinstance(action, WriteFile) and action.path == f"/etc/{name}"
    ]
    assert b"unmanaged" not in own.content


@pytest.mark.parametrize("forced", [True, False])
def test_files_that_are_too_much_to_put_aside_are_refused(forced: bool) -> None:
    tree: Tree = {**NETPLAN, "usr/sbin/NetworkManager": ""}
    tree |= {f"etc/netplan/{n}.yaml": b"#" * (1 << 20) for n in range(5)}
    with pytest.raises(ImageError, match="/etc/netplan that configure the network have over 4 MiB"):
        plan(fake_image(tree), manifest(nics=[NIC], nm_networking=forced))


def test_keyfiles_cannot_be_forced_without_network_manager() -> None:
    with pytest.raises(ImageError, match="the image has none; set NM_NETWORKING=no"):
        plan(fake_image(IFUPDOWN), manifest(nics=[NIC], nm_networking=True))


def test_rhel_8_gets_an_ifcfg_file_and_keeps_los() -> None:
    actions = planned(GUESTS["rhel-8"])
    folder = "/etc/sysconfig/network-scripts"
    assert paths(actions) == [f"{folder}.before-snf-image/ifcfg-eth0", f"{folder}/ifcfg-nic0"]
    assert [a.path for a in actions if isinstance(a, RemoveFile)] == [f"{folder}/ifcfg-eth0"]


ROUTED = {**NIC, "ipv4": "static", "ipv4_address": "10.0.0.5/32", "ipv4_gateway": "169.254.1.1"}
RHEL_7: Tree = {
    "etc/rc.d/init.d/network": "",
    "etc/sysconfig/network-scripts/ifcfg-eth0": "DEVICE=eth0\n",
    "etc/sysconfig/network-scripts/ifcfg-lo": "DEVICE=lo\n",
    "etc/sysconfig/network-scripts/route-eth0": "10.0.0.0/8 via 10.0.0.1\n",
    "etc/sysconfig/network-scripts/rule6-eth0": "",
    "etc/sysconfig/network-scripts/ifup-routes": "",
}


def test_the_network_service_gets_routes_to_a_gateway_outside_of_the_prefix_and_a_name_for_the_card() -> None:
    folder = "/etc/sysconfig/network-scripts"
    aside = [f"{folder}.before-snf-image/{name}" for name in ("ifcfg-eth0", "route-eth0", "rule6-eth0")]
    names = "/etc/udev/rules.d/70-snf-image-names.rules"
    assert paths(planned(RHEL_7, ROUTED)) == [*aside, names, f"{folder}/ifcfg-nic0", f"{folder}/route-nic0"]
    assert paths(planned(RHEL_7)) == [*aside, f"{folder}/ifcfg-nic0"]
    assert paths(planned(GUESTS["rhel-8"], ROUTED))[1:] == [f"{folder}/ifcfg-nic0"], "NetworkManager needs no more"
    both = {**ROUTED, "ipv6": "static", "ipv6_address": "2001:db8::5/128", "ipv6_gateway": "2001:db8:1::1"}
    texts = {a.path.name: a.content.decode() for a in planned(RHEL_7, both) if isinstance(a, WriteFile)}
    assert texts["route-nic0"].endswith(".\n169.254.1.1 dev nic0\ndefault via 169.254.1.1 dev nic0\n")
    assert texts["route6-nic0"].endswith(".\n2001:db8:1::1 dev nic0\ndefault via 2001:db8:1::1 dev nic0\n")
    assert "\nDEVICE=nic0\n" in texts["ifcfg-nic0"] and "169.254.1.1" not in texts["ifcfg-nic0"]
    assert "IPV6_DEFAULTGW" not in texts["ifcfg-nic0"]
    again = planned(tree_after(RHEL_7, planned(RHEL_7, ROUTED)), NIC)
    assert RemoveFile(path=RootPath(f"{folder}/route-nic0")) in again


def test_wicked_gets_its_files_a_name_for_the_card_and_the_name_servers() -> None:
    gateway = {**DNS, "ipv4": "static", "ipv4_address": "10.0.0.5/24", "ipv4_gateway": "10.0.0.1"}
    actions = planned(GUESTS["opensuse-15.6"], gateway)
    folder = "/etc/sysconfig/network"
    assert paths(actions) == [
        f"{folder}.before-snf-image/ifcfg-eth0",
        f"{folder}/ifcfg-nic0",
        f"{folder}/ifsysctl-nic0",
        f"{folder}/ifroute-nic0",
        f"{folder}/config",
        "/etc/udev/rules.d/70-snf-image-names.rules",
    ]
    config = next(a for a in actions if isinstance(a, WriteFile) and a.path == f"{folder}/config")
    assert config.content == (
        b'# comment\nNETCONFIG_DNS_STATIC_SEARCHLIST=""\nNETCONFIG_DNS_STATIC_SERVERS="10.0.0.2"\n'
    )


def test_alpines_networking_starts_at_boot() -> None:
    actions = planned(GUESTS["alpine-3.20"])
    link = Symlink(path=RootPath("etc/runlevels/boot/networking"), target="/etc/init.d/networking")
    assert link in actions
    started: Tree = {**GUESTS["alpine-3.20"], "etc/runlevels/boot/networking": Link("/etc/init.d/networking")}
    assert link not in planned(started)


def test_gentoo_gets_a_service_for_the_card_instead_of_the_images() -> None:
    actions = planned(GUESTS["gentoo"])
    assert RemoveFile(path=RootPath("etc/runlevels/default/net.eth0")) in actions
    assert [a for a in actions if isinstance(a, Symlink)] == [
        Symlink(path=RootPath("etc/init.d/net.nic0"), target="net.lo"),
        Symlink(path=RootPath("etc/runlevels/default/net.nic0"), target="/etc/init.d/net.nic0"),
    ]
    assert "/etc/conf.d/net.before-snf-image" in paths(actions)


@pytest.mark.parametrize("guest", GUESTS)
def test_a_second_deployment_plans_the_same_files_and_puts_nothing_aside(guest: str) -> None:
    """What the image's own files were is kept from the first one."""
    first = planned(GUESTS[guest], DNS)
    second = planned(tree_after(GUESTS[guest], first), DNS)
    kept = [a for a in first if isinstance(a, WriteFile) and "before-snf-image" not in a.path]
    assert [a for a in second if isinstance(a, WriteFile)] == kept


def test_a_variable_is_set_in_place_of_its_last_assignment() -> None:
    text = '#A="0"\nA="1"\nB="2"\nA="3"\n'
    assert set_variables("", {"A": "1"}) == 'A="1"\n'
    assert set_variables("# a form feed: \x0c and \u2028\nA=1", {"A": "2"}) == '# a form feed: \x0c and \u2028\nA="2"\n'
    assert set_variables(text, {"A": "x y", "C": ""}) == '#A="0"\nA="1"\nB="2"\nA="x y"\nC=""\n'
