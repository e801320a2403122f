"""What we write for NetworkManager, ifupdown-ng and cloud-init, given to their own programs.

libnm reads keyfiles as NetworkManager does. ifupdown-ng works for real in namespaces of its own, with busybox's nameif.
cloud-init translates the same cards for stacks that are not in Debian, and its files are compared with ours. wicked and
netifrc are in no package of Debian: what we write for them is compared with nothing but their manuals.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from snf_image_helper.network.cards import configured
from snf_image_helper.network.ifcfg_rh import render_ifcfg_rh
from snf_image_helper.network.ifupdown_ng import render_interfaces_ng
from snf_image_helper.network.netplan import render_version_2
from snf_image_helper.network.network_manager import render_keyfile
from snf_image_helper.network.udev_names import render_names

from synnefo_light.manifest import Nic
from tests.golden.snf_image_helper.cards import CARDS
from tests.real.snf_image_helper.conftest import Unpack

DIST_PACKAGES = "usr/lib/python3/dist-packages"
MULTIARCH = "usr/lib/x86_64-linux-gnu"


def python(packages: Path, *argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Python with the modules and libraries of the packages, and then with those of this machine."""
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": f"{packages / DIST_PACKAGES}:/{DIST_PACKAGES}",
        "LD_LIBRARY_PATH": f"{packages / MULTIARCH}",
        "GI_TYPELIB_PATH": f"{packages / MULTIARCH}/girepository-1.0",
    }
    return subprocess.run([sys.executable, *argv], env=env, capture_output=True, text=True, timeout=60, check=False)


# --- NetworkManager


LIBNM = """
import json, sys, gi
gi.require_version("NM", "1.0")
from gi.repository import GLib, NM
keyfile = GLib.KeyFile()
keyfile.load_from_file(sys.argv[1], GLib.KeyFileFlags.NONE)
warnings = []
def handler(keyfile, connection, kind, data, user=None):
    warnings.append(int(kind))
    return False
connection = NM.keyfile_read(keyfile, "/", NM.KeyfileHandlerFlags.NONE, handler)
connection.normalize(None)
connection.verify()
ip = [connection.get_setting_ip4_config(), connection.get_setting_ip6_config()]
def addresses(setting):
    found = [setting.get_address(n) for n in range(setting.get_num_addresses())]
    return [f"{a.get_address()}/{a.get_prefix()}" for a in found]
print(json.dumps({
    "warnings": warnings,
    "mac": connection.get_setting_wired().get_mac_address(),
    "mtu": connection.get_setting_wired().get_mtu(),
    "methods": [s.get_method() for s in ip],
    "addresses": [a for s in ip for a in addresses(s)],
    "gateways": [s.get_gateway() for s in ip],
    "dns": [s.get_dns(n) for s in ip for n in range(s.get_num_dns())],
    "search": sorted({s.get_dns_search(n) for s in ip for n in range(s.get_num_dns_searches())}),
}))
"""


@pytest.fixture(scope="session")
def libnm(unpack: Unpack) -> Path:
    return unpack("libnm0", "gir1.2-nm-1.0", "python3-gi", "libgirepository-1.0-1", "gir1.2-glib-2.0")


def read_by_libnm(libnm: Path, folder: Path, text: str) -> dict[str, Any]:
    (folder / "keyfile").write_text(text)
    (folder / "read.py").write_text(LIBNM)
    done = python(libnm, folder / "read.py", folder / "keyfile")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("cards", CARDS)
def test_network_manager_understands_of_a_keyfile_what_was_meant(libnm: Path, tmp_path: Path, cards: str) -> None:
    methods4 = {"dhcp": "auto", "static": "manual", "none": "disabled"}
    methods6 = {"dhcp": "auto", "slaac": "auto", "static": "manual", "none": "link-local"}
    for number, nic in configured(CARDS[cards]):
        found = read_by_libnm(libnm, tmp_path, render_keyfile(number, nic))
        assert found == {
            "warnings": [],
            "mac": nic.mac.upper(),
            "mtu": nic.mtu or 0,
            "methods": [methods4[nic.ipv4], methods6[nic.ipv6]],
            "addresses": [a for a in (nic.ipv4_address, nic.ipv6_address) if a is not None],
            "gateways": [nic.ipv4_gateway, nic.ipv6_gateway],
            "dns": list(nic.nameservers),
            "search": sorted(nic.search),
        }


