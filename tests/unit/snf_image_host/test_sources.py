from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest
from snf_image_host.sources import FtpImage, LocalImage, guard, parse_img_id, shown
from snf_image_host.sources.guard import AddressRefused, connect, is_own, may_connect
from snf_image_host.sources.local import relative_name

from synnefo_light.errors import UserError


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("93.184.216.34", True),
        ("10.1.2.3", True),
        ("192.168.1.1", True),
        ("2001:db8:1::1", True),
        ("fd00::1", True),
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("::1", False),
        ("0.0.0.0", False),
        ("0.1.2.3", False),
        ("::", False),
        ("169.254.169.254", False),
        ("fe80::1", False),
        ("224.0.0.1", False),
        ("ff02::1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::5db8:d822", True),
        ("64:ff9b:1::7f00:1", False),
        ("::ffff:93.184.216.34", True),
        ("::127.0.0.1", False),
        ("2002:7f00:1::1", False),
        ("2002:a9fe:a9fe::1", False),
        ("2002:5db8:d822::1", True),
        ("2001:0:5db8:d822:0:ffff:80ff:fffe", False),
        ("2001:0:7f00:1:0:ffff:a247:27dd", False),
        ("2001:0:5db8:d822:0:ffff:a247:27dd", True),
        ("100.100.100.200", False),
        ("::ffff:100.100.100.200", False),
        ("fd00:ec2::254", False),
    ],
)
def test_images_do_not_come_from_special_addresses(address: str, *, allowed: bool) -> None:
    assert may_connect(ipaddress.ip_address(address), ()) is allowed


@pytest.mark.parametrize("spelling", ["203.0.113.7", "::ffff:203.0.113.7", "2002:cb00:7107::1", "64:ff9b::cb00:7107"])
def test_images_do_not_come_from_the_node_itself(monkeypatch: pytest.MonkeyPatch, spelling: str) -> None:
    address = ipaddress.ip_address(spelling)
    assert may_connect(address, ())
    monkeypatch.setattr(guard, "is_own", lambda a: str(a) == "203.0.113.7")
    assert not may_connect(address, ())
    assert may_connect(address, ("203.0.113.0/24", "2002::/16", "64:ff9b::/96")), "the configuration overrides"


def test_an_address_is_the_nodes_own_when_a_socket_can_be_bound_to_it() -> None:
    """127.0.0.1 is the one address that any node has; the networks for documentation no node has."""
    assert is_own(ipaddress.ip_address("127.0.0.1"))
    assert not is_own(ipaddress.ip_address("192.0.2.1"))
    assert not is_own(ipaddress.ip_address("2001:db8::1"))


def test_the_address_that_is_checked_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: a name that first answers with a good address and then with a bad one."""
    answers = [[(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: answers.pop(0))
    monkeypatch.setattr(socket, "socket", lambda *a: pytest.fail("a connection was begun"))
    with pytest.raises(AddressRefused, match=r"has the address 127\.0\.0\.1"):
        connect("rebind.example", 80, networks=(), timeout_s=1)
    assert answers == [], "the name was resolved once"


def test_a_list_of_networks_replaces_the_rule() -> None:
    networks = ("127.0.0.0/8", "2001:db8::/32")
    assert may_connect(ipaddress.ip_address("127.0.0.1"), networks)
    assert may_connect(ipaddress.ip_address("::ffff:127.0.0.1"), networks)
    assert may_connect(ipaddress.ip_address("2001:db8::1"), networks)
    assert not may_connect(ipaddress.ip_address("10.0.0.1"), networks)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://h.example/a?token=s3cret", "https://h.example/a?..."),
        ("https://me:s3cret@h.example:8443/a/b", "https://...@h.example:8443/a/b"),
        ("ftp://s3cret@h/a?b@c/d", "ftp://...@h/a?..."),
        ("http://a:s3@cret@h", "http://...@h"),
        ("http://h/\x1b[2J", "http://h/\\x1b[2J"),
        ("debian/me@12.raw", "debian/me@12.raw"),
        ("http://u:pa/ss@h/x", "http://..."),
        ("http://u:pa?ss@h/x", "http://..."),
        ("http://u:pa#ss@h/x", "http://..."),
        ("https://h/x#token", "https://h/x"),
        ("https://h:80/x?mail=a@b&key=secret", "https://h:80/x?..."),
        ("https://[2001:db8::1]:80/a@b", "https://[2001:db8::1]:80/a@b"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, told: str) -> None:
    assert shown(url) == told


@pytest.mark.parametrize("url", ["ftp://h/a.raw?x", "ftps://h/a#b.raw"])
def test_ftp_knows_no_query_and_no_fragment(url: str) -> None:
    with pytest.raises(ValueError, match="write %3F and %23"):
        parse_img_id(url)
    assert parse_img_id("ftp://h/a%3Fb%23c.raw") == FtpImage(url="ftp://h/a%3Fb%23c.raw")


def test_a_deprecated_absolute_path_must_lie_below_the_folder() -> None:
    folder = Path("/var/lib/snf-image")
    assert relative_name(LocalImage(name="/var/lib/snf-image/a/b"), folder) == "a/b"
    for name in ("/var/lib/snf-image-evil/a", "/etc/passwd", "/var/lib/snf-image"):
        with pytest.raises(UserError, match="not below the image folder"):
            relative_name(LocalImage(name=name), folder)
