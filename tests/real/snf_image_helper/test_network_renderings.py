"""What we write for the network, given to those who will read it: netplan's generator and ifupdown.

They come from their Debian packages, taken apart in a temporary folder, so that this machine's own network is safe.
ifupdown works for real, in network and mount namespaces of its own, and ip(8) says what came of it. netplan's output
for networkd is compared with what we write for networkd ourselves.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from snf_image_helper.network.ifupdown import render_interfaces
from snf_image_helper.network.netplan import render_netplan
from snf_image_helper.network.networkd import render_networkd

from synnefo_light.manifest import Nic
from tests.golden.snf_image_helper.cards import CARDS
from tests.real.snf_image_helper.conftest import Unpack


@pytest.fixture(scope="session")
def netplan(unpack: Unpack) -> Path:
    return unpack("netplan.io", "libnetplan0", "libyaml-0-2", "libglib2.0-0")


@pytest.fixture(scope="session")
def ifupdown(unpack: Unpack) -> Path:
    return unpack("ifupdown")


def generated(netplan: Path, root: Path, text: str) -> dict[str, str]:
    """The .network files that netplan makes of a YAML text; raises if it complains."""
    folder = root / "etc" / "netplan"
    folder.mkdir(parents=True)
    (folder / "90-snf-image.yaml").write_text(text)
    (folder / "90-snf-image.yaml").chmod(0o600)
    done = subprocess.run(
        [netplan / "usr/libexec/netplan/generate", "--root-dir", root],
        env={"LD_LIBRARY_PATH": f"{netplan}/usr/lib/x86_64-linux-gnu:{netplan}/lib/x86_64-linux-gnu"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return {f.name: f.read_text() for f in sorted((root / "run/systemd/network").glob("*.network"))}


def meaning(text: str) -> set[tuple[str, str, str]]:
    """(section, key, value) of a .network file, in one way of saying things."""
    said: set[tuple[str, str, str]] = set()
    section, number = "", 0
    for line in text.splitlines():
        if line.startswith("["):
            number += 1
            section = f"[Route]{number}" if line == "[Route]" else line
        elif "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            said.add((section.rstrip("0123456789"), key, value))
    same = {"PermanentMACAddress": "MACAddress", "GatewayOnLink": "GatewayOnLink"}
    usual = {("LinkLocalAddressing", "ipv6"), ("DHCP", "no"), ("Destination", "0.0.0.0/0"), ("Destination", "::/0")}
    return {
        (section, same.get(key, key), "yes" if value == "true" else value)
        for section, key, value in said
        if (key, value) not in usual and section != "[DHCP]"
    }


@pytest.mark.parametrize("cards", CARDS)
def test_netplan_makes_of_our_yaml_what_we_write_for_networkd(netplan: Path, tmp_path: Path, cards: str) -> None:
    nics = CARDS[cards]
    files = generated(netplan, tmp_path, render_netplan(nics))
    wanted = {
        f"10-netplan-nic{n}.network": nic for n, nic in enumerate(nics) if nic.ipv4 != "none" or nic.ipv6 != "none"
    }
    assert set(files) == set(wanted)
    for name, nic in wanted.items():
        assert meaning(files[name]) == meaning(render_networkd(nic))


def test_netplan_complains_about_a_yaml_that_is_wrong(netplan: Path, tmp_path: Path) -> None:
    """The control: it would have told us."""
    wrong = render_netplan(CARDS["static"]).replace("10.0.0.5/24", "10.0.0.555/24")
    with pytest.raises(AssertionError, match="malformed"):
        generated(netplan, tmp_path, wrong)


IFUP = """
set -e
mount -t sysfs sys /sys
ip link add card type veth peer name other
ip link set card address aa:00:00:00:00:01
ip link set other up
mkdir "$3/state"
"$1/sbin/ifup" --all --no-scripts --no-loopback --state-dir "$3/state" --interfaces "$2" >&2
ip -json address show dev card
ip -json route show
ip -json -6 route show default
"""


def ifup(ifupdown: Path, folder: Path, nics: tuple[Nic, ...]) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """What ip(8) says of the card, of the IPv4 routes and of IPv6's default route after `ifup --all`."""
    file = folder / "interfaces"
    file.write_text(render_interfaces(nics))
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", IFUP, "ifup", ifupdown, file, folder],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    card, routes, default = (json.loads(line) for line in done.stdout.splitlines())
    return card[0], routes, default


def addresses(card: dict[str, Any]) -> set[str]:
    return {f"{a['local']}/{a['prefixlen']}" for a in card["addr_info"] if a["scope"] == "global"}


def test_ifupdown_finds_the_card_by_its_mac_and_configures_it(ifupdown: Path, tmp_path: Path) -> None:
    card, routes, default = ifup(ifupdown, tmp_path, CARDS["static"])
    assert addresses(card) == {"10.0.0.5/24", "2001:db8::5/64"}
    assert card["mtu"] == 1400
    assert [r["gateway"] for r in routes if r["dst"] == "default"] == ["10.0.0.1"]
    assert [r["gateway"] for r in default] == ["2001:db8::1"]


def test_ifupdown_reaches_a_gateway_outside_of_the_prefix(ifupdown: Path, tmp_path: Path) -> None:
    card, routes, default = ifup(ifupdown, tmp_path, CARDS["routed"])
    assert addresses(card) == {"10.0.0.5/32", "2001:db8::5/128"}
    assert [(r["gateway"], r["dev"]) for r in routes if r["dst"] == "default"] == [("169.254.1.1", "card")]
    assert [r["gateway"] for r in default] == ["2001:db8:1::1"]


def test_ifupdown_leaves_a_card_with_another_mac_alone(ifupdown: Path, tmp_path: Path) -> None:
    other = (Nic(mac="aa:00:00:00:00:99", ipv4="static", ipv4_address="10.0.0.5/24"),)
    card, routes, _ = ifup(ifupdown, tmp_path, other)
    assert addresses(card) == set() and routes == []