def test_network_manager_refuses_a_keyfile_that_is_wrong(libnm: Path, tmp_path: Path) -> None:
    """The control: it would have told us."""
    wrong = render_keyfile(0, CARDS["static"][0]).replace("method=manual", "method=disabled")
    with pytest.raises(AssertionError, match="not allowed"):
        read_by_libnm(libnm, tmp_path, wrong)


# --- ifupdown-ng


IFUP = """
set -e
mount -t sysfs sys /sys
ip link add card type veth peer name other
ip link set card address aa:00:00:00:00:01
ip link set other up
"$1/sbin/ifup" -i "$2" -S "$3/state" -E "$1/usr/libexec/ifupdown-ng" --auto >&2
ip -json address show dev nic0
ip -json route show
ip -json -6 route show default
cat /proc/sys/net/ipv6/conf/nic0/accept_ra
"""


@pytest.fixture(scope="session")
def ifupdown_ng(unpack: Unpack) -> Path:
    folder = unpack("ifupdown-ng", "busybox-static", "libbsd0", "libmd0")
    applets = folder / "applets"
    applets.mkdir()
    busybox = folder / "bin/busybox" if (folder / "bin/busybox").exists() else Path("/usr/bin/busybox")
    (applets / "nameif").symlink_to(busybox)
    return folder


