"""The decision table of snf_image_host.network."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from snf_image_host.network import plan_ipv4, plan_ipv6, plan_mtu, plan_nics
from snf_image_host.settings import Settings

from synnefo_light.errors import UserError
from synnefo_light.ganeti import OsNic

V4 = ipaddress.ip_address("10.0.0.5")
V6 = ipaddress.ip_address("2001:db8::5")
NET4, GATE4 = ipaddress.IPv4Network("10.0.0.0/24"), ipaddress.IPv4Address("10.0.0.1")
NET6, GATE6 = ipaddress.IPv6Network("2001:db8::/64"), ipaddress.IPv6Address("2001:db8::1")


def nic(**given: Any) -> OsNic:
    fields: dict[str, Any] = {
        **{"index": 0, "mac": "aa:00:00:00:00:01", "mode": "bridged", "link": "br0", "ip": None, "network": None},
        **{"subnet": None, "gateway": None, "subnet6": None, "gateway6": None, "tags": ()},
    }
    return OsNic(**fields | given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("none", None, None)),
        ({"subnet": NET4, "gateway": GATE4}, ("none", None, None)),
        ({"ip": V4}, ("dhcp", None, None)),
        ({"ip": V4, "subnet": NET4}, ("static", "10.0.0.5/24", None)),
        ({"ip": V4, "subnet": NET4, "gateway": GATE4}, ("static", "10.0.0.5/24", "10.0.0.1")),
        ({"ip": V4, "subnet": NET4, "tags": ("nfdhcpd",)}, ("dhcp", None, None)),
        ({"ip": V4, "subnet": NET4, "tags": ("ip-less-routed",)}, ("static", "10.0.0.5/24", None)),
        ({"ip": V6, "subnet": NET4}, ("none", None, None)),
        ({"ip": V4, "mode": "routed"}, ("dhcp", None, None)),
        ({"ip": V4, "mode": "routed", "subnet": NET4}, ("static", "10.0.0.5/24", None)),
        ({"ip": V4, "mode": "routed", "subnet": NET4, "gateway": GATE4}, ("static", "10.0.0.5/32", "10.0.0.1")),
        ({"ip": V4, "mode": "routed", "subnet": NET4, "gateway": GATE4, "tags": ("dhcp",)}, ("dhcp", None, None)),
    ],
)
def test_ipv4(given: dict[str, Any], expected: tuple[str, str | None, str | None]) -> None:
    assert plan_ipv4(nic(**given), Settings()) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("none", None, None)),
        ({"subnet6": NET6}, ("none", None, None)),
        ({"subnet6": NET6, "gateway6": GATE6}, ("slaac", None, None)),
        ({"subnet6": NET6, "gateway6": GATE6, "tags": ("nfdhcpd",)}, ("slaac", None, None)),
        ({"subnet6": NET6, "gateway6": GATE6, "tags": ("dhcpv6",)}, ("dhcp", None, None)),
        ({"ip": V6}, ("dhcp", None, None)),
        ({"ip": V6, "subnet6": NET6, "gateway6": GATE6}, ("static", "2001:db8::5/64", "2001:db8::1")),
        ({"ip": V6, "subnet6": NET6, "tags": ("stateful_dhcpv6",)}, ("dhcp", None, None)),
        ({"ip": V6, "mode": "routed", "subnet6": NET6}, ("static", "2001:db8::5/64", None)),
        (
            {"ip": V6, "mode": "routed", "subnet6": NET6, "gateway6": GATE6},
            ("static", "2001:db8::5/128", "2001:db8::1"),
        ),
        ({"ip": V4, "mode": "routed", "subnet6": NET6, "gateway6": GATE6}, ("slaac", None, None)),
    ],
)
def test_ipv6(given: dict[str, Any], expected: tuple[str, str | None, str | None]) -> None:
    assert plan_ipv6(nic(**given), Settings()) == expected


def test_the_only_card_without_anything_follows_the_configuration() -> None:
    (default,) = plan_nics([nic()], Settings(), nameservers=(), search=())
    assert (default.ipv4, default.ipv6) == ("dhcp", "none")
    settings = Settings(lone_nic_ipv4="none", lone_nic_ipv6="slaac")
    (other,) = plan_nics([nic()], settings, nameservers=(), search=())
    assert (other.ipv4, other.ipv6) == ("none", "slaac")


def test_one_of_several_cards_without_anything_is_left_alone() -> None:
    planned = plan_nics([nic(), nic(ip=V4)], Settings(), nameservers=(), search=())
    assert [n.ipv4 for n in planned] == ["none", "dhcp"]


def test_name_servers_go_to_the_first_configured_card() -> None:
    nics = [nic(), nic(ip=V4, subnet=NET4), nic(ip=V4)]
    planned = plan_nics(nics, Settings(), nameservers=("10.0.0.53",), search=("a.example",))
    assert [n.nameservers for n in planned] == [(), ("10.0.0.53",), ()]
    assert [n.search for n in planned] == [(), ("a.example",), ()]


def test_only_the_first_card_with_a_gateway_has_it_for_each_family() -> None:
    four, six = {"subnet": NET4, "gateway": GATE4}, {"subnet6": NET6, "gateway6": GATE6}
    nics = [nic(ip=V4, subnet=NET4), nic(ip=V4, **four), nic(ip=V6, **six), nic(ip=V4, **four), nic(ip=V6, **six)]
    planned = plan_nics(nics, Settings(), nameservers=(), search=())
    assert [n.ipv4_gateway for n in planned] == [None, "10.0.0.1", None, None, None]
    assert [n.ipv6_gateway for n in planned] == [None, None, "2001:db8::1", None, None]
    assert [n.ipv4_address or n.ipv6_address for n in planned[3:]] == ["10.0.0.5/24", "2001:db8::5/64"]


def test_the_tags_are_those_of_the_configuration() -> None:
    tagged = nic(ip=V4, subnet=NET4, tags=("pool",))
    assert plan_ipv4(tagged, Settings())[0] == "static"
    assert plan_ipv4(tagged, Settings(dhcp_tags=("pool",)))[0] == "dhcp"


def test_a_second_routed_card_reaches_its_neighbours_without_the_gateway() -> None:
    """The default route is the first card's; a /32 without a gateway would reach nobody."""
    routed: dict[str, Any] = {"ip": V4, "mode": "routed", "subnet": NET4, "gateway": GATE4}
    first, second = plan_nics([nic(**routed), nic(**routed)], Settings(), nameservers=(), search=())
    assert (first.ipv4_address, first.ipv4_gateway) == ("10.0.0.5/32", "10.0.0.1")
    assert (second.ipv4_address, second.ipv4_gateway) == ("10.0.0.5/24", None)


@pytest.mark.parametrize(
    ("tags", "mtu"),
    [
        ((), None),
        (("public",), None),
        (("mtu",), None),
        (("mtu:9000", "nfdhcpd"), 9000),
        (("mtu:576",), 576),
        (("mtu:65536",), 65536),
    ],
)
def test_a_tag_of_the_network_sets_the_mtu(tags: tuple[str, ...], mtu: int | None) -> None:
    (planned,) = plan_nics([nic(tags=tags)], Settings(), nameservers=(), search=())
    assert planned.mtu == mtu


@pytest.mark.parametrize(
    "tags", [("mtu:",), ("mtu:0",), ("mtu:575",), ("mtu:65537",), ("mtu:9k",), ("mtu:-1",), ("mtu:1500", "mtu:9000")]
)
def test_a_tag_of_which_no_mtu_follows_is_refused_by_name(tags: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        plan_mtu(nic(network="lan", tags=tags))
    assert str(caught.value) == (
        f"the network lan has the tags {', '.join(tags)}, of which no MTU follows; "
        "give it one, from mtu:576 to mtu:65536"
    )
