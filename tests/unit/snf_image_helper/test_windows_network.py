"""The cards in an answer file, each element where Windows wants it."""

from __future__ import annotations

from dataclasses import replace

from snf_image_helper import answer_file
from snf_image_helper.answer_file import AnswerFile, items, text_of
from snf_image_helper.network.answers import DNS, TCPIP, configure

from synnefo_light.manifest import Nic
from tests.golden.snf_image_helper.cards import CARDS

STATIC = CARDS["static"][0]
ROUTED = replace(CARDS["routed"][0], mac="aa:00:00:00:00:02")
DYNAMIC = replace(CARDS["dhcp-slaac"][0], mac="aa:00:00:00:00:03")


def cards(*nics: Nic, twice: bool = False) -> AnswerFile:
    answers = answer_file.default("amd64", (10, 0), "UTC")
    for _ in range(1 + twice):
        configure(answers, nics)
    return answer_file.parse(answers.render(), "amd64")


def described(answers: AnswerFile) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for interface in items(answers.component("specialize", TCPIP), "Interfaces/Interface"):
        assert interface.get(f"{{{answer_file.WCM}}}action") == "add"
        found.append(
            {
                "order": [element.tag.rpartition("}")[2] for element in interface],
                "mac": text_of(interface, "Identifier"),
                "dhcp": (
                    text_of(interface, "Ipv4Settings/DhcpEnabled"),
                    text_of(interface, "Ipv6Settings/DhcpEnabled"),
                ),
                "advertised": text_of(interface, "Ipv6Settings/RouterDiscoveryEnabled"),
                "addresses": [e.text for e in items(interface, "UnicastIpAddresses/IpAddress")],
                "routes": [
                    (text_of(r, "Prefix"), text_of(r, "NextHopAddress")) for r in items(interface, "Routes/Route")
                ],
            }
        )
    return found


def test_a_static_card() -> None:
    (card,) = described(cards(STATIC))
    assert card == {
        "order": ["Ipv4Settings", "Ipv6Settings", "Identifier", "UnicastIpAddresses", "Routes"],
        "mac": "AA-00-00-00-00-01",
        "dhcp": ("false", "false"),
        "advertised": "false",
        "addresses": ["10.0.0.5/24", "2001:db8::5/64"],
        "routes": [("0.0.0.0/0", "10.0.0.1"), ("::/0", "2001:db8::1")],
    }


def test_a_routed_card_reaches_its_gateway_first() -> None:
    (card,) = described(cards(ROUTED))
    assert card["routes"] == [
        *(("169.254.1.1/32", "0.0.0.0"), ("0.0.0.0/0", "169.254.1.1")),
        *(("2001:db8:1::1/128", "::"), ("::/0", "2001:db8:1::1")),
    ]


def test_a_dynamic_card_has_no_address_of_ours() -> None:
    (card,) = described(cards(DYNAMIC))
    assert card["order"] == ["Ipv4Settings", "Ipv6Settings", "Identifier"]
    assert (card["dhcp"], card["advertised"]) == (("true", "false"), "true")


def test_name_servers_and_domains_in_their_order() -> None:
    component = cards(STATIC, DYNAMIC).component("specialize", DNS)
    (interface,) = items(component, "Interfaces/Interface")
    servers = items(interface, "DNSServerSearchOrder/IpAddress")
    assert [(s.get(f"{{{answer_file.WCM}}}keyValue"), s.text) for s in servers] == [
        ("1", "10.0.0.2"),
        ("2", "2001:db8::2"),
    ]
    assert [d.text for d in items(component, "DNSSuffixSearchOrder/DomainName")] == ["example.org", "example.net"]


def test_a_second_time_nothing_is_doubled() -> None:
    nics = (STATIC, ROUTED, DYNAMIC)
    assert cards(*nics, twice=True).render() == cards(*nics).render()
    assert len(described(cards(*nics, twice=True))) == 3


def test_a_card_that_gets_nothing_is_left_alone() -> None:
    assert described(cards(Nic(mac="aa:00:00:00:00:04"))) == []