def ifup(ifupdown_ng: Path, folder: Path, nics: tuple[Nic, ...]) -> tuple[dict[str, Any], list[Any], list[Any], int]:
    """What ip(8) says of the card, of the routes, of IPv6's default route, and accept_ra, after all is up."""
    (folder / "interfaces").write_text(render_interfaces_ng(nics))
    done = subprocess.run(
        [
            *("unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", IFUP, "ifup"),
            *(ifupdown_ng, folder / "interfaces", folder),
        ],
        env={
            "PATH": f"{ifupdown_ng}/applets:/usr/sbin:/usr/bin:/sbin:/bin",
            "LD_LIBRARY_PATH": f"{ifupdown_ng}/{MULTIARCH}",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    card, routes, default, accept_ra = (json.loads(line) for line in done.stdout.splitlines())
    return card[0], routes, default, accept_ra


def addresses(card: dict[str, Any]) -> set[str]:
    return {f"{a['local']}/{a['prefixlen']}" for a in card["addr_info"] if a["scope"] == "global"}


def test_ifupdown_ng_names_the_card_by_its_mac_and_configures_it(ifupdown_ng: Path, tmp_path: Path) -> None:
    card, routes, default, accept_ra = ifup(ifupdown_ng, tmp_path, CARDS["static"])
    assert (card["ifname"], card["address"], card["mtu"]) == ("nic0", "aa:00:00:00:00:01", 1400)
    assert addresses(card) == {"10.0.0.5/24", "2001:db8::5/64"}
    assert [r["gateway"] for r in routes if r["dst"] == "default"] == ["10.0.0.1"]
    assert [r["gateway"] for r in default] == ["2001:db8::1"]
    assert accept_ra == 0


def test_ifupdown_ng_reaches_a_gateway_outside_of_the_prefix(ifupdown_ng: Path, tmp_path: Path) -> None:
    card, routes, default, _ = ifup(ifupdown_ng, tmp_path, CARDS["routed"])
    assert addresses(card) == {"10.0.0.5/32", "2001:db8::5/128"}
    assert [(r["gateway"], r["dev"]) for r in routes if r["dst"] == "default"] == [("169.254.1.1", "nic0")]
    assert [r["gateway"] for r in default] == ["2001:db8:1::1"]


def test_ifupdown_ng_heeds_routers_where_it_shall(ifupdown_ng: Path, tmp_path: Path) -> None:
    card, _, _, accept_ra = ifup(ifupdown_ng, tmp_path, CARDS["three"][:1])
    assert "UP" in card["flags"] and accept_ra == 1


# --- cloud-init


@pytest.fixture(scope="session")
def cloud_init(unpack: Unpack) -> Path:
    libraries = ("yaml", "configobj", "jinja2", "markupsafe", "jsonschema", "attr", "pyrsistent", "jsonpatch")
    more = ("json-pointer", "six", "requests", "urllib3", "idna", "chardet", "certifi", "oauthlib", "serial")
    return unpack("cloud-init", *(f"python3-{name}" for name in (*libraries, *more)))


def converted(cloud_init: Path, folder: Path, nics: tuple[Nic, ...], kind: str) -> Path:
    """The tree that cloud-init makes of our network-config for a kind of stack."""
    (folder / "network-config").write_text(render_version_2(nics, for_cloud_init=True))
    names = [word for number, nic in configured(nics) for word in ("-m", f"nic{number},{nic.mac}")]
    done = python(
        cloud_init,
        *("-m", "cloudinit.cmd.main", "devel", "net-convert", "-p", str(folder / "network-config"), "-k", "yaml"),
        *("-d", str(folder / "tree"), "-D", "fedora", *names, "-O", kind),
    )
    assert done.returncode == 0, done.stderr
    return folder / "tree"


def pairs(text: str) -> set[tuple[str, str]]:
    """Assignments with their section, in one way of writing them."""
    found, section = set(), ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line
        elif "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.add((f"{section}{name}", value.strip('"').upper()))
    return found


#: Routed cards are left out: cloud-init has no words for a gateway on the link but in netplan.
TRANSLATED = sorted(set(CARDS) - {"routed"})


@pytest.mark.parametrize("cards", TRANSLATED)
def test_cloud_init_makes_the_ifcfg_of_our_network_config_that_we_write(
    cloud_init: Path, tmp_path: Path, cards: str
) -> None:
    tree = converted(cloud_init, tmp_path, CARDS[cards], "sysconfig")
    #: Those which only say what is so without them, or are said in other words.
    usual = {"NAME", "PREFIX", "IPV6INIT", "IPV6_AUTOCONF", "DHCPV6C", "BOOTPROTO"}
    for number, nic in configured(CARDS[cards]):
        theirs = pairs((tree / f"etc/sysconfig/network-scripts/ifcfg-nic{number}").read_text())
        ours = {(name, value) for name, value in pairs(render_ifcfg_rh(number, nic)) if name not in usual}
        assert ours <= theirs


@pytest.mark.parametrize("cards", TRANSLATED)
def test_cloud_init_names_cards_by_the_rule_that_we_write(cloud_init: Path, tmp_path: Path, cards: str) -> None:
    tree = converted(cloud_init, tmp_path, CARDS[cards], "sysconfig")
    theirs = (tree / "etc/udev/rules.d/70-persistent-net.rules").read_text().splitlines()
    ours = [line for line in render_names(CARDS[cards]).splitlines() if not line.startswith("#")]
    assert [line for line in theirs if line] == ours


@pytest.mark.parametrize("cards", ["static", "dhcp", "dhcp-both"])
def test_cloud_init_makes_the_keyfile_of_our_network_config_that_we_write(
    cloud_init: Path, tmp_path: Path, cards: str
) -> None:
    tree = converted(cloud_init, tmp_path, CARDS[cards], "network-manager")
    for number, nic in configured(CARDS[cards]):
        name = f"cloud-init-nic{number}.nmconnection"
        theirs = pairs((tree / "etc/NetworkManager/system-connections" / name).read_text())
        ours = pairs(render_keyfile(number, nic))
        #: cloud-init leaves out what is off, and says dns-search once.
        usual = {"[connection]id", "[ipv6]dns-search"} | ({"[ipv6]method"} if nic.ipv6 == "none" else set())
        assert {(key, value) for key, value in ours if key not in usual} <= theirs


SEED = """
import json, sys
from unittest import mock
from cloudinit import helpers
from cloudinit.sources import DataSourceNoCloud
paths = helpers.Paths({"cloud_dir": sys.argv[1], "run_dir": sys.argv[2]})
source = DataSourceNoCloud.DataSourceNoCloud({"datasource": {"NoCloud": {"fs_label": None}}}, None, paths)
with mock.patch("cloudinit.util.get_cmdline", return_value=""), mock.patch("cloudinit.dmi.read_dmi_data"):
    assert source.get_data()
print(json.dumps({
    "id": source.get_instance_id(),
    "user": source.get_userdata_raw().decode() if isinstance(source.get_userdata_raw(), bytes) else "",
    "vendor": str(source.get_vendordata_raw() is not None),
    "network": source.network_config,
}))
"""


@pytest.fixture
def seeded(tmp_path: Path) -> Path:
    """A root folder with the files that the task writes for the fixture of Ubuntu."""
    from snf_image_helper.actions import MakeFolder, RemoveFile, WriteFile
    from snf_image_helper.tasks.cloud_init import plan

    from tests.guests.trees import UBUNTU_24
    from tests.unit.snf_image_helper.fake_image import fake_image, manifest

    asked = manifest(
        cloud_init={"userdata": "IyEvYmluL3NoCg=="},
        nics=[{"mac": "aa:00:00:00:00:01", "ipv4": "dhcp"}],
        passwords=[{"user": "root", "hashed": "$6$salt$hash"}],
        authorized_keys="ssh-ed25519 A me",
    )
    for action in plan(fake_image(UBUNTU_24), asked):
        assert isinstance(action, MakeFolder | RemoveFile | WriteFile)
        if isinstance(action, WriteFile):
            path = tmp_path / str(action.path).lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(action.content)
    return tmp_path


def test_cloud_init_takes_the_seed(cloud_init: Path, seeded: Path) -> None:
    (seeded / "read.py").write_text(SEED)
    (seeded / "run").mkdir()
    done = python(cloud_init, seeded / "read.py", seeded / "var/lib/cloud", seeded / "run")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["id"] == "web1.example.org-001122334455" and found["user"] == "#!/bin/sh\n"
    assert found["vendor"] == "True"
    assert found["network"]["ethernets"]["nic0"]["match"] == {"macaddress": "aa:00:00:00:00:01"}


def test_cloud_init_finds_nothing_wrong_with_our_cloud_config(cloud_init: Path, seeded: Path) -> None:
    data = seeded / "var/lib/cloud/seed/nocloud/vendor-data"
    schema = ("-m", "cloudinit.cmd.main", "schema", "--config-file", str(data))
    done = python(cloud_init, *schema)
    assert done.returncode == 0 and "Valid" in done.stdout, done.stdout + done.stderr
    data.write_text(data.read_text().replace('"expire": false', '"expire": "maybe"'))
    assert python(cloud_init, *schema).returncode != 0, "the control: it would have told us"


def test_ds_identify_enables_cloud_init_for_the_seed(cloud_init: Path, seeded: Path) -> None:
    for folder in ("run/cloud-init", "proc/1", "sys/class/dmi/id", "dev"):
        (seeded / folder).mkdir(parents=True)
    (seeded / "proc/cmdline").write_text("root=/dev/vda1\n")
    (seeded / "proc/uptime").write_text("1 1\n")
    (seeded / "etc/cloud/cloud.cfg").write_text("datasource_list: [Ec2, GCE]\n")
    identify = cloud_init / "usr/lib/cloud-init/ds-identify"
    env = {**os.environ, "PATH_ROOT": str(seeded), "DEBUG_LEVEL": "1", "DI_LOG": "stderr"}
    done = subprocess.run(["sh", identify, "--force"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "NoCloud" in (seeded / "run/cloud-init/cloud.cfg").read_text()
